// Flat sums on CUDA devices: a thread an element, no atomics.

#include <cuda_runtime.h>

#include "cuda_sums.h"

namespace iadd::flat_sums {
namespace {

constexpr int kThreads = 256;
constexpr int32_t kBlocks = 1024;  // of a part

template <class T>
__global__ void __launch_bounds__(kThreads) sums(const __grid_constant__ Parts<T> parts) {
  const Part<T>& part = parts.of[blockIdx.y];
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < part.size;
       i += int64_t{gridDim.x} * kThreads)
    part.sum(static_cast<int32_t>(i));
}

}  // namespace

template <class T>
int launch(const Parts<T>& parts, void* stream) {
  int32_t largest = 0;
  for (int k = 0; k < parts.count; ++k)
    largest = parts.of[k].size > largest ? parts.of[k].size : largest;
  if (!largest) return cudaSuccess;
  const int32_t wanted = (largest - 1) / kThreads + 1;
  const dim3 grid(wanted < kBlocks ? wanted : kBlocks, parts.count);
  sums<<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(parts);
  return cudaGetLastError();
}
template int launch(const Parts<float>&, void*);
template int launch(const Parts<double>&, void*);

}  // namespace iadd::flat_sums
