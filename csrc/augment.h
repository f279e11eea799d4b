// What csrc/augment.cpp and augment.cu share. No torch header here.
#pragma once

#include <cstdint>

namespace iadd {

// Images (count, channels, height, width), a matrix (2, 3) each, and their samples or, transposed,
// what they are the samples of.
template <class T>
struct Samples {
  int64_t count, channels;
  int height, width;
  const T *images, *matrix;
  T* out;
};

#ifdef IADD_WITH_CUDA
// Launch on `stream` (a cudaStream_t); the cudaError_t of the launch, 0 for none.
template <class T>
int launch(const Samples<T>&, bool transposed, void* stream);
#endif

}  // namespace iadd
