// The dispatcher operator of flat sums; see cuda_sums.h.
#include "cuda_sums.h"

#include <ATen/Functions.h>
#include <torch/library.h>

#include <limits>

#include "operators.h"

namespace iadd::flat_sums {
namespace {

using at::Tensor;

template <class T>
Part<T> part(const Tensor& x, T* to) {
  Part<T> p{x.const_data_ptr<T>(), to, x.size(0), x.stride(0), 1, {}, {}};
  const int64_t unused = kDims + 1 - x.dim();
  for (int64_t d = 0; d < kDims; ++d) {
    p.shape[d] = d < unused ? 1 : static_cast<int32_t>(x.size(d - unused + 1));
    p.steps[d] = d < unused ? 0 : x.stride(d - unused + 1);
    p.size *= p.shape[d];
  }
  return p;
}

template <class T>
void run(const Tensor& out, at::TensorList given) {
  T* to = out.mutable_data_ptr<T>();
  Parts<T> parts{};
  const auto start = [&] {
#ifdef IADD_WITH_CUDA
    if (out.is_cuda()) {
      on_device_of(out, [&](void* stream) { return launch(parts, stream); });
      parts.count = 0;
      return;
    }
#endif
    for (int k = 0; k < parts.count; ++k)
      for (int32_t i = 0; i < parts.of[k].size; ++i) parts.of[k].sum(i);
    parts.count = 0;
  };
  for (const Tensor& x : given) {
    parts.of[parts.count] = part(x, to);
    to += parts.of[parts.count++].size;
    if (parts.count == kParts) start();
  }
  start();
}

// Tensors (S, ...) of any strides -> (P,): their sums over S, flat, one after the other.
Tensor flat_sums(at::TensorList given) {
  TORCH_CHECK_VALUE(!given.empty(), "no tensors, at least one is needed");
  const Tensor& first = given[0];
  TORCH_CHECK_TYPE(first.scalar_type() == at::kFloat || first.scalar_type() == at::kDouble, "x is ",
                   first.scalar_type(), ", allowed are float32 and float64");
  int64_t total = 0;
  for (const Tensor& x : given) {
    TORCH_CHECK_VALUE(x.dim() >= 1 && x.dim() <= kDims + 1, "x has shape ", x.sizes(),
                      ", allowed are 1 to ", kDims + 1, " dimensions");
    TORCH_CHECK_TYPE(x.scalar_type() == first.scalar_type(), "x is ", x.scalar_type(),
                     ", expected ", first.scalar_type());
    TORCH_CHECK_VALUE(x.device() == first.device(), "x is on ", x.device(), ", expected ",
                      first.device());
    int64_t size = 1;
    for (const int64_t side : x.sizes().slice(1)) size *= side;
    TORCH_CHECK_VALUE(size > 0 && size <= std::numeric_limits<int32_t>::max(), "x has shape ",
                      x.sizes(), ", allowed are 1 to 2^31 - 1 elements of a summand");
    total += size;
  }
  const Tensor out = at::empty({total}, first.options());
  first.scalar_type() == at::kFloat ? run<float>(out, given) : run<double>(out, given);
  return out;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(iadd, m) { m.def("flat_sums(Tensor[] x) -> Tensor"); }
TORCH_LIBRARY_IMPL(iadd, CPU, m) { m.impl("flat_sums", flat_sums); }
#ifdef IADD_WITH_CUDA
TORCH_LIBRARY_IMPL(iadd, CUDA, m) { m.impl("flat_sums", flat_sums); }
#endif

}  // namespace iadd::flat_sums
