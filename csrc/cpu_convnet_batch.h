// A whole batch on the CPU: weights packed once, then micro-batches, each on all threads where the
// network is wide and else on one of them, and one ordered sum.
#pragma once

#include <cstdint>

#include "cpu_convnet.h"

namespace iadd::convnet {

template <class T>
struct Request : Tensors<T> {
  const T* parameters = nullptr;  // (parameters,)
  const T* direction = nullptr;   // (parameters,)
  long batch = 0;
  T* gradient = nullptr;    // (parameters,)
  const T* base = nullptr;  // with it `gradient` is base - rate * gradient; may be the same memory
  T rate = 0;
};

// The kernels of the newest instruction set that this processor has.
template <class T>
const Kernels<T>& kernels();

// The result does not depend on the number of threads: micro-batches and sums have a fixed order.
template <class T>
void execute(const Network& net, const Request<T>& request, bool parallel);

// Whether one request is worth more than one thread.
bool worth_threads(const Network& net, long batch);

}  // namespace iadd::convnet
