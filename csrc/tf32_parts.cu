// Float32 operands in TF32 parts on CUDA devices: each element read once, three written.

#include <cuda_runtime.h>

#include "tf32_parts.h"

namespace iadd::tf32 {
namespace {

constexpr int kThreads = 256, kVector = 4;
constexpr int64_t kBlocks = 132 * 16;

unsigned blocks_for(int64_t threads) {
  const int64_t wanted = (threads + kThreads - 1) / kThreads;
  return static_cast<unsigned>(wanted < kBlocks ? wanted : kBlocks);
}

template <int vector>
struct alignas(4 * vector) Few {
  float x[vector];
};

// `vector` neighbours at a time: `inner` and the addresses are multiples of it.
template <int vector, class Index>
__global__ void __launch_bounds__(kThreads)
    split(const float* x, float* out, Index size, Index inner) {
  using Vector = Few<vector>;
  const Index stride = Index(gridDim.x) * kThreads * vector;
  for (Index i = (Index(blockIdx.x) * kThreads + threadIdx.x) * vector; i < size; i += stride) {
    const Vector from = *reinterpret_cast<const Vector*>(x + i);
    Vector high, low;
#pragma unroll
    for (int k = 0; k < vector; ++k) {
      const Parts p = parts(from.x[k]);
      high.x[k] = p.high, low.x[k] = p.low;
    }
    float* to = out + i + i / inner * inner * 2;
    *reinterpret_cast<Vector*>(to) = high;
    *reinterpret_cast<Vector*>(to + inner) = low;
    *reinterpret_cast<Vector*>(to + 2 * inner) = high;
  }
}

// A block takes kTile x kTile filters of one weight at a time: read once as they lie, in runs of
// neighbours, and written in both orders, again in runs.
constexpr int kTile = 16;

template <bool in_parts>
__global__ void __launch_bounds__(kThreads) operands(const __grid_constant__ Weights weights) {
  __shared__ float tile[kTile][kTile * 9 + 1];
  const Weight& w = weights.of[blockIdx.y];
  const int64_t across = (w.inputs + kTile - 1) / kTile, down = (w.outputs + kTile - 1) / kTile;
  for (int64_t t = blockIdx.x; t < across * down; t += gridDim.x) {
    const int64_t first = t / across * kTile, left = t % across * kTile;
    const int rows = static_cast<int>(min(int64_t{kTile}, w.outputs - first));
    const int columns = static_cast<int>(min(int64_t{kTile}, w.inputs - left));
    __syncthreads();  // the last tile's readers are done
    for (int i = threadIdx.x; i < rows * columns * 9; i += kThreads) {
      const int row = i / (columns * 9), rest = i - row * (columns * 9);
      tile[row][rest] = w.x[w.at(first + row, left, 0) + rest];
    }
    __syncthreads();
    for (int i = threadIdx.x; i < kTile * kTile * 9; i += kThreads) {
      const int near = i % kTile, far = i / kTile % kTile, tap = i / (kTile * kTile);
      if (far < rows && near < columns)
        w.put_forward<in_parts>(first + far, left + near, tap, tile[far][near * 9 + tap]);
      if (near < rows && far < columns)
        w.put_flipped<in_parts>(first + near, left + far, tap, tile[near][far * 9 + tap]);
    }
  }
}

template <int vector>
void start(const float* x, float* out, int64_t size, int64_t inner, cudaStream_t on) {
  const unsigned blocks = blocks_for(size / vector);
  if (size <= (int64_t{1} << 29))  // so that no sum of indices overflows
    split<vector, uint32_t><<<blocks, kThreads, 0, on>>>(x, out, static_cast<uint32_t>(size),
                                                         static_cast<uint32_t>(inner));
  else
    split<vector, int64_t><<<blocks, kThreads, 0, on>>>(x, out, size, inner);
}

bool aligned(const float* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

}  // namespace

int launch(const float* x, float* out, int64_t size, int64_t inner, void* stream) {
  if (!size) return cudaSuccess;
  const auto on = static_cast<cudaStream_t>(stream);
  if (inner % kVector == 0 && aligned(x) && aligned(out))
    start<kVector>(x, out, size, inner, on);
  else
    start<1>(x, out, size, inner, on);
  return cudaGetLastError();
}

int launch(const Weights& weights, bool in_parts, void* stream) {
  int64_t tiles = 0;
  for (int k = 0; k < weights.count; ++k) {
    const Weight& w = weights.of[k];
    const int64_t these = (w.inputs + kTile - 1) / kTile * ((w.outputs + kTile - 1) / kTile);
    tiles = these > tiles ? these : tiles;
  }
  if (!tiles) return cudaSuccess;
  const dim3 grid(static_cast<unsigned>(tiles < kBlocks ? tiles : kBlocks), weights.count);
  const auto kernel = in_parts ? operands<true> : operands<false>;
  kernel<<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(weights);
  return cudaGetLastError();
}

}  // namespace iadd::tf32
