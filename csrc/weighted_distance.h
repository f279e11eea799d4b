// What the CPU and the CUDA kernels of the weighted distance share: the problem over raw memory.
// No torch header here, so that the .cu compiles in seconds.
#pragma once

#include <cstdint>
#include <string>

namespace iadd {

enum class Type { float32, float64, bfloat16, float16 };

// sum m_p w_p^2 (s_p - t_p)^2 / sum m_p (o_p - t_p)^2 and its unscaled gradients.
// All arrays are contiguous; P = size, S = segments.
struct Distance {
  int64_t size;
  int64_t segments;        // 0: no offsets
  Type type;               // of student, weights, gradients and results
  Type expert;             // of start and target
  const void* student;     // (P,)
  const void* start;       // (P,)
  const void* target;      // (P,)
  const void* weights;     // (P,), (S,) or null
  const int64_t* offsets;  // (S + 1,) or null
  const bool* mask;        // (P,) or null
  bool squared;            // w^2 or w
  bool weighted_denominator;
  void* student_gradient;  // (P,) or null; times *scale is the gradient
  void* weights_gradient;  // as weights, or null; times *scale is the gradient
  void* loss;              // ()
  void* unweighted;        // ()
  void* scale;             // ()
};

// One Adam step on v through w = clamp(v / mean(v), low, high); all arrays (P,).
struct Step {
  int64_t size;
  Type type;
  void *v, *weights, *exp_avg, *exp_avg_sq;
  const void* gradient;
  const void* scale;  // () or null; multiplies gradient
  double step_size;   // lr / (1 - beta1^step), negative for ascent
  double root;        // sqrt(1 - beta2^step)
  double beta1, beta2, eps, low, high;
  bool normalise;
};

// Compute on the CPU, by torch's threads.
void compute(const Distance&);
void compute(const Step&);
// Which loops the processor got: avx512, avx2 or plain.
std::string instruction_set();

#ifdef IADD_WITH_CUDA
// Doubles of device memory that the kernels want beside their arguments.
int64_t workspace(const Distance&);
int64_t workspace(const Step&);
// Launch on `stream` (a cudaStream_t); the cudaError_t of the launches, 0 for none.
int launch(const Distance&, double* workspace, void* stream);
int launch(const Step&, double* workspace, void* stream);
#endif

}  // namespace iadd
