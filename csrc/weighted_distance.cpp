// The weighted parameter distance of IADD, MTT and DDPP: schema, checks, gradients.
//
//   L = sum_p m_p w_p^2 (s_p - t_p)^2 / sum_p m_p (o_p - t_p)^2
//
// Everything is done in one pass over memory (`distance_pass`): the sums and, as the inputs stream
// by, gradients that still lack the scalar factor 2 / denominator, which is known only at the end
// and is folded into what follows. iadd/ops/reference.py holds the same in plain PyTorch: the
// specification.

#include "weighted_distance.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/index_add.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/repeat_interleave.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/library.h>
#include <torch/version.h>

#include <cmath>

#ifdef IADD_WITH_CUDA
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace iadd {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

// -------------------------------------------------------------------------------------- Checks

Type type_of(const Tensor& x) {
  switch (x.scalar_type()) {
    case at::kFloat:
      return Type::float32;
    case at::kDouble:
      return Type::float64;
    case at::kBFloat16:
      return Type::bfloat16;
    default:
      return Type::float16;
  }
}

void check_floating(const Tensor& x, const char* name) {
  TORCH_CHECK_VALUE(x.dim() == 1 && x.numel() > 0, name, ": shape ", x.sizes(),
                    ", allowed a flat (P,) with P >= 1");
  TORCH_CHECK_VALUE(x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble, name,
                    ": dtype ", x.scalar_type(), ", allowed float32 or float64");
}

void check_like(const Tensor& x, const char* name, at::IntArrayRef shape, at::ScalarType dtype,
                const Tensor& student) {
  TORCH_CHECK_VALUE(x.sizes() == shape, name, ": shape ", x.sizes(), ", allowed ", shape);
  TORCH_CHECK_VALUE(x.scalar_type() == dtype, name, ": dtype ", x.scalar_type(), ", allowed ",
                    dtype);
  TORCH_CHECK_VALUE(x.device() == student.device(), name, ": device ", x.device(), ", allowed ",
                    student.device());
}

void check_written(const Tensor& x, const char* name, const Tensor& like) {
  check_like(x, name, like.sizes(), like.scalar_type(), like);
  TORCH_CHECK_VALUE(x.is_contiguous(), name, ": strides ", x.strides(), ", allowed contiguous");
}

// Values of offsets are read on the CPU only: on a GPU that would wait for the device. There a
// wrong offset gives a wrong sum, never an access outside the arrays.
void check_offsets(const Tensor& offsets, const Tensor& student) {
  TORCH_CHECK_VALUE(offsets.dim() == 1 && offsets.numel() >= 2, "offsets: shape ", offsets.sizes(),
                    ", allowed (S + 1,) with S >= 1");
  check_like(offsets, "offsets", offsets.sizes(), at::kLong, student);
  if (!offsets.is_cpu()) return;
  const auto at = offsets.accessor<int64_t, 1>();
  const int64_t last = offsets.numel() - 1;
  TORCH_CHECK_VALUE(at[0] == 0 && at[last] == student.numel(), "offsets: from ", at[0], " to ",
                    at[last], ", allowed from 0 to ", student.numel());
  for (int64_t s = 0; s < last; ++s)
    TORCH_CHECK_VALUE(at[s] <= at[s + 1], "offsets: ", at[s], " before ", at[s + 1],
                      " at position ", s, ", allowed an order that does not fall");
}

void check(const Tensor& student, const Tensor& start, const Tensor& target,
           const OptionalTensor& weights, const OptionalTensor& offsets,
           const OptionalTensor& mask) {
  check_floating(student, "student");
  const auto expert = start.scalar_type();
  TORCH_CHECK_VALUE(
      expert == student.scalar_type() ||
          (student.scalar_type() == at::kFloat && (expert == at::kBFloat16 || expert == at::kHalf)),
      "start: dtype ", expert, ", allowed ", student.scalar_type(),
      student.scalar_type() == at::kFloat ? ", BFloat16 or Half" : "");
  check_like(start, "start", student.sizes(), expert, student);
  check_like(target, "target", student.sizes(), expert, student);
  TORCH_CHECK_VALUE(weights || !offsets, "offsets: given without weights, allowed with them only");
  if (offsets) check_offsets(*offsets, student);
  if (weights)
    check_like(*weights, "weights", {offsets ? offsets->numel() - 1 : student.numel()},
               student.scalar_type(), student);
  if (mask) check_like(*mask, "mask", student.sizes(), at::kBool, student);
}

// --------------------------------------------------------------------------------- Operations

template <class Problem>
void dispatch(const Problem& problem, const Tensor& like) {
  if (like.is_cpu()) return compute(problem);
#ifdef IADD_WITH_CUDA
  const c10::cuda::CUDAGuard guard(like.device());
  const Tensor space = at::empty({workspace(problem)}, like.options().dtype(at::kDouble));
  const auto error = static_cast<cudaError_t>(launch(problem, space.mutable_data_ptr<double>(),
                                                     c10::cuda::getCurrentCUDAStream().stream()));
  C10_CUDA_CHECK(error);
#endif
}

using Results = std::tuple<Tensor, Tensor, Tensor>;

Results distance_pass(const Tensor& student, const Tensor& start, const Tensor& target,
                      const OptionalTensor& weights, const OptionalTensor& offsets,
                      const OptionalTensor& mask, bool squared, bool weighted_denominator,
                      const OptionalTensor& student_gradient,
                      const OptionalTensor& weights_gradient) {
  check(student, start, target, weights, offsets, mask);
  if (student_gradient) check_written(*student_gradient, "student_gradient", student);
  TORCH_CHECK_VALUE(weights || !weights_gradient,
                    "weights_gradient: asked for without weights, allowed with them only");
  if (weights_gradient) check_written(*weights_gradient, "weights_gradient", *weights);

  // Held until the kernel has been started: a copy where the input was not contiguous.
  const Tensor s = student.contiguous(), o = start.contiguous(), t = target.contiguous();
  auto contiguous = [](const OptionalTensor& x) { return x ? x->contiguous() : Tensor(); };
  const Tensor w = contiguous(weights), f = contiguous(offsets), m = contiguous(mask);
  auto data = [](const Tensor& x) { return x.defined() ? x.const_data_ptr() : nullptr; };
  auto written = [](const OptionalTensor& x) { return x ? x->mutable_data_ptr() : nullptr; };

  Results results{at::empty({}, s.options()), at::empty({}, s.options()),
                  at::empty({}, s.options())};
  dispatch(Distance{.size = s.numel(),
                    .segments = f.defined() ? f.numel() - 1 : 0,
                    .type = type_of(s),
                    .expert = type_of(t),
                    .student = data(s),
                    .start = data(o),
                    .target = data(t),
                    .weights = data(w),
                    .offsets = static_cast<const int64_t*>(data(f)),
                    .mask = static_cast<const bool*>(data(m)),
                    .squared = squared,
                    .weighted_denominator = weighted_denominator && w.defined(),
                    .student_gradient = written(student_gradient),
                    .weights_gradient = written(weights_gradient),
                    .loss = std::get<0>(results).mutable_data_ptr(),
                    .unweighted = std::get<1>(results).mutable_data_ptr(),
                    .scale = std::get<2>(results).mutable_data_ptr()},
           s);
  return results;
}

void weights_step(const Tensor& v, const Tensor& weights, const Tensor& gradient,
                  const Tensor& exp_avg, const Tensor& exp_avg_sq, const OptionalTensor& scale,
                  int64_t step, double lr, double beta1, double beta2, double eps, double low,
                  double high, bool normalise, bool maximise) {
  check_floating(v, "v");
  check_written(v, "v", v);
  check_written(weights, "weights", v);
  check_like(gradient, "gradient", v.sizes(), v.scalar_type(), v);
  check_written(exp_avg, "exp_avg", v);
  check_written(exp_avg_sq, "exp_avg_sq", v);
  if (scale) check_like(*scale, "scale", {}, v.scalar_type(), v);
  TORCH_CHECK_VALUE(step >= 1, "step: ", step, ", allowed 1 or more");
  TORCH_CHECK_VALUE(low < high, "low: ", low, ", allowed below high, ", high);
  const Tensor g = gradient.contiguous();
  // Written behind autograd's back: let it know that what it may have saved is gone.
  for (const Tensor& x : {v, weights, exp_avg, exp_avg_sq})
    if (!x.is_inference()) x.unsafeGetTensorImpl()->bump_version();
  dispatch(Step{.size = v.numel(),
                .type = type_of(v),
                .v = v.mutable_data_ptr(),
                .weights = weights.mutable_data_ptr(),
                .exp_avg = exp_avg.mutable_data_ptr(),
                .exp_avg_sq = exp_avg_sq.mutable_data_ptr(),
                .gradient = g.const_data_ptr(),
                .scale = scale ? scale->const_data_ptr() : nullptr,
                .step_size = (maximise ? -lr : lr) / (1 - std::pow(beta1, step)),
                .root = std::sqrt(1 - std::pow(beta2, step)),
                .beta1 = beta1,
                .beta2 = beta2,
                .eps = eps,
                .low = low,
                .high = high,
                .normalise = normalise},
           v);
}

// ----------------------------------------------------------------------------------- Gradients

Results call_pass(const Tensor& student, const Tensor& start, const Tensor& target,
                  const OptionalTensor& weights, const OptionalTensor& offsets,
                  const OptionalTensor& mask, bool squared, bool weighted_denominator,
                  const OptionalTensor& student_gradient, const OptionalTensor& weights_gradient) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("iadd::distance_pass", "")
                             .typed<decltype(distance_pass)>();
  return op.call(student, start, target, weights, offsets, mask, squared, weighted_denominator,
                 student_gradient, weights_gradient);
}

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The gradients by differentiable operators, for when they are to be differentiated again.
std::pair<Tensor, Tensor> plain_gradients(const variable_list& saved, const Tensor& upstream,
                                          bool squared, bool weighted_denominator) {
  const Tensor &student = saved[0], &weights = saved[3], &offsets = saved[4], &mask = saved[5];
  auto kept = [&](const Tensor& x) {
    return mask.defined() ? at::where(mask, x, at::zeros_like(x)) : x;
  };
  const Tensor target = saved[2].to(student.scalar_type());
  const Tensor d = kept(student - target), e = kept(saved[1].to(student.scalar_type()) - target);
  Tensor segment, w;
  if (offsets.defined()) {
    segment = at::repeat_interleave(offsets.diff(), std::optional<int64_t>(student.numel()));
    w = kept(weights.index_select(0, segment));
  } else {
    w = kept(weights.defined() ? weights : at::ones_like(student));
  }
  const Tensor power = squared ? w * w : w, energy = e * e;
  const Tensor denominator = (weighted_denominator ? power * energy : energy).sum();
  const Tensor scale = upstream * 2 / denominator;
  if (!weights.defined()) return {scale * d, Tensor()};
  Tensor residual = d * d;
  if (weighted_denominator) residual = residual - (power * residual).sum() / denominator * energy;
  Tensor weights_gradient = scale * residual * (squared ? w : kept(at::ones_like(w) / 2));
  if (offsets.defined())
    weights_gradient = at::zeros_like(weights).index_add(0, segment, weights_gradient);
  return {scale * power * d, weights_gradient};
}

