// The inner loops of the CPU kernel. distance_cpu.cpp includes this file once an instruction set,
// each time in a namespace of its own with IADD_LANES doubles a register: hence no guard.
//
// Order of summation: sixteen lanes of doubles, element i to lane i % 16, added up from lane 0.
// The product of two floats is exact in double, so a float32 sum has the same bits on every
// instruction set, fused multiply-add or not, and on every number of threads.

#ifdef __x86_64__
#include <immintrin.h>
#endif

#include "distance.h"

#ifndef IADD_LANES
#define IADD_LANES 2
#define IADD_ISA generic
#endif

namespace iadd::IADD_ISA {

constexpr int kLanes = 16, kParts = kLanes / IADD_LANES;

template <class T>
struct Vector {
  typedef T type __attribute__((vector_size(IADD_LANES * sizeof(T))));
};
template <class T>
using Vec = typename Vector<T>::type;
using Doubles = Vec<double>;

template <class T>
inline Vec<T> load(const T* from) {
  Vec<T> value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

// `stream`: past the caches, which saves reading the line that is about to be overwritten.
template <class T>
inline void store(T* to, Vec<T> value, bool stream) {
#ifdef __AVX512F__
  if constexpr (sizeof value == 64) {
    if (stream) return _mm512_stream_si512(reinterpret_cast<__m512i*>(to), (__m512i)value);
  }
#endif
#ifdef __AVX__
  if constexpr (sizeof value == 32) {
    if (stream) return _mm256_stream_si256(reinterpret_cast<__m256i*>(to), (__m256i)value);
  }
#endif
  __builtin_memcpy(to, &value, sizeof value);
}

// acc += x * y in double
template <class T>
inline void accumulate(Doubles& acc, Vec<T> x, Vec<T> y) {
  acc += __builtin_convertvector(x, Doubles) * __builtin_convertvector(y, Doubles);
}

inline double total(const Doubles (&acc)[kParts]) {
  double sum = 0;
  for (int part = 0; part < kParts; ++part)
    for (int lane = 0; lane < IADD_LANES; ++lane) sum += acc[part][lane];
  return sum;
}

// Sums and unscaled gradients (null: not wanted) of n elements, read once.
template <class T, bool weighted>
Sums distance_chunk(const T* s, const T* o, const T* t, const T* w, int64_t n, bool weigh_start,
                    T* gs, T* gw, bool stream) {
  Doubles num[kParts] = {}, plain_num[kParts] = {}, den[kParts] = {}, plain_den[kParts] = {};
  auto lanes = [&](const T* s, const T* o, const T* t, const T* w, T* gs, T* gw, bool stream) {
#pragma GCC unroll 8
    for (int part = 0; part < kParts; ++part) {
      const int at = part * IADD_LANES;
      const Vec<T> target = load(t + at);
      const Vec<T> d = load(s + at) - target, e = load(o + at) - target;
      accumulate<T>(plain_num[part], d, d);
      accumulate<T>(plain_den[part], e, e);
      if constexpr (weighted) {
        const Vec<T> weight = load(w + at), u = weight * d;
        accumulate<T>(num[part], u, u);
        if (weigh_start) accumulate<T>(den[part], weight * e, weight * e);
        if (gs) store(gs + at, weight * u, stream);
        if (gw) store(gw + at, u * d, stream);
      } else {
        if (gs) store(gs + at, d, stream);
      }
    }
  };
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    lanes(s + i, o + i, t + i, weighted ? w + i : w, gs ? gs + i : gs, gw ? gw + i : gw, stream);
  if (const int64_t rest = n - i) {  // the last lanes, padded with zeros, which add nothing
    T line[6][kLanes] = {};
    for (int64_t k = 0; k < rest; ++k) {
      line[0][k] = s[i + k], line[1][k] = o[i + k], line[2][k] = t[i + k];
      if constexpr (weighted) line[3][k] = w[i + k];
    }
    lanes(line[0], line[1], line[2], line[3], gs ? line[4] : gs, gw ? line[5] : gw, false);
    for (int64_t k = 0; k < rest; ++k) {
      if (gs) gs[i + k] = line[4][k];
      if (gw) gw[i + k] = line[5][k];
    }
  }
  const double plain = total(plain_num), start = total(plain_den);
  return {weighted ? total(num) : plain, plain, weighted && weigh_start ? total(den) : start,
          start};
}

}  // namespace iadd::IADD_ISA
