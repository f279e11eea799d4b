// A whole batch on the CPU: weights packed once, then micro-batches, each on all threads where the
// network is wide and else on one of them, and one ordered sum.
#pragma once

#include <cstdint>

#include "cpu_convnet.h"

namespace iadd::convnet {

// Null outputs are not computed; `direction` asks for derivatives along it, as in Job.
template <class T>
struct Request {
  const T* parameters = nullptr;  // (parameters,)
  const T* direction = nullptr;   // (parameters,)
  const T* images = nullptr;      // (batch, channels, height, width)
  const T* seed = nullptr;
  Seed kind = Seed::none;
  long batch = 0;
  T* gradient = nullptr;    // (parameters,)
  const T* base = nullptr;  // with it `gradient` is base - rate * gradient; may be the same memory
  T rate = 0;
  T* image_gradient = nullptr;
  T* target_gradient = nullptr;
  T* logits = nullptr;
  T* features = nullptr;
  double* loss = nullptr;
  double* slope = nullptr;
};

// The kernels of the newest instruction set that this processor has.
template <class T>
const Kernels<T>& kernels();
const char* instruction_set();

// The result does not depend on the number of threads: micro-batches and sums have a fixed order.
template <class T>
void execute(const Network& net, const Request<T>& request, bool parallel);

// Whether one request is worth more than one thread.
bool worth_threads(const Network& net, long batch);

}  // namespace iadd::convnet
