// The passes of one instruction set as a table; see cpu_convnet_vector.h for how it is chosen.
#pragma once

#include "cpu_convnet_backward.h"
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
void pack(const Network& net, const T* parameters, T* packed, long unit) {
  Packer<T>{net, parameters, packed}.unit(unit);
}

template <class T>
void collect(const Network& net, const T* partials, long slots, long stride, const T* base, T rate,
             T* out, long unit) {
  Collector<T>{net, partials, slots, stride, base, rate, out}.unit(unit);
}

template <class T>
Kernels<T> kernels() {
  return {kLanes<T>, arena<T>, pack<T>, run<T>, collect<T>};
}
template Kernels<float> kernels<float>();
template Kernels<double> kernels<double>();
}  // namespace iadd::convnet::CONVNET_ISA
