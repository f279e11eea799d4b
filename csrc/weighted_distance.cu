// The weighted parameter distance and the step on its weights on CUDA devices.
//
// Bytes a parameter (float32): 20 read and written for the student's gradient, 24 with the gradient
// of scalar weights: each array once, 128 bits a load. Two launches: sums of blocks, then their
// sum. No atomics, a grid that depends on the size alone and sums in double: the same bits every
// time. An index is an int64_t throughout.

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include "weighted_distance.h"

namespace iadd {
namespace {

constexpr int kWarp = 32;
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr int kVector = 4;                     // elements of a thread at a time
constexpr int64_t kTile = kThreads * kVector;  // of a block
// About four waves of blocks on the largest devices; a block then strides over several tiles.
constexpr int64_t kBlocks = 4096;
constexpr int64_t kFinish = 1024;  // threads of the single block that adds up the blocks' sums
constexpr int64_t kChunk = 1024;   // elements of a warp in the sums of segments

__host__ __device__ inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

int64_t blocks_for(int64_t size) {
  const int64_t tiles = ceil_div(size, kTile);
  return tiles < kBlocks ? tiles : kBlocks;
}

enum class Weights { none, scalar, segment };

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

__device__ inline float widen(float x, float) { return x; }
__device__ inline double widen(double x, double) { return x; }
__device__ inline float widen(__nv_bfloat16 x, float) { return __bfloat162float(x); }
__device__ inline float widen(__half x, float) { return __half2float(x); }

// Four neighbours that move as one: 128 bits of float32, 64 of bfloat16, twice 128 of float64.
template <class E>
struct alignas(4 * sizeof(E) < 16 ? 4 * sizeof(E) : 16) Four {
  E x[kVector];
};

// Elements i to i + 3 as T. `whole`: all are there and aligned, and move as one. Otherwise one by
// one, and zeros beyond the end.
template <bool whole, class E, class T>
__device__ inline void load(const void* array, int64_t i, int64_t size, T (&to)[kVector]) {
  const E* from = static_cast<const E*>(array) + i;
  if constexpr (whole) {
    const Four<E> four = *reinterpret_cast<const Four<E>*>(from);
#pragma unroll
    for (int k = 0; k < kVector; ++k) to[k] = widen(four.x[k], T());
  } else {
#pragma unroll
    for (int k = 0; k < kVector; ++k) to[k] = i + k < size ? widen(from[k], T()) : T(0);
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

// Zero what is masked out, whatever was there.
template <bool whole, class T>
__device__ inline void keep_where(const bool* mask, int64_t i, int64_t size, T (&d)[kVector],
                                  T (&e)[kVector], T (&w)[kVector]) {
  bool keep[kVector];
  if constexpr (whole) {
    const Four<bool> four = *reinterpret_cast<const Four<bool>*>(mask + i);
#pragma unroll
    for (int k = 0; k < kVector; ++k) keep[k] = four.x[k];
  } else {
#pragma unroll
    for (int k = 0; k < kVector; ++k) keep[k] = i + k < size && mask[i + k];
  }
#pragma unroll
  for (int k = 0; k < kVector; ++k) {
    if (keep[k]) continue;
    d[k] = e[k] = w[k] = T(0);
  }
}

// The segment of element i: the last one that begins at or before it. Always one of 0 .. S - 1,
// whatever the offsets hold.
__device__ inline int64_t segment_of(const Distance& p, int64_t i) {
  int64_t low = 0, high = p.segments;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (p.offsets[middle] <= i ? low : high) = middle;
  }
  return low;
}

// Student minus target, start minus target and weights of elements i to i + 3.
template <class T, class E, Weights kind, bool whole>
__device__ inline void gather(const Distance& p, int64_t i, T (&d)[kVector], T (&e)[kVector],
                              T (&w)[kVector]) {
  T target[kVector];
  load<whole, T>(p.student, i, p.size, d);
  load<whole, E>(p.start, i, p.size, e);
  load<whole, E>(p.target, i, p.size, target);
  if constexpr (kind == Weights::scalar) load<whole, T>(p.weights, i, p.size, w);
  if constexpr (kind == Weights::segment) {
    int64_t segment = segment_of(p, i);
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
      while (segment + 1 < p.segments && p.offsets[segment + 1] <= i + k) ++segment;
      w[k] = static_cast<const T*>(p.weights)[segment];
    }
  }
#pragma unroll
  for (int k = 0; k < kVector; ++k) {
    d[k] -= target[k];
    e[k] -= target[k];
    if constexpr (kind == Weights::none) w[k] = T(1);
  }
  if (p.mask) keep_where<whole>(p.mask, i, p.size, d, e, w);
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
template <class T, class E, Weights kind>
__global__ void __launch_bounds__(kThreads)
    distance_kernel(const Distance p, bool aligned, double* partials) {
  double sums[4] = {};
  T* gw = kind == Weights::scalar && !p.weighted_denominator ? static_cast<T*>(p.weights_gradient)
                                                             : nullptr;
  each_four(p.size, aligned, [&](int64_t i, auto how) {
    constexpr bool whole = decltype(how)::value;
    T d[kVector], e[kVector], w[kVector], gradient[kVector];
    gather<T, E, kind, whole>(p, i, d, e, w);
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
      const double dd = double(d[k]) * d[k], ee = double(e[k]) * e[k];
      sums[1] += dd;
      sums[3] += ee;
      if constexpr (kind == Weights::none) {
        gradient[k] = d[k];
      } else if (p.squared) {
        const T u = w[k] * d[k], v = w[k] * e[k];
        sums[0] += double(u) * u;
        if (p.weighted_denominator) sums[2] += double(v) * v;
        gradient[k] = w[k] * u;
        w[k] = u * d[k];
      } else {
        const T u = w[k] * d[k], v = w[k] * e[k];
        sums[0] += double(u) * d[k];
        if (p.weighted_denominator) sums[2] += double(v) * e[k];
        gradient[k] = u;
        w[k] = d[k] * d[k] * T(0.5);
      }
    }
    if (p.student_gradient) store<whole>(p.student_gradient, i, p.size, gradient);
    if (gw) store<whole>(gw, i, p.size, w);
  });
  if constexpr (kind == Weights::none) sums[0] = sums[1];
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

// The unscaled gradient of scalar weights where the start is weighted too: it wants the loss, so it
// takes a second pass. d L / d w_p is scale * w_p (d_p^2 - L e_p^2): a difference, hence in double.
template <class T, class E>
__global__ void __launch_bounds__(kThreads)
    weights_gradient_kernel(const Distance p, bool aligned, const double* total) {
  const double loss = *total;
  each_four(p.size, aligned, [&](int64_t i, auto how) {
    constexpr bool whole = decltype(how)::value;
    T d[kVector], e[kVector], w[kVector];
    gather<T, E, Weights::scalar, whole>(p, i, d, e, w);
#pragma unroll
    for (int k = 0; k < kVector; ++k)
      w[k] = (p.squared ? w[k] : 0.5) * (double(d[k]) * d[k] - loss * (double(e[k]) * e[k]));
    store<whole>(p.weights_gradient, i, p.size, w);
  });
}

// The sums of d_p^2 (less L e_p^2) over the pieces that segments cut chunks into, a warp a chunk.
// The piece of chunk k and segment s has place k + s: along the vector one of the two grows from
// each piece to the next, so places never meet.
template <class T, class E>
__global__ void __launch_bounds__(kThreads)
    pieces_kernel(const Distance p, const double* total, double* pieces) {
  const int lane = threadIdx.x % kWarp;
  const int64_t k = int64_t{blockIdx.x} * kWarps + threadIdx.x / kWarp;
  int64_t begin = k * kChunk;
  const int64_t end = begin + kChunk < p.size ? begin + kChunk : p.size;
  if (begin >= end) return;
  const double loss = p.weighted_denominator ? *total : 0;
  const T* student = static_cast<const T*>(p.student);
  const E *start = static_cast<const E*>(p.start), *target = static_cast<const E*>(p.target);
  for (int64_t s = segment_of(p, begin); begin < end && s < p.segments; ++s) {
    const int64_t next = p.offsets[s + 1], stop = next < end ? next : end;
    double sum = 0;
#pragma unroll 4
    for (int64_t i = begin + lane; i < stop; i += kWarp) {
      const T t = widen(target[i], T()), d = student[i] - t;
      double term = double(d) * d;
      if (p.weighted_denominator) {
        const T e = widen(start[i], T()) - t;
        term -= loss * (double(e) * e);
      }
      sum += !p.mask || p.mask[i] ? term : 0;
    }
    sum = warp_sum(sum);
    if (lane == 0) pieces[k + s] = sum;
    begin = stop > begin ? stop : begin;
  }
}

// Add up the pieces of each segment, a block a segment.
template <class T>
__global__ void __launch_bounds__(kThreads)
    segments_kernel(const Distance p, const double* pieces) {
  const int64_t s = blockIdx.x;
  const int64_t begin = p.offsets[s] > 0 ? p.offsets[s] : 0;
  const int64_t end = p.offsets[s + 1] < p.size ? p.offsets[s + 1] : p.size;
  double sum[1] = {};
  if (begin < end)
    for (int64_t k = begin / kChunk + threadIdx.x; k <= (end - 1) / kChunk; k += kThreads)
      sum[0] += pieces[k + s];
  block_sum(sum);
  if (threadIdx.x != 0) return;
  const T weight = p.squared ? static_cast<const T*>(p.weights)[s] : T(0.5);
  static_cast<T*>(p.weights_gradient)[s] = static_cast<T>(weight * sum[0]);
}

bool is_aligned(const void* array, size_t bytes) {
  return reinterpret_cast<uintptr_t>(array) % bytes == 0;
}

bool is_aligned(const Distance& p) {
  const size_t expert = p.expert == Type::bfloat16 || p.expert == Type::float16 ? 8 : 16;
  return is_aligned(p.student, 16) && is_aligned(p.start, expert) && is_aligned(p.target, expert) &&
         is_aligned(p.mask, 4) && is_aligned(p.student_gradient, 16) &&
         (p.offsets || (is_aligned(p.weights, 16) && is_aligned(p.weights_gradient, 16)));
}

template <class T, class E, Weights kind>
void launch_distance(const Distance& p, double* space, cudaStream_t stream) {
  double *loss = space, *sums = space + 1;  // of blocks, then of pieces
  const int64_t blocks = blocks_for(p.size);
  const bool aligned = is_aligned(p);
  distance_kernel<T, E, kind><<<blocks, kThreads, 0, stream>>>(p, aligned, sums);
  finish_kernel<T><<<1, kFinish, 0, stream>>>(p, sums, blocks, loss);
  if (!p.weights_gradient) return;
  if constexpr (kind == Weights::scalar) {
    if (p.weighted_denominator)
      weights_gradient_kernel<T, E><<<blocks, kThreads, 0, stream>>>(p, aligned, loss);
  }
  if constexpr (kind == Weights::segment) {
    const int64_t warps = ceil_div(p.size, kChunk);
    pieces_kernel<T, E><<<ceil_div(warps, kWarps), kThreads, 0, stream>>>(p, loss, sums);
    segments_kernel<T><<<p.segments, kThreads, 0, stream>>>(p, sums);
  }
}

template <class T, class E>
void launch_weights(const Distance& p, double* space, cudaStream_t stream) {
  if (!p.weights)
    launch_distance<T, E, Weights::none>(p, space, stream);
  else if (!p.offsets)
    launch_distance<T, E, Weights::scalar>(p, space, stream);
  else
    launch_distance<T, E, Weights::segment>(p, space, stream);
}

// ----------------------------------------------------------------------------------------- Step

// The state of a step between its sweeps, at the head of the workspace.
struct Means {
  double mean, mean_gradient;
};
constexpr int64_t kMeans = sizeof(Means) / sizeof(double);

// What reaches the normalised weight: the gradient, or nothing where the clamp holds it.
template <class T>
__device__ inline T unclamped(const Step& p, T scale, T gradient, T weight) {
  return weight > T(p.low) && weight < T(p.high) ? gradient * scale : T(0);
}

template <class T>
__device__ inline T scale_of(const Step& p) {
  return p.scale ? *static_cast<const T*>(p.scale) : T(1);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    moments_kernel(const Step p, bool aligned, double* partials) {
  const T scale = scale_of<T>(p);
  double sums[2] = {};
  each_four(p.size, aligned, [&](int64_t i, auto how) {
    constexpr bool whole = decltype(how)::value;
    T v[kVector], w[kVector], g[kVector];
    load<whole, T>(p.v, i, p.size, v);
    load<whole, T>(p.weights, i, p.size, w);
    load<whole, T>(p.gradient, i, p.size, g);
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
      sums[0] += v[k];
      sums[1] += double(unclamped(p, scale, g[k], w[k]) * w[k]);
    }
  });
  put_block_sums(sums, partials);
}

template <int n>
__global__ void means_kernel(const double* partials, int64_t blocks, int64_t size, Means* means) {
  double sums[n];
  add_block_sums(partials, blocks, sums);
  if (threadIdx.x != 0) return;
  means->mean = sums[0] / size;
  if constexpr (n == 2) means->mean_gradient = sums[1] / size;
}

template <class T>
__device__ inline T clamped(const Step& p, T x) {
  return x < T(p.low) ? T(p.low) : x > T(p.high) ? T(p.high) : x;  // not a number stays so
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    adam_kernel(const Step p, bool aligned, const Means* means, double* partials) {
  const T scale = scale_of<T>(p);
  const T mean = p.normalise ? T(means->mean) : T(1);
  const T mean_gradient = p.normalise ? T(means->mean_gradient) : T(0);
  double sums[1] = {};
  each_four(p.size, aligned, [&](int64_t i, auto how) {
    constexpr bool whole = decltype(how)::value;
    T v[kVector], w[kVector], g[kVector], m[kVector], s[kVector];
    load<whole, T>(p.v, i, p.size, v);
    load<whole, T>(p.weights, i, p.size, w);
    load<whole, T>(p.gradient, i, p.size, g);
    load<whole, T>(p.exp_avg, i, p.size, m);
    load<whole, T>(p.exp_avg_sq, i, p.size, s);
#pragma unroll
    for (int k = 0; k < kVector; ++k) {
      const T gradient = (unclamped(p, scale, g[k], w[k]) - mean_gradient) / mean;
      m[k] = T(p.beta1) * m[k] + T(1 - p.beta1) * gradient;
      s[k] = T(p.beta2) * s[k] + T(1 - p.beta2) * (gradient * gradient);
      v[k] -= T(p.step_size) * m[k] / (sqrt(s[k]) / T(p.root) + T(p.eps));
      sums[0] += i + k < p.size ? v[k] : T(0);
      w[k] = clamped(p, v[k]);
    }
    store<whole>(p.v, i, p.size, v);
    store<whole>(p.exp_avg, i, p.size, m);
    store<whole>(p.exp_avg_sq, i, p.size, s);
    if (!p.normalise) store<whole>(p.weights, i, p.size, w);
  });
  if (p.normalise) put_block_sums(sums, partials);
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    clamp_kernel(const Step p, bool aligned, const Means* means) {
  const T mean = T(means->mean);
  each_four(p.size, aligned, [&](int64_t i, auto how) {
    constexpr bool whole = decltype(how)::value;
    T v[kVector];
    load<whole, T>(p.v, i, p.size, v);
#pragma unroll
    for (int k = 0; k < kVector; ++k) v[k] = clamped(p, v[k] / mean);
    store<whole>(p.weights, i, p.size, v);
  });
}

bool is_aligned(const Step& p) {
  return is_aligned(p.v, 16) && is_aligned(p.weights, 16) && is_aligned(p.gradient, 16) &&
         is_aligned(p.exp_avg, 16) && is_aligned(p.exp_avg_sq, 16);
}

template <class T>
void launch_step(const Step& p, double* space, cudaStream_t stream) {
  const bool aligned = is_aligned(p);
  const int64_t blocks = blocks_for(p.size);
  Means* means = reinterpret_cast<Means*>(space);
  double* partials = space + kMeans;
  if (p.normalise) {
    moments_kernel<T><<<blocks, kThreads, 0, stream>>>(p, aligned, partials);
    means_kernel<2><<<1, kFinish, 0, stream>>>(partials, blocks, p.size, means);
  }
  adam_kernel<T><<<blocks, kThreads, 0, stream>>>(p, aligned, means, partials);
  if (p.normalise) {
    means_kernel<1><<<1, kFinish, 0, stream>>>(partials, blocks, p.size, means);
    clamp_kernel<T><<<blocks, kThreads, 0, stream>>>(p, aligned, means);
  }
}

}  // namespace

int64_t workspace(const Distance& p) {
  const int64_t sums = 4 * blocks_for(p.size);
  const int64_t pieces = p.offsets ? ceil_div(p.size, kChunk) + p.segments : 0;
  return 1 + (sums > pieces ? sums : pieces);
}

int64_t workspace(const Step& p) { return kMeans + 2 * blocks_for(p.size); }

int launch(const Distance& p, double* space, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  if (p.type == Type::float64)
    launch_weights<double, double>(p, space, on);
  else if (p.expert == Type::bfloat16)
    launch_weights<float, __nv_bfloat16>(p, space, on);
  else if (p.expert == Type::float16)
    launch_weights<float, __half>(p, space, on);
  else
    launch_weights<float, float>(p, space, on);
  return cudaGetLastError();
}

int launch(const Step& p, double* space, void* stream) {
  const auto on = static_cast<cudaStream_t>(stream);
  if (p.type == Type::float64)
    launch_step<double>(p, space, on);
  else
    launch_step<float>(p, space, on);
  return cudaGetLastError();
}

}  // namespace iadd
