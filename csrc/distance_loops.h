// The types of the distance's inner loops on the CPU, which distance_chunk.h compiles for each
// instruction set.
#pragma once

#include <cmath>
#include <cstdint>

#ifdef __x86_64__
#include <immintrin.h>
#endif

namespace iadd {

constexpr int kLanes = 16;
// The unit of summation and of work: small enough that what is staged stays in the first cache,
// and fixed, so that the order of summation does not depend on the number of threads.
constexpr int64_t kChunk = 4096;

// Of one chunk, or of all.
struct Sums {
  double numerator, plain_numerator, denominator, plain_denominator;
};

template <class T>
struct Coefficients {
  T mean, mean_gradient, beta1, rest1, beta2, rest2, step_size, root, epsilon, high;
};

template <class T>
struct Loops {
  using DistanceLoop = Sums(const T* s, const T* o, const T* t, const T* w, int64_t n,
                            bool weigh_start, T* gs, T* gw, bool stream);
  DistanceLoop *plain, *weighted;
  double (*sum)(const T* v, int64_t n);
  double (*inner)(const T* w, const T* g, int64_t n, Coefficients<T> c);
  void (*adam)(T* v, const T* w, const T* g, T* m, T* s, int64_t n, Coefficients<T> c);
  void (*clamp)(const T* v, T* w, int64_t n, Coefficients<T> c);
};

}  // namespace iadd
