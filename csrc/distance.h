// What the CPU and the CUDA kernels of the weighted distance share: the problem over raw memory.
// No torch header here, so that the .cu compiles in seconds.
#pragma once

#include <cstdint>

namespace iadd {

// sum w_p^2 (s_p - t_p)^2 / sum (o_p - t_p)^2 and its unscaled gradients; all arrays contiguous.
template <class T>
struct Distance {
  int64_t size;                            // P
  const T *student, *start, *target;       // (P,)
  const T* weights;                        // (P,) or null
  bool weighted_denominator;               // the weights enter the denominator too
  T *student_gradient, *weights_gradient;  // (P,) or null; times *scale they are the gradients, of
                                           // the numerator alone
  T *loss, *unweighted, *scale;            // ()
};

// Compute on the CPU, by torch's threads.
template <class T>
void compute(const Distance<T>&);

// The CPU's inner loop, which distance_chunk.h compiles for each instruction set.
struct Sums {
  double numerator, plain_numerator, denominator, plain_denominator;
};
template <class T>
using DistanceLoop = Sums(const T* s, const T* o, const T* t, const T* w, int64_t n,
                          bool weigh_start, T* gs, T* gw, bool stream);

#ifdef IADD_WITH_CUDA
// Doubles of device memory that the kernels want beside their arguments.
int64_t workspace(int64_t size);
// Launch on `stream` (a cudaStream_t); the cudaError_t of the launches, 0 for none.
template <class T>
int launch(const Distance<T>&, double* workspace, void* stream);
#endif

}  // namespace iadd
