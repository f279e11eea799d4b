// The weighted parameter distance of IADD, MTT and DDPP: schema, checks, gradients.
//
//   L = sum_p w_p^2 (s_p - t_p)^2 / sum_p (o_p - t_p)^2
//
// Everything is done in one pass over memory: the sums and, as the inputs stream by, gradients that
// still lack the scalar factor 2 / denominator, which is known only at the end. The same in plain
// PyTorch is iadd/engine/distance/reference.py: the specification.

#include "distance.h"

#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/library.h>
#include <torch/version.h>

#include "operators.h"
#include "workspace.h"

namespace iadd {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

void check_floating(const Tensor& x, const char* name) {
  TORCH_CHECK_VALUE(x.dim() == 1 && x.numel() > 0, name, ": shape ", x.sizes(),
                    ", allowed a flat (P,) with P >= 1");
  TORCH_CHECK_VALUE(x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble, name,
                    ": dtype ", x.scalar_type(), ", allowed float32 or float64");
}

void check_like(const Tensor& x, const char* name, const Tensor& like) {
  TORCH_CHECK_VALUE(x.sizes() == like.sizes(), name, ": shape ", x.sizes(), ", allowed ",
                    like.sizes());
  TORCH_CHECK_VALUE(x.scalar_type() == like.scalar_type(), name, ": dtype ", x.scalar_type(),
                    ", allowed ", like.scalar_type());
  TORCH_CHECK_VALUE(x.device() == like.device(), name, ": device ", x.device(), ", allowed ",
                    like.device());
}

struct Pass {
  Tensor loss, unweighted, scale;
  Tensor student_gradient, weights_gradient;  // unscaled; undefined where not asked for
};

template <class T>
void run_as(const Pass& pass, const Tensor& s, const Tensor& o, const Tensor& t, const Tensor& w,
            bool weighted_denominator) {
  const auto in = [](const Tensor& x) { return x.defined() ? x.data_ptr<T>() : nullptr; };
  Distance<T> problem{};
  problem.size = s.numel(), problem.weighted_denominator = weighted_denominator;
  problem.student = in(s), problem.start = in(o), problem.target = in(t), problem.weights = in(w);
  problem.student_gradient = in(pass.student_gradient);
  problem.weights_gradient = in(pass.weights_gradient);
  problem.loss = in(pass.loss), problem.unweighted = in(pass.unweighted);
  problem.scale = in(pass.scale);
  if (s.is_cpu()) return compute(problem);
#ifdef IADD_WITH_CUDA
  const Tensor space = at::empty({workspace(s.numel())}, s.options().dtype(at::kDouble));
  on_device_of(
      s, [&](void* stream) { return launch(problem, space.mutable_data_ptr<double>(), stream); });
#endif
}

Pass run_pass(const Tensor& student, const Tensor& start, const Tensor& target,
              const OptionalTensor& weights, bool weighted_denominator, bool by_student,
              bool by_weights) {
  check_floating(student, "student");
  check_like(start, "start", student);
  check_like(target, "target", student);
  if (weights) check_like(*weights, "weights", student);
  // Held until the kernel has been started: a copy where the input was not contiguous.
  const Tensor s = student.contiguous(), o = start.contiguous(), t = target.contiguous();
  const Tensor w = weights ? weights->contiguous() : Tensor();
  const bool weighted = weighted_denominator && weights;
  Pass pass;
  for (Tensor* scalar : {&pass.loss, &pass.unweighted, &pass.scale})
    *scalar = at::empty({}, s.options());
  if (by_student) pass.student_gradient = at::empty_like(s);
  if (by_weights && !weighted) pass.weights_gradient = at::empty_like(w);
  const auto run = s.scalar_type() == at::kFloat ? run_as<float> : run_as<double>;
  run(pass, s, o, t, w, weighted);
  if (by_weights && weighted) {  // it wants the loss, and is a difference: hence after, in double
    const Tensor d = (s - t).to(at::kDouble), e = (o - t).to(at::kDouble);
    pass.weights_gradient = (w * (d.square() - pass.loss * e.square())).to(s.scalar_type());
  }
  return pass;
}

using Pair = std::tuple<Tensor, Tensor>;

Pair distance(const Tensor& student, const Tensor& start, const Tensor& target,
              const OptionalTensor& weights, bool weighted_denominator) {
  const Pass pass = run_pass(student, start, target, weights, weighted_denominator, false, false);
  return {pass.loss, pass.unweighted};
}

struct DistanceFunction : torch::autograd::Function<DistanceFunction> {
  static variable_list forward(AutogradContext* context, const Tensor& student, const Tensor& start,
                               const Tensor& target, const OptionalTensor& weights,
                               bool weighted_denominator) {
    const at::AutoDispatchBelowADInplaceOrView below;
    const Pass pass = run_pass(student, start, target, weights, weighted_denominator,
                               student.requires_grad(), weights && weights->requires_grad());
    // The inputs too, so that autograd notices when one of them is changed before the backward.
    context->save_for_backward({student, weights.value_or(Tensor()), pass.student_gradient,
                                pass.weights_gradient, pass.scale});
    context->mark_non_differentiable({pass.unweighted});
    return {pass.loss, pass.unweighted};
  }

