// The fused block kernels on CUDA devices: a block of threads takes some channels of an image.
//
// Bound by memory: a pass reads its maps from DRAM once (later sweeps hit the caches) and writes
// once. Sums go in a fixed order, no atomics: the same bits every time.

#include <cuda_runtime.h>

#include "cuda_block.h"

namespace iadd::block {
namespace {

constexpr int kWarp = 32;
constexpr int64_t kFull = 264;  // blocks that keep a large device busy
constexpr int64_t kMost = int64_t{1} << 30;

// The threads of a block that share a channel: `rows` of them, `lanes` channels beside one another.
template <int lanes, int rows>
struct Rows {
  __device__ int rank() const { return threadIdx.x / lanes; }
  __device__ int size() const { return rows; }
  template <class T>
  __device__ T sum(T value) const {
    constexpr int warps = rows * lanes / kWarp;
    const int lane = threadIdx.x % lanes;
#pragma unroll
    for (int step = kWarp / 2; step >= lanes; step /= 2) value += __shfl_xor_sync(~0u, value, step);
    __shared__ T parts[warps][lanes];
    __syncthreads();  // the last sum's readers are done
    if (threadIdx.x % kWarp < lanes) parts[threadIdx.x / kWarp][lane] = value;
    __syncthreads();
    T total = 0;
#pragma unroll
    for (int k = 0; k < warps; ++k) total += parts[k][lane];
    return total;
  }
};

template <bool back, bool dual, int lanes, int rows, class T>
__global__ void __launch_bounds__(rows* lanes) planes(Problem<T> p, int64_t chunks) {
  for (int64_t k = blockIdx.x; k < p.images * chunks; k += gridDim.x) {
    // Threads beyond the last channel do its work once more, and write what it writes.
    const int64_t channel = k % chunks * lanes + threadIdx.x % lanes;
    run<back, dual>(Rows<lanes, rows>(), p, k / chunks,
                    channel < p.channels ? channel : p.channels - 1);
  }
}

template <bool back, bool dual, int lanes, int rows, class T>
void start(const Problem<T>& p, cudaStream_t stream) {
  const int64_t chunks = (p.channels + lanes - 1) / lanes, wanted = p.images * chunks;
  const auto grid = static_cast<unsigned>(wanted < kMost ? wanted : kMost);
  planes<back, dual, lanes, rows><<<grid, rows * lanes, 0, stream>>>(p, chunks);
}

// Threads of a block by the pixels of a plane. A warp that reads 32 neighbours reads fastest; where
// that leaves a device idle, eight of them, still whole sectors, make four times as many blocks.
template <bool back, bool dual, class T>
int choose(const Problem<T>& p, cudaStream_t stream) {
  if (!p.images || !p.channels || !p.pixels()) return cudaSuccess;
  const int pixels = p.pixels();
  if (p.images * ((p.channels + kWarp - 1) / kWarp) >= kFull)
    pixels <= 64    ? start<back, dual, 32, 4>(p, stream)
    : pixels <= 256 ? start<back, dual, 32, 8>(p, stream)
                    : start<back, dual, 32, 16>(p, stream);
  else
    pixels <= 64    ? start<back, dual, 8, 8>(p, stream)
    : pixels <= 256 ? start<back, dual, 8, 16>(p, stream)
                    : start<back, dual, 8, 32>(p, stream);
  return cudaGetLastError();
}

}  // namespace

template <class T>
int launch(const Problem<T>& p, void* stream) {
  const bool dual = p.scale_dot;
  const auto pass = p.by_x ? (dual ? choose<true, true, T> : choose<true, false, T>)
                           : (dual ? choose<false, true, T> : choose<false, false, T>);
  return pass(p, static_cast<cudaStream_t>(stream));
}
template int launch(const Problem<float>&, void*);
template int launch(const Problem<double>&, void*);

}  // namespace iadd::block
