// The fused block kernels on CUDA devices: a warp, or a block of threads for large planes, a plane.
//
// Bound by memory: a pass reads its maps from DRAM once (later sweeps of a plane hit L1) and writes
// once. Sums are shuffles in a fixed order, no atomics: the same bits every time.

#include <cuda_runtime.h>

#include "cuda_block.h"

namespace iadd::block {
namespace {

constexpr int kWarp = 32;
constexpr int kThreads = 128;    // of a block
constexpr int64_t kSmall = 256;  // pixels: up to here a warp has a plane to itself
constexpr int64_t kBlocks = int64_t{1} << 30;

template <class T>
__device__ inline T warp_sum(T value) {
#pragma unroll
  for (int step = kWarp / 2; step; step /= 2) value += __shfl_xor_sync(~0u, value, step);
  return value;
}

struct Warp {
  __device__ int rank() const { return threadIdx.x % kWarp; }
  __device__ int size() const { return kWarp; }
  template <class T>
  __device__ T sum(T value) const {
    return warp_sum(value);
  }
};

struct Block {
  __device__ int rank() const { return threadIdx.x; }
  __device__ int size() const { return kThreads; }
  template <class T>
  __device__ T sum(T value) const {
    __shared__ T parts[kThreads / kWarp];
    value = warp_sum(value);
    __syncthreads();  // the last sum's readers are done
    if (threadIdx.x % kWarp == 0) parts[threadIdx.x / kWarp] = value;
    __syncthreads();
    T total = 0;
#pragma unroll
    for (int k = 0; k < kThreads / kWarp; ++k) total += parts[k];
    return total;
  }
};

template <bool back, bool dual, class T>
__global__ void __launch_bounds__(kThreads) warps(Problem<T> p) {
  const int64_t warp = (int64_t{blockIdx.x} * kThreads + threadIdx.x) / kWarp;
  const int64_t stride = int64_t{gridDim.x} * (kThreads / kWarp);
  for (int64_t plane = warp; plane < p.planes; plane += stride) run<back, dual>(Warp(), p, plane);
}

template <bool back, bool dual, class T>
__global__ void __launch_bounds__(kThreads) blocks(Problem<T> p) {
  for (int64_t plane = blockIdx.x; plane < p.planes; plane += gridDim.x)
    run<back, dual>(Block(), p, plane);
}

template <bool back, bool dual, class T>
int start(const Problem<T>& p, cudaStream_t stream) {
  if (!p.planes || !p.pixels()) return cudaSuccess;
  const bool small = p.pixels() <= kSmall;
  const int64_t each = small ? kThreads / kWarp : 1;
  const int64_t wanted = (p.planes + each - 1) / each;
  const auto grid = static_cast<unsigned>(wanted < kBlocks ? wanted : kBlocks);
  if (small)
    warps<back, dual><<<grid, kThreads, 0, stream>>>(p);
  else
    blocks<back, dual><<<grid, kThreads, 0, stream>>>(p);
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
