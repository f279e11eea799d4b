// The dispatcher operators that split float32 tensors into TF32 parts; see tf32_parts.h.
#include "tf32_parts.h"

#include <ATen/Functions.h>
#include <torch/library.h>

#include "operators.h"

namespace iadd::tf32 {
namespace {

using at::Tensor;

void check(const Tensor& x) {
  TORCH_CHECK_TYPE(x.scalar_type() == at::kFloat, "x is ", x.scalar_type(), ", allowed is float32");
}

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
    on_device_of(x, [&](void* stream) { return launch(from, to, x.numel(), inner, stream); });
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

template <bool in_parts>
void fill(const Weight& w) {
  for (int64_t o = 0; o < w.outputs; ++o)
    for (int64_t c = 0; c < w.inputs; ++c)
      for (int tap = 0; tap < 9; ++tap) {
        const float value = w.x[w.at(o, c, tap)];
        w.put_forward<in_parts>(o, c, tap, value), w.put_flipped<in_parts>(o, c, tap, value);
      }
}

// Each (O, C, 3, 3) -> (O, 3, 3, n C) and, flipped, (C, 3, 3, n O), one after the other.
std::vector<Tensor> conv_operands(at::TensorList given, bool in_parts) {
  std::vector<Tensor> held, found;
  Weights weights{};
  const auto start = [&] {
#ifdef IADD_WITH_CUDA
    if (weights.count && held.back().is_cuda()) {
      on_device_of(held.back(), [&](void* stream) { return launch(weights, in_parts, stream); });
      weights.count = 0;
      return;
    }
#endif
    for (int k = 0; k < weights.count; ++k)
      in_parts ? fill<true>(weights.of[k]) : fill<false>(weights.of[k]);
    weights.count = 0;
  };
  for (const Tensor& one : given) {
    check(one);
    TORCH_CHECK_VALUE(one.dim() == 4 && one.size(2) == 3 && one.size(3) == 3, "weight has shape ",
                      one.sizes(), ", allowed is (O, C, 3, 3)");
    TORCH_CHECK_VALUE(one.device() == given[0].device(), "weight is on ", one.device(),
                      ", expected ", given[0].device());
    const Tensor x = one.contiguous();
    const int64_t outputs = x.size(0), inputs = x.size(1), n = in_parts ? 3 : 1;
    const Tensor forward = at::empty({outputs, 3, 3, n * inputs}, x.options());
    const Tensor flipped = at::empty({inputs, 3, 3, n * outputs}, x.options());
    weights.of[weights.count++] = {x.const_data_ptr<float>(), forward.mutable_data_ptr<float>(),
                                   flipped.mutable_data_ptr<float>(), outputs, inputs};
    held.push_back(x), found.push_back(forward), found.push_back(flipped);
    if (weights.count == kWeights) start();
  }
  start();
  return found;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(iadd, m) {
  m.def("tf32_parts(Tensor x) -> Tensor");
  m.def("conv_operands(Tensor[] weights, bool in_parts) -> Tensor[]");
}
TORCH_LIBRARY_IMPL(iadd, CPU, m) {
  m.impl("tf32_parts", tf32_parts);
  m.impl("conv_operands", conv_operands);
}
#ifdef IADD_WITH_CUDA
TORCH_LIBRARY_IMPL(iadd, CUDA, m) {
  m.impl("tf32_parts", tf32_parts);
  m.impl("conv_operands", conv_operands);
}
#endif

}  // namespace iadd::tf32
