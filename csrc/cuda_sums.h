// Several tensors, each summed over its first dimension, one after the other in a flat one: how a
// gradient by all parameters is put together. No torch header here.
#pragma once

#include <cstdint>

#include "both.h"

namespace iadd::flat_sums {

constexpr int kDims = 4;

// `summands` tensors of up to four dimensions, that lie `stride` apart; none: zeros.
template <class T>
struct Part {
  const T* x;
  T* to;  // contiguous
  int64_t summands, stride;
  int32_t size;  // of one
  int32_t shape[kDims];
  int64_t steps[kDims];

  // Element i of the sum; its terms are added in their order.
  IADD_BOTH void sum(int32_t i) const {
    const T* from = x;
    int32_t rest = i;
    for (int d = kDims - 1; d >= 0; --d) {
      from += rest % shape[d] * steps[d];
      rest /= shape[d];
    }
    T total = 0;
    IADD_UNROLL_SOME
    for (int64_t k = 0; k < summands; ++k) total += from[k * stride];
    to[i] = total;
  }
};

constexpr int kParts = 24;  // in one launch

template <class T>
struct Parts {
  Part<T> of[kParts];
  int count;
};

#ifdef IADD_WITH_CUDA
// Launch on `stream` (a cudaStream_t); the cudaError_t of the launch, 0 for none.
template <class T>
int launch(const Parts<T>&, void* stream);
#endif

}  // namespace iadd::flat_sums
