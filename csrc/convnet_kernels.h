// The native passes for one instruction set, which the including file has chosen by a target
// pragma and by CONVNET_ISA (namespace), CONVNET_VECTOR_BYTES and CONVNET_ACCUMULATORS. Everything
// sits in that namespace, so that no function built for a newer processor is linked elsewhere.
#pragma once

namespace iadd::convnet::CONVNET_ISA {
// clang-format off: each builds on the ones before it
#include "convnet_vector.h"
#include "convnet_gemm.h"
#include "convnet_winograd.h"
#include "convnet_block.h"
#include "convnet_pack.h"
#include "convnet_pass.h"
#include "chain_pass.h"
// clang-format on

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
  return {kLanes<T>, arena<T>,   pack<T>,
          run<T>,    collect<T>, {chain_arena<T>, chain_pack<T>, chain_run<T>, chain_collect<T>}};
}
template Kernels<float> kernels<float>();
template Kernels<double> kernels<double>();
}  // namespace iadd::convnet::CONVNET_ISA