struct DistanceFunction : torch::autograd::Function<DistanceFunction> {
  static variable_list forward(AutogradContext* context, const Tensor& student, const Tensor& start,
                               const Tensor& target, const OptionalTensor& weights,
                               const OptionalTensor& offsets, const OptionalTensor& mask,
                               bool squared, bool weighted_denominator) {
    const at::AutoDispatchBelowADInplaceOrView below;
    OptionalTensor student_gradient, weights_gradient;
    if (student.requires_grad())
      student_gradient = at::empty_like(student, {}, at::MemoryFormat::Contiguous);
    if (weights && weights->requires_grad())
      weights_gradient = at::empty_like(*weights, {}, at::MemoryFormat::Contiguous);
    auto [loss, unweighted, scale] =
        call_pass(student, start, target, weights, offsets, mask, squared, weighted_denominator,
                  student_gradient, weights_gradient);
    auto defined = [](const OptionalTensor& x) { return x.value_or(Tensor()); };
    context->save_for_backward({student, start, target, defined(weights), defined(offsets),
                                defined(mask), defined(student_gradient), defined(weights_gradient),
                                scale});
    context->saved_data["squared"] = squared;
    context->saved_data["weighted_denominator"] = weighted_denominator;
    context->mark_non_differentiable({unweighted});
    return {loss, unweighted};
  }

