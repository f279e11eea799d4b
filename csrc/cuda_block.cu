// The fused block kernels on CUDA devices: a block of threads takes eight channels of an image.
//
// Bound by memory: a pass reads its maps from DRAM once (later sweeps hit the caches) and writes
// once, 32 bytes, a whole sector, a pixel. Sums go in a fixed order, no atomics: the same bits every
// time.

#include <cuda_runtime.h>

#include "cuda_block.h"

namespace iadd::block {
namespace {

constexpr int kWarp = 32;
constexpr int kLanes = 8;  // channels of a block, neighbours in memory
constexpr unsigned kMost = 1u << 30;

// The threads of a block that share a channel; `rows` of them.
template <int rows>
struct Rows {
  __device__ int rank() const { return threadIdx.x / kLanes; }
  __device__ int size() const { return rows; }
  template <class T>
  __device__ T sum(T value) const {
    constexpr int warps = rows * kLanes / kWarp;
    const int lane = threadIdx.x % kLanes;
#pragma unroll
    for (int step = kWarp / 2; step >= kLanes; step /= 2)
      value += __shfl_xor_sync(~0u, value, step);
    __shared__ T parts[warps][kLanes];
    __syncthreads();  // the last sum's readers are done
    if (threadIdx.x % kWarp < kLanes) parts[threadIdx.x / kWarp][lane] = value;
    __syncthreads();
    T total = 0;
#pragma unroll
    for (int k = 0; k < warps; ++k) total += parts[k][lane];
    return total;
  }
};

template <bool back, bool dual, int rows, class T>
__global__ void __launch_bounds__(rows* kLanes) planes(Problem<T> p, int64_t chunks) {
  for (int64_t k = blockIdx.x; k < p.images * chunks; k += gridDim.x) {
    // Threads beyond the last channel do its work once more, and write what it writes.
    const int64_t channel = k % chunks * kLanes + threadIdx.x % kLanes;
    run<back, dual>(Rows<rows>(), p, k / chunks,
                    channel < p.channels ? channel : p.channels - 1);
  }
}

template <bool back, bool dual, class T>
int start(const Problem<T>& p, cudaStream_t stream) {
  if (!p.images || !p.channels || !p.pixels()) return cudaSuccess;
  const int64_t chunks = (p.channels + kLanes - 1) / kLanes, wanted = p.images * chunks;
  const unsigned grid = wanted < kMost ? static_cast<unsigned>(wanted) : kMost;
  if (p.pixels() <= 64)
    planes<back, dual, 8><<<grid, 8 * kLanes, 0, stream>>>(p, chunks);
  else if (p.pixels() <= 256)
    planes<back, dual, 16><<<grid, 16 * kLanes, 0, stream>>>(p, chunks);
  else
    planes<back, dual, 32><<<grid, 32 * kLanes, 0, stream>>>(p, chunks);
  return cudaGetLastError();
}

}  // namespace

template <class T>
int launch(const Problem<T>& p, void* stream) {
  const bool dual = p.scale_dot;
  const auto pass = p.by_x ? (dual ? start<true, true, T> : start<true, false, T>)
                           : (dual ? start<false, true, T> : start<false, false, T>);
  return pass(p, static_cast<cudaStream_t>(stream));
}
template int launch(const Problem<float>&, void*);
template int launch(const Problem<double>&, void*);

}  // namespace iadd::block
