// The weighted parameter distance on CUDA devices.
//
// Bytes a parameter (float32): 20 read and written for the student's gradient, 24 with the gradient
// of scalar weights: each array once, 128 bits a load. Two launches: sums of blocks, then their
// sum. No atomics, a grid that depends on the size alone and sums in double: the same bits every
// time. An index is an int64_t throughout.

#include <cuda_runtime.h>

#include "distance.h"

namespace iadd {
namespace {

constexpr int kWarp = 32;
constexpr int kThreads = 256;
constexpr int kVector = 4;                     // elements of a thread at a time
constexpr int64_t kTile = kThreads * kVector;  // of a block
// About four waves of blocks on the largest devices; a block then strides over several tiles.
constexpr int64_t kBlocks = 4096;
constexpr int64_t kFinish = 1024;  // threads of the single block that adds up the blocks' sums

int64_t blocks_for(int64_t size) {
  const int64_t tiles = (size + kTile - 1) / kTile;
  return tiles < kBlocks ? tiles : kBlocks;
}

// Four neighbours that move as one: 128 bits of float32, twice 128 of float64.
template <class T>
struct alignas(16) Four {
  T x[kVector];
};

// Elements i to i + 3. `whole`: all are there and aligned, and move as one. Otherwise one by
// one, and zeros beyond the end.
template <bool whole, class T>
__device__ inline void load(const T* array, int64_t i, int64_t size, T (&to)[kVector]) {
  const T* from = array + i;
  if constexpr (whole) {
    const Four<T> four = *reinterpret_cast<const Four<T>*>(from);
#pragma unroll
    for (int k = 0; k < kVector; ++k) to[k] = four.x[k];
  } else {
#pragma unroll
    for (int k = 0; k < kVector; ++k) to[k] = i + k < size ? from[k] : T(0);
  }
}

template <bool whole, class T>
__device__ inline void store(T* array, int64_t i, int64_t size, const T (&from)[kVector]) {
  T* to = array + i;
  if constexpr (whole) {
    Four<T> four;
#pragma unroll
    for (int k = 0; k < kVector; ++k) four.x[k] = from[k];
    *reinterpret_cast<Four<T>*>(to) = four;
  } else {
#pragma unroll
    for (int k = 0; k < kVector; ++k)
      if (i + k < size) to[k] = from[k];
  }
}

__device__ inline double warp_sum(double x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(~0u, x, offset);
  return x;
}

// The sums of a block's four values a thread, to thread 0.
__device__ inline void block_sum(double (&x)[4]) {
  __shared__ double shared[4][kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    x[j] = warp_sum(x[j]);
    if (lane == 0) shared[j][warp] = x[j];
  }
  __syncthreads();
  if (warp != 0) return;
#pragma unroll
  for (int j = 0; j < 4; ++j)
    x[j] = warp_sum(lane < static_cast<int>(blockDim.x) / kWarp ? shared[j][lane] : 0);
}

// Four elements from i on; sums in the order numerator, its plain one, denominator, its plain one.
template <bool weighted, bool whole, class T>
__device__ inline void add_four(const Distance<T>& p, int64_t i, double (&sums)[4]) {
  T d[kVector], e[kVector], w[kVector], target[kVector], gradient[kVector];
  load<whole>(p.student, i, p.size, d);
  load<whole>(p.start, i, p.size, e);
  load<whole>(p.target, i, p.size, target);
  if constexpr (weighted) load<whole>(p.weights, i, p.size, w);
#pragma unroll
  for (int k = 0; k < kVector; ++k) {
    d[k] -= target[k];
    e[k] -= target[k];
    sums[1] += double(d[k]) * d[k];
    sums[3] += double(e[k]) * e[k];
    if constexpr (weighted) {
      const T u = w[k] * d[k], v = w[k] * e[k];
      sums[0] += double(u) * u;
      if (p.weighted_denominator) sums[2] += double(v) * v;
      gradient[k] = w[k] * u;
      w[k] = u * d[k];
    } else {
      gradient[k] = d[k];
    }
  }
  if (p.student_gradient) store<whole>(p.student_gradient, i, p.size, gradient);
  if (weighted && p.weights_gradient) store<whole>(p.weights_gradient, i, p.size, w);
}

template <class T, bool weighted>
__global__ void __launch_bounds__(kThreads)
    distance_kernel(const Distance<T> p, bool aligned, double* partials) {
  double sums[4] = {};
  const int64_t stride = int64_t{gridDim.x} * kTile;
  for (int64_t i = blockIdx.x * kTile + threadIdx.x * kVector; i < p.size; i += stride) {
    if (aligned && i + kVector <= p.size)
      add_four<weighted, true>(p, i, sums);
    else
      add_four<weighted, false>(p, i, sums);
  }
  if constexpr (!weighted) sums[0] = sums[1];
  if (!p.weighted_denominator) sums[2] = sums[3];
  block_sum(sums);
  if (threadIdx.x != 0) return;
#pragma unroll
  for (int j = 0; j < 4; ++j) partials[j * int64_t{gridDim.x} + blockIdx.x] = sums[j];
}

// One block adds up the blocks' sums.
template <class T>
__global__ void finish_kernel(const Distance<T> p, const double* partials, int64_t blocks) {
  double sums[4] = {};
#pragma unroll
  for (int j = 0; j < 4; ++j)
    for (int64_t b = threadIdx.x; b < blocks; b += blockDim.x) sums[j] += partials[j * blocks + b];
  block_sum(sums);
  if (threadIdx.x != 0) return;
  *p.loss = static_cast<T>(sums[0] / sums[2]);
  *p.unweighted = static_cast<T>(sums[1] / sums[3]);
  *p.scale = static_cast<T>(2 / sums[2]);
}

template <class... Arrays>
bool are_aligned(Arrays... arrays) {
  return ((reinterpret_cast<uintptr_t>(arrays) % 16 == 0) && ...);
}

}  // namespace

int64_t workspace(int64_t size) { return 4 * blocks_for(size); }

template <class T>
int launch(const Distance<T>& p, double* sums, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  const int64_t blocks = blocks_for(p.size);
  const bool aligned =
      are_aligned(p.student, p.start, p.target, p.weights, p.student_gradient, p.weights_gradient);
  if (p.weights)
    distance_kernel<T, true><<<blocks, kThreads, 0, on>>>(p, aligned, sums);
  else
    distance_kernel<T, false><<<blocks, kThreads, 0, on>>>(p, aligned, sums);
  finish_kernel<T><<<1, kFinish, 0, on>>>(p, sums, blocks);
  return cudaGetLastError();
}

template int launch(const Distance<float>&, double*, void*);
template int launch(const Distance<double>&, double*, void*);

}  // namespace iadd
