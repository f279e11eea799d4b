// The dispatcher operators of the fused block passes; on the CPU the same text runs plane by plane.
#include "cuda_block.h"

#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include <tuple>
#include <vector>

#ifdef IADD_WITH_CUDA
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

namespace iadd::block {
namespace {

using at::Tensor;

// One worker has a plane to itself.
struct Alone {
  int rank() const { return 0; }
  int size() const { return 1; }
  template <class T>
  T sum(T value) const {
    return value;
  }
};

struct Call {
  Tensor x;
  bool relu, pool, dual;
  int64_t images, channels, height, width;

  Call(const Tensor& x_, bool relu_, bool pool_, bool dual_)
      : x(x_.contiguous()), relu(relu_), pool(pool_), dual(dual_) {
    TORCH_CHECK_VALUE(x.dim() == (dual ? 5 : 4) && (!dual || x.size(0) == 2), "x has shape ",
                      x.sizes(), ", expected ", dual ? "(2, B, C, H, W)" : "(B, C, H, W)");
    TORCH_CHECK_TYPE(x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble, "x is ",
                     x.scalar_type(), ", allowed are float32 and float64");
    images = x.size(-4), channels = x.size(-3), height = x.size(-2), width = x.size(-1);
    TORCH_CHECK_VALUE(height * width <= (1 << 28), "x has planes of ", height, " x ", width,
                      ", allowed are 2^28 pixels");
  }

  std::vector<int64_t> maps(int64_t rows, int64_t columns) const {
    std::vector<int64_t> shape{images, channels, rows, columns};
    if (dual) shape.insert(shape.begin(), 2);
    return shape;
  }
  std::vector<int64_t> outputs() const {
    return pool ? maps(height / 2, width / 2) : maps(height, width);
  }
  Tensor empty(const std::vector<int64_t>& shape) const { return at::empty(shape, x.options()); }

