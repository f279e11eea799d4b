// Images moved by a matrix each on CUDA devices, and the transpose: a thread a pixel.
//
// The transpose gathers: a pixel looks where its samples can be, and adds them up in the order that
// they stand in. PyTorch's scatters by atomic additions, whose order changes from run to run.

#include <cuda_runtime.h>

#include "augment.h"

namespace iadd {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kBlocks = int64_t{1} << 20;

// From a pixel of the moved image to a place in the first one, in pixels.
template <class T>
struct Map {
  T xx, xy, x, yx, yy, y;

  __device__ Map(const T* m, int height, int width) {
    // Pixels lie from -1 to 1, corner to corner.
    const T wide = T(width - 1), high = T(height - 1);
    const T by_x = width > 1 ? 2 / wide : T(0), by_y = height > 1 ? 2 / high : T(0);
    xx = m[0] * by_x * wide / 2, xy = m[1] * by_y * wide / 2;
    x = (m[2] - m[0] - m[1] + 1) * wide / 2;
    yx = m[3] * by_x * high / 2, yy = m[4] * by_y * high / 2;
    y = (m[5] - m[3] - m[4] + 1) * high / 2;
  }
  __device__ T right(int column, int row) const { return xx * column + xy * row + x; }
  __device__ T down(int column, int row) const { return yx * column + yy * row + y; }
};

// How much of a sample comes from a pixel that far away in one direction.
template <class T>
__device__ inline T weight(T distance) {
  const T found = 1 - (distance < 0 ? -distance : distance);
  return found > 0 ? found : T(0);
}

template <class T>
__device__ inline T sample(const T* image, const Map<T>& map, int column, int row, int height,
                           int width) {
  const T right = map.right(column, row), down = map.down(column, row);
  if (!(right > -1 && right < width && down > -1 && down < height)) return 0;
  const int left = static_cast<int>(floor(right)), top = static_cast<int>(floor(down));
  T sum = 0;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const int x = left + k % 2, y = top + k / 2;
    if (x < 0 || y < 0 || x >= width || y >= height) continue;
    sum += weight(down - y) * weight(right - x) * image[y * width + x];
  }
  return sum;
}

// Pixels first..last of a row or column of `side` within `reach` of a place; all, if it is no
// number.
template <class T>
__device__ inline void around(T place, T reach, int side, int& first, int& last) {
  const T low = place - reach, high = place + reach;
  first = low > 0 && low < side ? static_cast<int>(low) : low >= side ? side : 0;
  last = high < side - 1 && high > -1 ? static_cast<int>(high) + 1 : high <= -1 ? -1 : side - 1;
}

template <class T>
__device__ inline T gathered(const T* image, const Map<T>& map, int column, int row, int height,
                             int width) {
  const T det = map.xx * map.yy - map.xy * map.yx, dx = column - map.x, dy = row - map.y;
  int left = 0, right = width - 1, top = 0, bottom = height - 1;
  if (det > T(1e-3) || det < T(-1e-3)) {  // else the samples may come from anywhere
    const T x = (map.yy * dx - map.xy * dy) / det, y = (map.xx * dy - map.yx * dx) / det;
    const T slack = T(0.01), size = det < 0 ? -det : det;
    around(x, (fabs(map.yy) + fabs(map.xy)) / size + slack, width, left, right);
    around(y, (fabs(map.xx) + fabs(map.yx)) / size + slack, height, top, bottom);
  }
  T sum = 0;
  for (int j = top; j <= bottom; ++j)
    for (int i = left; i <= right; ++i)
      sum += weight(map.down(i, j) - row) * weight(map.right(i, j) - column) * image[j * width + i];
  return sum;
}

template <bool transposed, class T>
__global__ void __launch_bounds__(kThreads) move(Samples<T> s) {
  const int pixels = s.height * s.width;
  const int64_t size = s.count * s.channels * pixels, stride = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < size; i += stride) {
    const int64_t plane = i / pixels;
    const int at = static_cast<int>(i - plane * pixels), row = at / s.width;
    const Map<T> map(s.matrix + plane / s.channels * 6, s.height, s.width);
    const T* image = s.images + plane * pixels;
    const int column = at - row * s.width;
    s.out[i] = transposed ? gathered(image, map, column, row, s.height, s.width)
                          : sample(image, map, column, row, s.height, s.width);
  }
}

}  // namespace

template <class T>
int launch(const Samples<T>& s, bool transposed, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  const int64_t wanted = (s.count * s.channels * s.height * s.width + kThreads - 1) / kThreads;
  const auto blocks = static_cast<unsigned>(wanted < kBlocks ? wanted : kBlocks);
  if (transposed)
    move<true><<<blocks, kThreads, 0, on>>>(s);
  else
    move<false><<<blocks, kThreads, 0, on>>>(s);
  return cudaGetLastError();
}
template int launch(const Samples<float>&, bool, void*);
template int launch(const Samples<double>&, bool, void*);

}  // namespace iadd
