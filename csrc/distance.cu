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

__host__ __device__ inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t blocks_for(int64_t size) {
  const int64_t tiles = ceil_div(size, kTile);
  return tiles < kBlocks ? tiles : kBlocks;
}

// ------------------------------------------------------------------------------- Moving elements

struct Whole {
  static constexpr bool value = true;
};
struct Parts {
  static constexpr bool value = false;
};

// Call f(i, whole) for every four elements of this thread.
template <class F>
__device__ inline void each_four(int64_t size, bool aligned, const F& f) {
  const int64_t stride = int64_t{gridDim.x} * kTile;
  for (int64_t i = blockIdx.x * kTile + threadIdx.x * kVector; i < size; i += stride) {
    if (aligned && i + kVector <= size)
      f(i, Whole());
    else
      f(i, Parts());
  }
}

// Four neighbours that move as one: 128 bits of float32, twice 128 of float64.
template <class T>
struct alignas(16) Four {
  T x[kVector];
};

// Elements i to i + 3. `whole`: all are there and aligned, and move as one. Otherwise one by
// one, and zeros beyond the end.
template <bool whole, class T>
__device__ inline void load(const void* array, int64_t i, int64_t size, T (&to)[kVector]) {
  const T* from = static_cast<const T*>(array) + i;
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
__device__ inline void store(void* array, int64_t i, int64_t size, const T (&from)[kVector]) {
  T* to = static_cast<T*>(array) + i;
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

// Student minus target, start minus target and weights of elements i to i + 3.
template <class T, bool weighted, bool whole>
__device__ inline void gather(const Distance& p, int64_t i, T (&d)[kVector], T (&e)[kVector],
                              T (&w)[kVector]) {
  T target[kVector];
  load<whole>(p.student, i, p.size, d);
  load<whole>(p.start, i, p.size, e);
  load<whole>(p.target, i, p.size, target);
  if constexpr (weighted) load<whole>(p.weights, i, p.size, w);
#pragma unroll
  for (int k = 0; k < kVector; ++k) {
    d[k] -= target[k];
    e[k] -= target[k];
    if constexpr (!weighted) w[k] = T(1);
  }
}

// ---------------------------------------------------------------------------------- Summing up

__device__ inline double warp_sum(double x) {
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) x += __shfl_xor_sync(~0u, x, offset);
  return x;
}

// The sums of a block's n values a thread, to thread 0.
template <int n>
__device__ inline void block_sum(double (&x)[n]) {
  __shared__ double shared[n][kWarp];
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
#pragma unroll
  for (int j = 0; j < n; ++j) {
    x[j] = warp_sum(x[j]);
    if (lane == 0) shared[j][warp] = x[j];
  }
  __syncthreads();
  if (warp != 0) return;
#pragma unroll
  for (int j = 0; j < n; ++j)
    x[j] = warp_sum(lane < static_cast<int>(blockDim.x) / kWarp ? shared[j][lane] : 0);
}

// Write a block's n sums to its place among all blocks' sums.
template <int n>
__device__ inline void put_block_sums(double (&x)[n], double* partials) {
  block_sum(x);
  if (threadIdx.x != 0) return;
#pragma unroll
  for (int j = 0; j < n; ++j) partials[j * int64_t{gridDim.x} + blockIdx.x] = x[j];
}

// Add up all blocks' n sums in one block, to thread 0.
template <int n>
__device__ inline void add_block_sums(const double* partials, int64_t blocks, double (&x)[n]) {
#pragma unroll
  for (int j = 0; j < n; ++j) {
    x[j] = 0;
    for (int64_t b = threadIdx.x; b < blocks; b += blockDim.x) x[j] += partials[j * blocks + b];
  }
  block_sum(x);
}

// ------------------------------------------------------------------------------------- Distance

// Sums in the order numerator, its plain one, denominator, its plain one.
template <class T, bool weighted>
__global__ void __launch_bounds__(kThreads)
    distance_kernel(const Distance p, bool aligned, double* partials) {
  double sums[4] = {};
  T* gw = p.weighted_denominator ? nullptr : static_cast<T*>(p.weights_gradient);
  each_four(p.size, aligned, [&](int64_t i, auto how) {
    constexpr bool whole = decltype(how)::value;
    T d[kVector], e[kVector], w[kVector], gradient[kVector];
    gather<T, weighted, whole>(p, i, d, e, w);
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
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
    if (gw) store<whole>(gw, i, p.size, w);
  });
  if constexpr (!weighted) sums[0] = sums[1];
  if (!p.weighted_denominator) sums[2] = sums[3];
  put_block_sums(sums, partials);
}

// `loss` in double is for the second pass, if there is one.
template <class T>
__global__ void finish_kernel(const Distance p, const double* partials, int64_t blocks,
                              double* loss) {
  double sums[4];
  add_block_sums(partials, blocks, sums);
  if (threadIdx.x != 0) return;
  *loss = sums[0] / sums[2];
  *static_cast<T*>(p.loss) = static_cast<T>(sums[0] / sums[2]);
  *static_cast<T*>(p.unweighted) = static_cast<T>(sums[1] / sums[3]);
  *static_cast<T*>(p.scale) = static_cast<T>(2 / sums[2]);
}

// The unscaled gradient of the weights where the start is weighted too: it wants the loss, so it
// takes a second pass. d L / d w_p is scale * w_p (d_p^2 - L e_p^2): a difference, hence in double.
template <class T>
__global__ void __launch_bounds__(kThreads)
    weights_gradient_kernel(const Distance p, bool aligned, const double* total) {
  const double loss = *total;
  each_four(p.size, aligned, [&](int64_t i, auto how) {
    constexpr bool whole = decltype(how)::value;
    T d[kVector], e[kVector], w[kVector];
    gather<T, true, whole>(p, i, d, e, w);
#pragma unroll
    for (int k = 0; k < kVector; ++k) w[k] *= double(d[k]) * d[k] - loss * (double(e[k]) * e[k]);
    store<whole>(p.weights_gradient, i, p.size, w);
  });
}

template <class... Arrays>
bool are_aligned(Arrays... arrays) {
  return ((reinterpret_cast<uintptr_t>(arrays) % 16 == 0) && ...);
}

template <class T, bool weighted>
void launch_distance(const Distance& p, double* space, cudaStream_t stream) {
  double *loss = space, *sums = space + 1;
  const int64_t blocks = blocks_for(p.size);
  const bool aligned =
      are_aligned(p.student, p.start, p.target, p.weights, p.student_gradient, p.weights_gradient);
  distance_kernel<T, weighted><<<blocks, kThreads, 0, stream>>>(p, aligned, sums);
  finish_kernel<T><<<1, kFinish, 0, stream>>>(p, sums, blocks, loss);
  if (p.weights_gradient && p.weighted_denominator)
    weights_gradient_kernel<T><<<blocks, kThreads, 0, stream>>>(p, aligned, loss);
}

}  // namespace

int64_t workspace(const Distance& p) { return 1 + 4 * blocks_for(p.size); }

int launch(const Distance& p, double* space, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  if (p.type == Type::float64)
    p.weights ? launch_distance<double, true>(p, space, on)
              : launch_distance<double, false>(p, space, on);
  else
    p.weights ? launch_distance<float, true>(p, space, on)
              : launch_distance<float, false>(p, space, on);
  return cudaGetLastError();
}

}  // namespace iadd