  // A contiguous operand; `like` is its expected shape.
  Tensor operand(const char* name, const Tensor& t, const std::vector<int64_t>& like) const {
    TORCH_CHECK_VALUE(t.sizes() == like, name, " has shape ", t.sizes(), ", expected ",
                      at::IntArrayRef(like));
    TORCH_CHECK_TYPE(t.scalar_type() == x.scalar_type(), name, " is ", t.scalar_type(),
                     ", expected ", x.scalar_type());
    TORCH_CHECK_VALUE(t.device() == x.device(), name, " is on ", t.device(), ", expected ",
                      x.device());
    return t.contiguous();
  }
};

struct Operands {
  Tensor scale, shift, scale_dot, shift_dot, by_y, y, stats, by_x, parts;
};

template <class T>
void run_as(Pass pass, const Call& call, const Operands& o) {
  const auto read = [](const Tensor& t) { return t.defined() ? t.const_data_ptr<T>() : nullptr; };
  const auto write = [](const Tensor& t) {
    return t.defined() ? t.mutable_data_ptr<T>() : nullptr;
  };
  const Problem<T> p{call.images * call.channels,
                     call.channels,
                     static_cast<int>(call.height),
                     static_cast<int>(call.width),
                     call.relu,
                     call.pool,
                     read(call.x),
                     read(o.scale),
                     read(o.shift),
                     read(o.scale_dot),
                     read(o.shift_dot),
                     read(o.by_y),
                     write(o.y),
                     write(o.stats),
                     write(o.by_x),
                     write(o.parts)};
#ifdef IADD_WITH_CUDA
  if (call.x.is_cuda()) {
    const c10::cuda::CUDAGuard guard(call.x.device());
    const auto stream = c10::cuda::getCurrentCUDAStream();
    C10_CUDA_CHECK(static_cast<cudaError_t>(launch(pass, p, stream.stream())));
    C10_CUDA_KERNEL_LAUNCH_CHECK();
    return;
  }
#endif
  at::parallel_for(0, p.planes, 16, [&](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) run(pass, Alone(), p, plane);
  });
}

void run_pass(Pass pass, const Call& call, const Operands& o) {
  if (call.x.scalar_type() == at::kFloat)
    run_as<float>(pass, call, o);
  else
    run_as<double>(pass, call, o);
}

std::tuple<Tensor, Tensor> block_forward(const Tensor& x, const Tensor& scale, const Tensor& shift,
                                         bool relu, bool pool) {
  const Call call(x, relu, pool, false);
  Operands o;
  o.scale = call.operand("scale", scale, {call.channels});
  o.shift = call.operand("shift", shift, {call.channels});
  o.y = call.empty(call.outputs());
  o.stats = call.empty({call.images, call.channels, 2});
  run_pass(Pass::forward, call, o);
  return {o.y, o.stats};
}

std::tuple<Tensor, Tensor> block_backward(const Tensor& x, const Tensor& stats, const Tensor& scale,
                                          const Tensor& shift, const Tensor& by_y, bool relu,
                                          bool pool) {
  const Call call(x, relu, pool, false);
  Operands o;
  o.scale = call.operand("scale", scale, {call.channels});
  o.shift = call.operand("shift", shift, {call.channels});
  o.stats = call.operand("stats", stats, {call.images, call.channels, 2});
  o.by_y = call.operand("by_y", by_y, call.outputs());
  o.by_x = call.empty(call.maps(call.height, call.width));
  o.parts = call.empty({call.images, call.channels, 2});
  run_pass(Pass::backward, call, o);
  return {o.by_x, o.parts};
}

std::tuple<Tensor, Tensor> block_dual_forward(const Tensor& x, const Tensor& scale,
                                              const Tensor& shift, const Tensor& scale_dot,
                                              const Tensor& shift_dot, bool relu, bool pool) {
  const Call call(x, relu, pool, true);
  Operands o;
  o.scale = call.operand("scale", scale, {call.channels});
  o.shift = call.operand("shift", shift, {call.channels});
  o.scale_dot = call.operand("scale_dot", scale_dot, {call.channels});
  o.shift_dot = call.operand("shift_dot", shift_dot, {call.channels});
  o.y = call.empty(call.outputs());
  o.stats = call.empty({call.images, call.channels, 4});
  run_pass(Pass::dual_forward, call, o);
  return {o.y, o.stats};
}

std::tuple<Tensor, Tensor> block_dual_backward(const Tensor& x, const Tensor& stats,
                                               const Tensor& scale, const Tensor& shift,
                                               const Tensor& scale_dot, const Tensor& shift_dot,
                                               const Tensor& by_y, bool relu, bool pool) {
  const Call call(x, relu, pool, true);
  Operands o;
  o.scale = call.operand("scale", scale, {call.channels});
  o.shift = call.operand("shift", shift, {call.channels});
  o.scale_dot = call.operand("scale_dot", scale_dot, {call.channels});
  o.shift_dot = call.operand("shift_dot", shift_dot, {call.channels});
  o.stats = call.operand("stats", stats, {call.images, call.channels, 4});
  o.by_y = call.operand("by_y", by_y, call.outputs());
  o.by_x = call.empty(call.maps(call.height, call.width));
  o.parts = call.empty({call.images, call.channels, 2});
  run_pass(Pass::dual_backward, call, o);
  return {o.by_x, o.parts};
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(iadd, m) {
  m.def(
      "block_forward(Tensor x, Tensor scale, Tensor shift, bool relu, bool pool) -> "
      "(Tensor y, Tensor stats)");
  m.def(
      "block_backward(Tensor x, Tensor stats, Tensor scale, Tensor shift, Tensor by_y, "
      "bool relu, bool pool) -> (Tensor by_x, Tensor parts)");
  m.def(
      "block_dual_forward(Tensor x, Tensor scale, Tensor shift, Tensor scale_dot, "
      "Tensor shift_dot, bool relu, bool pool) -> (Tensor y, Tensor stats)");
  m.def(
      "block_dual_backward(Tensor x, Tensor stats, Tensor scale, Tensor shift, "
      "Tensor scale_dot, Tensor shift_dot, Tensor by_y, bool relu, bool pool) -> "
      "(Tensor by_x, Tensor parts)");
}

#define IADD_BLOCK_OPERATORS(m)                     \
  m.impl("block_forward", block_forward);           \
  m.impl("block_backward", block_backward);         \
  m.impl("block_dual_forward", block_dual_forward); \
  m.impl("block_dual_backward", block_dual_backward)

TORCH_LIBRARY_IMPL(iadd, CPU, m) { IADD_BLOCK_OPERATORS(m); }
#ifdef IADD_WITH_CUDA
TORCH_LIBRARY_IMPL(iadd, CUDA, m) { IADD_BLOCK_OPERATORS(m); }
#endif

}  // namespace iadd::block