  static variable_list backward(AutogradContext* context, const variable_list& upstream) {
    variable_list gradients(8);
    if (!upstream[0].defined()) return gradients;
    variable_list saved = context->get_saved_variables();
    if (at::GradMode::is_enabled()) {
      std::tie(gradients[0], gradients[3]) =
          plain_gradients(saved, upstream[0], context->saved_data["squared"].toBool(),
                          context->saved_data["weighted_denominator"].toBool());
      return gradients;
    }
    const Tensor scale = upstream[0] * saved[8];
    // Where no second backward can come, the buffer of the forward becomes the gradient.
    const bool last = !torch::autograd::get_current_graph_task_keep_graph();
    auto scaled = [&](Tensor x) { return !x.defined() ? x : last ? x.mul_(scale) : x * scale; };
    gradients[0] = scaled(saved[6]), gradients[3] = scaled(saved[7]);
    return gradients;
  }
};

using Pair = std::tuple<Tensor, Tensor>;

Pair distance(const Tensor& student, const Tensor& start, const Tensor& target,
              const OptionalTensor& weights, const OptionalTensor& offsets,
              const OptionalTensor& mask, bool squared, bool weighted_denominator) {
  auto [loss, unweighted, scale] = call_pass(student, start, target, weights, offsets, mask,
                                             squared, weighted_denominator, {}, {});
  return {loss, unweighted};
}

