// The passes of one instruction set as a table; see cpu_convnet_vector.h for how it is chosen.
#pragma once

#include "cpu_convnet_convolution.h"
#include "cpu_convnet_head.h"
#include "cpu_convnet_pack.h"

namespace iadd::convnet::CONVNET_ISA {

template <class T>
long arena(const Network& net, long count, bool tangent, long threads) {
  Job<T> job;
  job.network = &net;
  job.count = count;
  return tangent ? Pass<T, true>(job).size(threads) : Pass<T, false>(job).size(threads);
}

template <class T>
void run(const Job<T>& job) {
  if (job.direction)
    Pass<T, true>(job).run();
  else
    Pass<T, false>(job).run();
}

template <class T>
Kernels<T> kernels() {
  return {kLanes<T>, arena<T>, pack<T>, run<T>, collect<T>};
}
template Kernels<float> kernels<float>();
template Kernels<double> kernels<double>();
}  // namespace iadd::convnet::CONVNET_ISA
