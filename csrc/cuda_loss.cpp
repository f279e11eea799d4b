// The dispatcher operators of the softmax cross-entropy; on the CPU the same text runs image by
// image.
#include "cuda_loss.h"

#include <ATen/Functions.h>
#include <torch/library.h>

#include <tuple>

#include "operators.h"

namespace iadd::cross_entropy {
namespace {

using at::Tensor;

struct Alone {
  int rank() const { return 0; }
  int size() const { return 1; }
  template <class T>
  T sum(T value) const {
    return value;
  }
  template <class T>
  T max(T value) const {
    return value;
  }
};

// One request's tensors, checked and contiguous; undefined where it has none.
struct Call {
  Tensor sums, moving, bias, bias_dot, targets, by_logits, by_targets, found;
  double scale;

  template <class T>
  void run_as() const {
    const auto in = [](const Tensor& x) { return x.defined() ? x.data_ptr<T>() : nullptr; };
    Problem<T> p{};
    p.parts = sums.size(0), p.images = targets.size(0), p.classes = targets.size(1);
    p.scale = static_cast<T>(scale);
    p.sums = in(sums), p.moving = in(moving), p.bias = in(bias), p.bias_dot = in(bias_dot);
    p.targets = in(targets), p.by_logits = in(by_logits), p.by_targets = in(by_targets);
    p.found = in(found);
#ifdef IADD_WITH_CUDA
    if (sums.is_cuda()) {
      on_device_of(sums, [&](void* stream) { return launch(p, stream); });
      return;
    }
#endif
    for (int64_t row = 0; row < p.images; ++row)
      p.moving ? image<true>(Alone(), p, row) : image<false>(Alone(), p, row);
  }
  void run() const { sums.scalar_type() == at::kFloat ? run_as<float>() : run_as<double>(); }
};

Call call(const Tensor& sums, const Tensor& bias, const Tensor& targets, double scale, bool dual) {
  TORCH_CHECK_TYPE(sums.scalar_type() == at::kFloat || sums.scalar_type() == at::kDouble,
                   "sums are ", sums.scalar_type(), ", allowed are float32 and float64");
  TORCH_CHECK_VALUE(sums.dim() == (dual ? 4 : 3) && (!dual || sums.size(1) == 2),
                    "sums have shape ", sums.sizes(), ", expected ",
                    dual ? "(S, 2, B, K)" : "(S, B, K)");
  Call c;
  c.sums = sums.contiguous(), c.scale = scale;
  const int64_t images = sums.size(-2), classes = sums.size(-1);
  c.bias = operand("bias", bias, {classes}, sums);
  c.targets = operand("targets", targets, {images, classes}, sums);
  c.found = at::empty({images}, sums.options());
  return c;
}

std::tuple<Tensor, Tensor> cross_entropy(const Tensor& sums, const Tensor& bias,
                                         const Tensor& targets, double scale) {
  Call c = call(sums, bias, targets, scale, false);
  c.by_logits = at::empty_like(c.targets);
  c.run();
  return {c.found, c.by_logits};
}

std::tuple<Tensor, Tensor, Tensor> cross_entropy_dual(const Tensor& sums, const Tensor& moving,
                                                      const Tensor& bias, const Tensor& bias_dot,
                                                      const Tensor& targets, double scale) {
  Call c = call(sums, bias, targets, scale, true);
  const int64_t images = sums.size(2), classes = sums.size(3);
  c.moving = operand("moving", moving, {sums.size(0), images, classes}, sums);
  c.bias_dot = operand("bias_dot", bias_dot, {classes}, sums);
  c.by_logits = at::empty({2, images, classes}, sums.options());
  c.by_targets = at::empty_like(c.targets);
  c.run();
  return {c.found, c.by_logits, c.by_targets};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(iadd, m) {
  m.def(
      "cross_entropy(Tensor sums, Tensor bias, Tensor targets, float scale) "
      "-> (Tensor losses, Tensor by_logits)");
  m.def(
      "cross_entropy_dual(Tensor sums, Tensor moving, Tensor bias, Tensor bias_dot, "
      "Tensor targets, float scale) -> (Tensor slopes, Tensor by_logits, Tensor by_targets)");
}
TORCH_LIBRARY_IMPL(iadd, CPU, m) {
  m.impl("cross_entropy", cross_entropy);
  m.impl("cross_entropy_dual", cross_entropy_dual);
}
#ifdef IADD_WITH_CUDA
TORCH_LIBRARY_IMPL(iadd, CUDA, m) {
  m.impl("cross_entropy", cross_entropy);
  m.impl("cross_entropy_dual", cross_entropy_dual);
}
#endif

}  // namespace iadd::cross_entropy
