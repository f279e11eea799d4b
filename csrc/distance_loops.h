// The types of the distance's inner loops on the CPU, which distance_chunk.h compiles for each
// instruction set.
#pragma once

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
using DistanceLoop = Sums(const T* s, const T* o, const T* t, const T* w, int64_t n,
                          bool weigh_start, T* gs, T* gw, bool stream);

}  // namespace iadd