  static variable_list backward(AutogradContext* context, const variable_list& upstream) {
    variable_list gradients(5);
    if (!upstream[0].defined()) return gradients;
    TORCH_CHECK_NOT_IMPLEMENTED(!at::GradMode::is_enabled(),
                                "the weighted distance has first derivatives only");
    const variable_list saved = context->get_saved_variables();
    const Tensor scale = upstream[0] * saved[4];
    // Where no second backward can come, the buffer of the forward becomes the gradient.
    const bool last = !torch::autograd::get_current_graph_task_keep_graph();
    auto scaled = [&](Tensor x) { return !x.defined() ? x : last ? x.mul_(scale) : x * scale; };
    gradients[0] = scaled(saved[2]), gradients[3] = scaled(saved[3]);
    return gradients;
  }
};

Pair distance_autograd(const Tensor& student, const Tensor& start, const Tensor& target,
                       const OptionalTensor& weights, bool weighted_denominator) {
  if (at::GradMode::is_enabled()) {
    for (const auto& [x, name] : {std::pair{&start, "start"}, std::pair{&target, "target"}})
      TORCH_CHECK_VALUE(!x->requires_grad(), name,
                        ": requires a gradient, allowed a constant only: detach it");
    if (student.requires_grad() || (weights && weights->requires_grad())) {
      auto found = DistanceFunction::apply(student, start, target, weights, weighted_denominator);
      return {found[0], found[1]};
    }
  }
  const at::AutoDispatchBelowADInplaceOrView below;
  return distance(student, start, target, weights, weighted_denominator);
}

// What this file was built for and what it runs: "torch=2.15.0 cuda=1 cpu=avx512".
std::string kernel_info() {
#ifdef IADD_WITH_CUDA
  const std::string cuda = "1";
#else
  const std::string cuda = "0";
#endif
  return "torch=" TORCH_VERSION " cuda=" + cuda + " cpu=" + instruction_set();
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(iadd, m) {
  m.def("kernel_info() -> str", kernel_info);
  m.def(
      "distance(Tensor student, Tensor start, Tensor target, Tensor? weights=None, "
      "bool weighted_denominator=False) -> (Tensor loss, Tensor unweighted)");
}

TORCH_LIBRARY_IMPL(iadd, Autograd, m) { m.impl("distance", distance_autograd); }
TORCH_LIBRARY_IMPL(iadd, CPU, m) { m.impl("distance", distance); }
#ifdef IADD_WITH_CUDA
TORCH_LIBRARY_IMPL(iadd, CUDA, m) { m.impl("distance", distance); }
#endif

}  // namespace iadd
