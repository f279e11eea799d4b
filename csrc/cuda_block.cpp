// The dispatcher operators of the fused block passes; on the CPU the same text runs plane by plane.
#include "cuda_block.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <optional>
#include <tuple>
#include <vector>

#include "operators.h"

namespace iadd::block {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

// One worker has a plane to itself.
struct Alone {
  int rank() const { return 0; }
  int size() const { return 1; }
  template <class T>
  T sum(T value) const {
    return value;
  }
};

// One request's checked and contiguous tensors; undefined where the pass has none.
struct Call {
  Tensor x, scale, shift, scale_dot, shift_dot, by_y, y, stats, by_x, parts;
  bool relu, pool, dual;
  int64_t images, channels, height, width;

  Call(const Tensor& x_, const Tensor& scale_, const Tensor& shift_,
       const OptionalTensor& scale_dot_, const OptionalTensor& shift_dot_, bool relu_, bool pool_)
      : x(x_.contiguous()), relu(relu_), pool(pool_), dual(scale_dot_) {
    TORCH_CHECK_VALUE(x.dim() == (dual ? 5 : 4) && (!dual || x.size(0) == 2), "x has shape ",
                      x.sizes(), ", expected ", dual ? "(2, B, H, W, C)" : "(B, H, W, C)");
    TORCH_CHECK_TYPE(x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble, "x is ",
                     x.scalar_type(), ", allowed are float32 and float64");
    images = x.size(-4), height = x.size(-3), width = x.size(-2), channels = x.size(-1);
    TORCH_CHECK_VALUE(height * width <= (1 << 28), "x has planes of ", height, " x ", width,
                      ", allowed are 2^28 pixels");
    scale = operand("scale", scale_, {channels}, x);
    shift = operand("shift", shift_, {channels}, x);
    if (!dual) return;
    TORCH_CHECK_VALUE(shift_dot_, "shift_dot is missing, expected one beside scale_dot");
    scale_dot = operand("scale_dot", *scale_dot_, {channels}, x);
    shift_dot = operand("shift_dot", *shift_dot_, {channels}, x);
  }

  std::vector<int64_t> outputs() const {
    std::vector<int64_t> shape{images, pool ? height / 2 : height, pool ? width / 2 : width,
                               channels};
    if (dual) shape.insert(shape.begin(), 2);
    return shape;
  }
  std::vector<int64_t> moments() const { return {images, channels, dual ? 4 : 2}; }
  Tensor empty(const std::vector<int64_t>& shape) const { return at::empty(shape, x.options()); }

  template <class T>
  void run_as() const {
    const auto in = [](const Tensor& t) { return t.defined() ? t.data_ptr<T>() : nullptr; };
    Problem<T> p{};
    p.images = images, p.channels = channels;
    p.height = static_cast<int>(height), p.width = static_cast<int>(width);
    p.relu = relu, p.pool = pool;
    p.x = in(x), p.scale = in(scale), p.shift = in(shift);
    p.scale_dot = in(scale_dot), p.shift_dot = in(shift_dot), p.by_y = in(by_y);
    p.y = in(y), p.stats = in(stats), p.by_x = in(by_x), p.parts = in(parts);
#ifdef IADD_WITH_CUDA
    if (x.is_cuda()) {
      on_device_of(x, [&](void* stream) { return launch(p, stream); });
      return;
    }
#endif
    const auto pass = p.by_x ? (dual ? run<true, true, Alone, T> : run<true, false, Alone, T>)
                             : (dual ? run<false, true, Alone, T> : run<false, false, Alone, T>);
    at::parallel_for(0, images * channels, 16, [&](int64_t begin, int64_t end) {
      for (int64_t plane = begin; plane < end; ++plane)
        pass(Alone(), p, plane / channels, plane % channels);
    });
  }
  void run_pass() const { x.scalar_type() == at::kFloat ? run_as<float>() : run_as<double>(); }
};

std::tuple<Tensor, Tensor> block_forward(const Tensor& x, const Tensor& scale, const Tensor& shift,
                                         const OptionalTensor& scale_dot,
                                         const OptionalTensor& shift_dot, bool relu, bool pool) {
  Call call(x, scale, shift, scale_dot, shift_dot, relu, pool);
  call.y = call.empty(call.outputs());
  call.stats = call.empty(call.moments());
  call.run_pass();
  return {call.y, call.stats};
}

std::tuple<Tensor, Tensor> block_backward(const Tensor& x, const Tensor& stats, const Tensor& scale,
                                          const Tensor& shift, const OptionalTensor& scale_dot,
                                          const OptionalTensor& shift_dot, const Tensor& by_y,
                                          bool relu, bool pool) {
  Call call(x, scale, shift, scale_dot, shift_dot, relu, pool);
  call.stats = operand("stats", stats, call.moments(), call.x);
  call.by_y = operand("by_y", by_y, call.outputs(), call.x);
  call.by_x = at::empty_like(call.x);
  call.parts = call.empty({call.images, call.channels, 2});
  call.run_pass();
  return {call.by_x, call.parts};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(iadd, m) {
  m.def(
      "block_forward(Tensor x, Tensor scale, Tensor shift, Tensor? scale_dot, Tensor? shift_dot, "
      "bool relu, bool pool) -> (Tensor y, Tensor stats)");
  m.def(
      "block_backward(Tensor x, Tensor stats, Tensor scale, Tensor shift, Tensor? scale_dot, "
      "Tensor? shift_dot, Tensor by_y, bool relu, bool pool) -> (Tensor by_x, Tensor parts)");
}

TORCH_LIBRARY_IMPL(iadd, CPU, m) {
  m.impl("block_forward", block_forward);
  m.impl("block_backward", block_backward);
}
#ifdef IADD_WITH_CUDA
TORCH_LIBRARY_IMPL(iadd, CUDA, m) {
  m.impl("block_forward", block_forward);
  m.impl("block_backward", block_backward);
}
#endif

}  // namespace iadd::block
