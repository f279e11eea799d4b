// What the CPU and the CUDA kernels of the weighted distance share: the problem over raw memory.
// No torch header here, so that the .cu compiles in seconds.
#pragma once

#include <cstdint>
#include <string>

namespace iadd {

enum class Type { float32, float64 };

// sum w_p^2 (s_p - t_p)^2 / sum (o_p - t_p)^2 and its unscaled gradients; all arrays contiguous.
struct Distance {
  int64_t size;  // P
  Type type;
  const void *student, *start, *target;  // (P,)
  const void* weights;                   // (P,) or null
  bool weighted_denominator;             // the weights enter the denominator too
  void* student_gradient;                // (P,) or null; times *scale it is the gradient
  void* weights_gradient;                // (P,) or null; times *scale it is the gradient
  void *loss, *unweighted, *scale;       // ()
};

// Compute on the CPU, by torch's threads.
void compute(const Distance&);
// Which loops the processor got: avx512, avx2 or plain.
std::string instruction_set();

#ifdef IADD_WITH_CUDA
// Doubles of device memory that the kernels want beside their arguments.
int64_t workspace(const Distance&);
// Launch on `stream` (a cudaStream_t); the cudaError_t of the launches, 0 for none.
int launch(const Distance&, double* workspace, void* stream);
#endif

}  // namespace iadd
