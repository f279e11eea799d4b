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

// A 3x3 convolution's weight (outputs, inputs, 3, 3) as an operand with its inputs last, in parts
// h, h, l: (outputs, 3, 3, 3 inputs). `flipped`: as the adjoint convolution's, turned by half a
// turn: (inputs, 3, 3, 3 outputs). Element i of the weight in that order goes to three places.
struct Weight {
  const float* x;
  float* out;
  int64_t outputs, inputs;
  bool flipped;

  IADD_BOTH int64_t size() const { return outputs * inputs * 9; }
  IADD_BOTH void move(int64_t i) const {
    const int64_t last = flipped ? outputs : inputs, row = i / last, k = i - row * last;
    const int64_t r = row / 9, tap = row - r * 9;
    const Parts p =
        parts(flipped ? x[(k * inputs + r) * 9 + 8 - tap] : x[(r * inputs + k) * 9 + tap]);
    float* to = out + row * 3 * last + k;
    to[0] = to[last] = p.high, to[2 * last] = p.low;
  }
};

#ifdef IADD_WITH_CUDA
// Launch on `stream` (a cudaStream_t); the cudaError_t of the launch, 0 for none.
// x: runs of `inner` elements, `size` in all; out: of each run h, l, h.
int launch(const float* x, float* out, int64_t size, int64_t inner, void* stream);
int launch(const Weight&, void* stream);
#endif

}  // namespace iadd::tf32
