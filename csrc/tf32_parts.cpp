// The dispatcher operator that splits float32 tensors into TF32 parts; see tf32_parts.h.
#include "tf32_parts.h"

#include <ATen/Functions.h>
#include <torch/library.h>

#ifdef IADD_WITH_CUDA
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace iadd::tf32 {
namespace {

using at::Tensor;

Tensor tf32_parts(const Tensor& given, int64_t inner, bool second) {
  TORCH_CHECK_TYPE(given.scalar_type() == at::kFloat, "x is ", given.scalar_type(),
                   ", allowed is float32");
  TORCH_CHECK_VALUE(inner > 0 && given.numel() % inner == 0, "inner is ", inner,
                    ", allowed is what divides the number of elements, ", given.numel());
  const Tensor x = given.contiguous();
  const Tensor out = at::empty({x.numel() / inner, 3, inner}, x.options());
  const float* from = x.const_data_ptr<float>();
  float* to = out.mutable_data_ptr<float>();
#ifdef IADD_WITH_CUDA
  if (x.is_cuda()) {
    const c10::cuda::CUDAGuard guard(x.device());
    const auto stream = c10::cuda::getCurrentCUDAStream();
    C10_CUDA_CHECK(
        static_cast<cudaError_t>(launch(from, to, x.numel(), inner, second, stream.stream())));
    return out;
  }
#endif
  for (int64_t i = 0; i < x.numel(); ++i) {
    const Parts p = parts(from[i]);
    float* at = to + i + i / inner * inner * 2;
    at[0] = p.high, at[inner] = second ? p.high : p.low, at[2 * inner] = second ? p.low : p.high;
  }
  return out;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(iadd, m) {
  m.def("tf32_parts(Tensor x, int inner, bool second) -> Tensor");
}
TORCH_LIBRARY_IMPL(iadd, CPU, m) { m.impl("tf32_parts", tf32_parts); }
#ifdef IADD_WITH_CUDA
TORCH_LIBRARY_IMPL(iadd, CUDA, m) { m.impl("tf32_parts", tf32_parts); }
#endif

}  // namespace iadd::tf32
