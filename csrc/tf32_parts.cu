// Float32 operands in TF32 parts on CUDA devices: each element read once, three written.

#include <cuda_runtime.h>

#include "tf32_parts.h"

namespace iadd::tf32 {
namespace {

constexpr int kThreads = 256, kVector = 4;
constexpr int64_t kBlocks = 132 * 16;

unsigned blocks_for(int64_t threads) {
  const int64_t wanted = (threads + kThreads - 1) / kThreads;
  return static_cast<unsigned>(wanted < kBlocks ? wanted : kBlocks);
}

template <int vector>
struct alignas(4 * vector) Few {
  float x[vector];
};

// `vector` neighbours at a time: `inner` and the addresses are multiples of it.
template <int vector, class Index>
__global__ void __launch_bounds__(kThreads)
    split(const float* x, float* out, Index size, Index inner) {
  using Vector = Few<vector>;
  const Index stride = Index(gridDim.x) * kThreads * vector;
  for (Index i = (Index(blockIdx.x) * kThreads + threadIdx.x) * vector; i < size; i += stride) {
    const Vector from = *reinterpret_cast<const Vector*>(x + i);
    Vector high, low;
#pragma unroll
    for (int k = 0; k < vector; ++k) {
      const Parts p = parts(from.x[k]);
      high.x[k] = p.high, low.x[k] = p.low;
    }
    float* to = out + i + i / inner * inner * 2;
    *reinterpret_cast<Vector*>(to) = high;
    *reinterpret_cast<Vector*>(to + inner) = low;
    *reinterpret_cast<Vector*>(to + 2 * inner) = high;
  }
}

__global__ void __launch_bounds__(kThreads) split(Weight weight) {
  const int64_t stride = int64_t{gridDim.x} * kThreads, size = weight.size();
  for (int64_t i = int64_t{blockIdx.x} * kThreads + threadIdx.x; i < size; i += stride)
    weight.move(i);
}

template <int vector>
void start(const float* x, float* out, int64_t size, int64_t inner, cudaStream_t on) {
  const unsigned blocks = blocks_for(size / vector);
  if (size <= (int64_t{1} << 29))  // so that no sum of indices overflows
    split<vector, uint32_t><<<blocks, kThreads, 0, on>>>(x, out, static_cast<uint32_t>(size),
                                                         static_cast<uint32_t>(inner));
  else
    split<vector, int64_t><<<blocks, kThreads, 0, on>>>(x, out, size, inner);
}

bool aligned(const float* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

}  // namespace

int launch(const float* x, float* out, int64_t size, int64_t inner, void* stream) {
  if (!size) return cudaSuccess;
  const auto on = static_cast<cudaStream_t>(stream);
  if (inner % kVector == 0 && aligned(x) && aligned(out))
    start<kVector>(x, out, size, inner, on);
  else
    start<1>(x, out, size, inner, on);
  return cudaGetLastError();
}

int launch(const Weight& weight, void* stream) {
  if (!weight.size()) return cudaSuccess;
  split<<<blocks_for(weight.size()), kThreads, 0, static_cast<cudaStream_t>(stream)>>>(weight);
  return cudaGetLastError();
}

}  // namespace iadd::tf32