Pair distance_autograd(const Tensor& student, const Tensor& start, const Tensor& target,
                       const OptionalTensor& weights, const OptionalTensor& offsets,
                       const OptionalTensor& mask, bool squared, bool weighted_denominator) {
  if (!at::GradMode::is_enabled() ||
      !(student.requires_grad() || (weights && weights->requires_grad()) || start.requires_grad() ||
        target.requires_grad())) {
    const at::AutoDispatchBelowADInplaceOrView below;
    return distance(student, start, target, weights, offsets, mask, squared, weighted_denominator);
  }
  for (const auto& [x, name] : {std::pair{&start, "start"}, std::pair{&target, "target"}})
    TORCH_CHECK_VALUE(!x->requires_grad(), name,
                      ": requires a gradient, allowed a constant only: detach it");
  auto outputs = DistanceFunction::apply(student, start, target, weights, offsets, mask, squared,
                                         weighted_denominator);
  return {outputs[0], outputs[1]};
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
      "Tensor? offsets=None, Tensor? mask=None, bool squared=True, "
      "bool weighted_denominator=False) -> (Tensor loss, Tensor unweighted)",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "distance_pass(Tensor student, Tensor start, Tensor target, Tensor? weights=None, "
      "Tensor? offsets=None, Tensor? mask=None, bool squared=True, "
      "bool weighted_denominator=False, Tensor(a!)? student_gradient=None, "
      "Tensor(b!)? weights_gradient=None) "
      "-> (Tensor loss, Tensor unweighted, Tensor scale)",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "weights_step(Tensor(a!) v, Tensor(b!) weights, Tensor gradient, Tensor(c!) exp_avg, "
      "Tensor(d!) exp_avg_sq, Tensor? scale, int step, float lr, float beta1, float beta2, "
      "float eps, float low, float high, bool normalise, bool maximise) -> ()",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(iadd, CompositeExplicitAutograd, m) { m.impl("distance", distance); }

TORCH_LIBRARY_IMPL(iadd, Autograd, m) {
  m.impl("distance", distance_autograd);
  // They have no gradient of their own and say so by having none.
  m.impl("distance_pass", torch::CppFunction::makeFallthrough());
  m.impl("weights_step", torch::CppFunction::makeFallthrough());
}

TORCH_LIBRARY_IMPL(iadd, CPU, m) {
  m.impl("distance_pass", distance_pass);
  m.impl("weights_step", weights_step);
}

#ifdef IADD_WITH_CUDA
TORCH_LIBRARY_IMPL(iadd, CUDA, m) {
  m.impl("distance_pass", distance_pass);
  m.impl("weights_step", weights_step);
}
#endif

}  // namespace iadd
