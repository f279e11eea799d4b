// The dispatcher operators that split float32 tensors into TF32 parts; see tf32_parts.h.
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

void check(const Tensor& x) {
  TORCH_CHECK_TYPE(x.scalar_type() == at::kFloat, "x is ", x.scalar_type(), ", allowed is float32");
}

#ifdef IADD_WITH_CUDA
template <class... Given>
void launch_on(const Tensor& x, const Given&... given) {
  const c10::cuda::CUDAGuard guard(x.device());
  const auto stream = c10::cuda::getCurrentCUDAStream();
  C10_CUDA_CHECK(static_cast<cudaError_t>(launch(given..., stream.stream())));
}
#endif

// (..., C) -> (..., 3 C): h, l, h
Tensor tf32_parts(const Tensor& given) {
  check(given);
  TORCH_CHECK_VALUE(given.dim() && given.size(-1), "x has shape ", given.sizes(),
                    ", allowed are shapes with a last dimension");
  const Tensor x = given.contiguous();
  const int64_t inner = x.size(-1);
  std::vector<int64_t> shape = x.sizes().vec();
  shape.back() *= 3;
  const Tensor out = at::empty(shape, x.options());
  const float* from = x.const_data_ptr<float>();
  float* to = out.mutable_data_ptr<float>();
#ifdef IADD_WITH_CUDA
  if (x.is_cuda()) {
    launch_on(x, from, to, x.numel(), inner);
    return out;
  }
#endif
  for (int64_t i = 0; i < x.numel(); ++i) {
    const Parts p = parts(from[i]);
    float* at = to + i + i / inner * inner * 2;
    at[0] = at[2 * inner] = p.high, at[inner] = p.low;
  }
  return out;
}

// (O, C, 3, 3) -> (O, 3, 3, 3 C), or flipped (C, 3, 3, 3 O): h, h, l
Tensor tf32_weight(const Tensor& given, bool flipped) {
  check(given);
  TORCH_CHECK_VALUE(given.dim() == 4 && given.size(2) == 3 && given.size(3) == 3,
                    "weight has shape ", given.sizes(), ", allowed is (O, C, 3, 3)");
  const Tensor x = given.contiguous();
  const int64_t outputs = x.size(0), inputs = x.size(1);
  const Tensor out =
      at::empty({flipped ? inputs : outputs, 3, 3, 3 * (flipped ? outputs : inputs)}, x.options());
  const Weight weight{x.const_data_ptr<float>(), out.mutable_data_ptr<float>(), outputs, inputs,
                      flipped};
#ifdef IADD_WITH_CUDA
  if (x.is_cuda()) {
    launch_on(x, weight);
    return out;
  }
#endif
  for (int64_t i = 0; i < weight.size(); ++i) weight.move(i);
  return out;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(iadd, m) {
  m.def("tf32_parts(Tensor x) -> Tensor");
  m.def("tf32_weight(Tensor weight, bool flipped) -> Tensor");
}
TORCH_LIBRARY_IMPL(iadd, CPU, m) {
  m.impl("tf32_parts", tf32_parts);
  m.impl("tf32_weight", tf32_weight);
}
#ifdef IADD_WITH_CUDA
TORCH_LIBRARY_IMPL(iadd, CUDA, m) {
  m.impl("tf32_parts", tf32_parts);
  m.impl("tf32_weight", tf32_weight);
}
#endif

}  // namespace iadd::tf32
