// A float32 as the sum of two numbers with TF32's ten bits of mantissa, and what is left out is
// below 2^-22 of it. No torch header here.
#pragma once

#include <cstdint>
#include <cstring>

#include "both.h"

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

// A 3x3 convolution's weight (outputs, inputs, 3, 3) and its two operands with their inputs last:
// `forward` (outputs, 3, 3, n inputs), and of the adjoint convolution, turned by half a turn,
// `flipped` (inputs, 3, 3, n outputs). n is 3, for parts h, h, l, or 1, for the numbers as they
// are.
struct Weight {
  const float* x;
  float *forward, *flipped;
  int64_t outputs, inputs;

  IADD_BOTH int64_t at(int64_t o, int64_t c, int tap) const { return (o * inputs + c) * 9 + tap; }
  template <bool in_parts>
  IADD_BOTH void put_forward(int64_t o, int64_t c, int tap, float value) const {
    put<in_parts>(forward + (o * 9 + tap) * (in_parts ? 3 : 1) * inputs, inputs, c, value);
  }
  template <bool in_parts>
  IADD_BOTH void put_flipped(int64_t o, int64_t c, int tap, float value) const {
    put<in_parts>(flipped + (c * 9 + 8 - tap) * (in_parts ? 3 : 1) * outputs, outputs, o, value);
  }

 private:
  template <bool in_parts>
  IADD_BOTH static void put(float* row, int64_t length, int64_t k, float value) {
    if constexpr (in_parts) {
      const Parts p = parts(value);
      row[k] = row[length + k] = p.high, row[2 * length + k] = p.low;
    } else {
      row[k] = value;
    }
  }
};

constexpr int kWeights = 16;  // in one launch

struct Weights {
  Weight of[kWeights];
  int count;
};

#ifdef IADD_WITH_CUDA
// Launch on `stream` (a cudaStream_t); the cudaError_t of the launch, 0 for none.
// x: runs of `inner` elements, `size` in all; out: of each run h, l, h.
int launch(const float* x, float* out, int64_t size, int64_t inner, void* stream);
int launch(const Weights&, bool in_parts, void* stream);
#endif

}  // namespace iadd::tf32
