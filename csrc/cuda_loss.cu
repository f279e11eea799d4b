// The softmax cross-entropy on CUDA devices: a warp an image.

#include <cuda_runtime.h>

#include "cuda_loss.h"

namespace iadd::cross_entropy {
namespace {

constexpr int kWarp = 32, kWarps = 4;
constexpr int64_t kMost = int64_t{1} << 30;

struct Warp {
  __device__ int rank() const { return threadIdx.x % kWarp; }
  __device__ int size() const { return kWarp; }
  template <class T>
  __device__ T sum(T value) const {
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2) value += __shfl_xor_sync(~0u, value, step);
    return value;
  }
  template <class T>
  __device__ T max(T value) const {
#pragma unroll
    for (int step = kWarp / 2; step > 0; step /= 2) {
      const T other = __shfl_xor_sync(~0u, value, step);
      value = other > value ? other : value;
    }
    return value;
  }
};

template <bool dual, class T>
__global__ void __launch_bounds__(kWarp* kWarps) images(const Problem<T> p) {
  const int64_t first = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  for (int64_t row = first; row < p.images; row += int64_t{gridDim.x} * kWarps)
    image<dual>(Warp(), p, row);
}

}  // namespace

template <class T>
int launch(const Problem<T>& p, void* stream) {
  if (!p.images) return cudaSuccess;
  const int64_t wanted = (p.images + kWarps - 1) / kWarps;
  const auto blocks = static_cast<unsigned>(wanted < kMost ? wanted : kMost);
  const auto kernel = p.moving ? images<true, T> : images<false, T>;
  kernel<<<blocks, kWarp * kWarps, 0, static_cast<cudaStream_t>(stream)>>>(p);
  return cudaGetLastError();
}
template int launch(const Problem<float>&, void*);
template int launch(const Problem<double>&, void*);

}  // namespace iadd::cross_entropy
