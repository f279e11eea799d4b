// A float32 as the sum of two numbers with TF32's ten bits of mantissa, and what is left out is
// below 2^-22 of it. No torch header here.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define IADD_BOTH __host__ __device__ inline
#else
#define IADD_BOTH inline
#endif

namespace iadd::tf32 {

struct Parts {
  float high, low;
};

IADD_BOTH Parts parts(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof x);
  if ((bits & 0x7f800000u) == 0x7f800000u) return {x, 0};  // infinite or not a number
  bits = (bits + 0x1000u) & ~0x1fffu;  // to nearest; a carry goes into the exponent, as it should
  float high;
  memcpy(&high, &bits, sizeof x);
  if ((bits & 0x7f800000u) == 0x7f800000u) return {high, 0};
  return {high, x - high};
}

// x: runs of `inner` elements, `size` in all; out: of each run h, l, h, or `second` h, h, l.
#ifdef IADD_WITH_CUDA
// Launch on `stream` (a cudaStream_t); the cudaError_t of the launch, 0 for none.
int launch(const float* x, float* out, int64_t size, int64_t inner, bool second, void* stream);
#endif

}  // namespace iadd::tf32
