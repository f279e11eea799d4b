// Images as patches on CUDA devices, and back: a thread an element that is written, no atomics.

#include <cuda_runtime.h>

#include "patches.h"

namespace iadd::patches {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kBlocks = int64_t{1} << 30;

template <bool adjoint, class T>
__global__ void __launch_bounds__(kThreads) move(const Problem<T> p, int64_t count) {
  const int64_t stride = int64_t{gridDim.x} * kThreads;
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += stride)
    adjoint ? p.scatter(i) : p.gather(i);
}

}  // namespace

template <class T>
int launch(const Problem<T>& p, bool adjoint, void* stream) {
  const int64_t count = (adjoint ? 1 : 9) * p.pixels();
  if (!count) return cudaSuccess;
  const int64_t wanted = (count + kThreads - 1) / kThreads;
  const auto blocks = static_cast<unsigned>(wanted < kBlocks ? wanted : kBlocks);
  const auto kernel = adjoint ? move<true, T> : move<false, T>;
  kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(p, count);
  return cudaGetLastError();
}
template int launch(const Problem<float>&, bool, void*);
template int launch(const Problem<double>&, bool, void*);

}  // namespace iadd::patches
