// The dispatcher operators of the ConvNet passes on the CPU: schemas, checks, several students.
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "cpu_convnet_batch.h"

namespace iadd::convnet {
namespace {

using at::Tensor;

// config: filters, depth, norm (0, 1), relu (0, 1), pool (0, 1).
Network make_network(const Tensor& images, int64_t classes, at::IntArrayRef config, int64_t lanes) {
  TORCH_CHECK_VALUE(config.size() == 5, "config has ", config.size(),
                    " numbers, allowed are 5: filters, depth, norm, relu, pool");
  TORCH_CHECK_VALUE(images.dim() >= 4, "images have ", images.dim(),
                    " dimensions, allowed are (B, C, H, W) or (M, B, C, H, W)");
  try {
    return network(images.size(-3), images.size(-2), images.size(-1), classes, config[0], config[1],
                   config[2], config[3], config[4], lanes);
  } catch (const std::invalid_argument& error) {
    TORCH_CHECK_VALUE(false, error.what());
  }
}

int64_t lanes_of(at::ScalarType type) {
  TORCH_CHECK_TYPE(type == at::kFloat || type == at::kDouble,
                   "the ConvNet passes take float32 or float64, not ", type);
  return type == at::kFloat ? kernels<float>().lanes : kernels<double>().lanes;
}

void check(const char* name, const Tensor& t, at::IntArrayRef shape, at::ScalarType type) {
  TORCH_CHECK_VALUE(t.sizes() == shape, name, " has shape ", t.sizes(), ", expected ", shape);
  TORCH_CHECK_TYPE(t.scalar_type() == type, name, " is ", t.scalar_type(), ", expected ", type);
  TORCH_CHECK_VALUE(t.device().is_cpu(), name, " is on ", t.device(), ", expected cpu");
}

// M students, each with its parameters; images and seeds are theirs or shared by all.
struct Students {
  Tensor parameters, images, seed;
  int64_t count, batch;
  bool many, own_images, own_seed;
  Network net;

  Students(const Tensor& parameters_, const Tensor& images_, const Tensor& seed_, int64_t classes,
           int64_t seed_size, at::IntArrayRef config)
      : parameters(parameters_.contiguous()),
        images(images_.contiguous()),
        many(parameters.dim() == 2),
        own_images(images.dim() == 5),
        net(make_network(images, classes, config, lanes_of(parameters.scalar_type()))) {
    count = many ? parameters.size(0) : 1;
    batch = images.size(-4);
    const auto type = parameters.scalar_type();
    check("parameters", parameters, sized({net.parameters}, many), type);
    check("images", images, sized({batch, net.channels, net.height, net.width}, own_images), type);
    TORCH_CHECK_VALUE(batch > 0, "images hold no image, at least 1 is needed");
    TORCH_CHECK_VALUE(many || !own_images, "images are of ", images.size(0),
                      " students, parameters of one");
    if (!seed_.defined()) return;
    seed = seed_.contiguous();
    own_seed = seed.dim() == 3;
    check("targets", seed, sized({batch, seed_size < 0 ? net.features : seed_size}, own_seed),
          type);
  }

  std::vector<int64_t> sized(std::vector<int64_t> shape, bool each) const {
    if (each) shape.insert(shape.begin(), count);
    return shape;
  }
  Tensor empty(std::vector<int64_t> shape) const {
    return at::empty(sized(std::move(shape), many), parameters.options());
  }

  template <class T>
  Request<T> request(int64_t student) const {
    Request<T> r;
    r.parameters = parameters.const_data_ptr<T>() + student * net.parameters;
    r.images = images.const_data_ptr<T>() + (own_images ? student * images.stride(0) : 0);
    if (seed.defined())
      r.seed = seed.const_data_ptr<T>() + (own_seed ? student * seed.stride(0) : 0);
    r.batch = batch;
    return r;
  }

  // Wide students one after the other with all threads, narrow ones a thread each.
  template <class Body>
  void each(const Body& body) const {
    const bool parallel = worth_threads(net, batch);
    if (count == 1 || (parallel && count < at::get_num_threads())) {
      for (int64_t m = 0; m < count; ++m) body(m, parallel);
      return;
    }
    at::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
      for (int64_t m = begin; m < end; ++m) body(m, false);
    });
  }
};

template <class T>
T* row(Tensor& t, int64_t student, bool many) {
  return t.defined() ? t.mutable_data_ptr<T>() + (many ? student * t.stride(0) : 0) : nullptr;
}

#define DISPATCH(type, ...) \
  if (type == at::kFloat) { \
    using T = float;        \
    __VA_ARGS__             \
  } else {                  \
    using T = double;       \
    __VA_ARGS__             \
  }

Tensor from_doubles(const std::vector<double>& values, const Students& s) {
  Tensor t = s.empty({});
  DISPATCH(t.scalar_type(), std::copy(values.begin(), values.end(), t.mutable_data_ptr<T>());)
  return t;
}

void check_kept(const char* name, const Tensor& t, const Students& s) {
  check(name, t, s.parameters.sizes(), s.parameters.scalar_type());
  TORCH_CHECK_VALUE(t.is_contiguous(), name, " must be contiguous");
}

// The gradient; with a rate, the parameters after a step of it.
Tensor gradient_into(const Tensor& parameters, const Tensor& images, const Tensor& targets,
                     at::IntArrayRef config, std::optional<double> rate, Tensor& out) {
  const Students s(parameters, images, targets, targets.size(-1), targets.size(-1), config);
  check_kept("out", out, s);
  std::vector<double> losses(s.count);
  DISPATCH(s.parameters.scalar_type(), s.each([&](int64_t m, bool parallel) {
    auto r = s.request<T>(m);
    r.kind = Seed::cross_entropy;
    r.gradient = row<T>(out, m, s.many);
    if (rate) r.base = r.parameters, r.rate = T(*rate);
    r.loss = &losses[m];
    execute(s.net, r, parallel);
  });)
  return from_doubles(losses, s);
}

std::tuple<Tensor, Tensor> gradient(const Tensor& parameters, const Tensor& images,
                                    const Tensor& targets, at::IntArrayRef config) {
  Tensor out = at::empty_like(parameters, at::MemoryFormat::Contiguous);
  return {gradient_into(parameters, images, targets, config, std::nullopt, out), out};
}

Tensor step(const Tensor& parameters, const Tensor& images, const Tensor& targets, double rate,
            at::IntArrayRef config, Tensor next) {
  return gradient_into(parameters, images, targets, config, rate, next);
}

using Three = std::tuple<Tensor, Tensor, Tensor>;

// The tangent along `direction` in `out`; with a rate, the direction after a step of it.
Three tangent_into(const Tensor& parameters, const Tensor& images, const Tensor& targets,
                   const Tensor& direction, at::IntArrayRef config, std::optional<double> rate,
                   Tensor& out) {
  const Students s(parameters, images, targets, targets.size(-1), targets.size(-1), config);
  check_kept("direction", direction, s);
  const Network& n = s.net;
  Tensor h_images = s.empty({s.batch, n.channels, n.height, n.width});
  Tensor h_targets = s.empty({s.batch, n.classes});
  std::vector<double> slopes(s.count);
  DISPATCH(s.parameters.scalar_type(), s.each([&](int64_t m, bool parallel) {
    auto r = s.request<T>(m);
    r.kind = Seed::cross_entropy;
    r.direction = direction.const_data_ptr<T>() + m * n.parameters;
    r.gradient = row<T>(out, m, s.many);
    if (rate) r.base = r.direction, r.rate = T(*rate);
    r.image_gradient = row<T>(h_images, m, s.many);
    r.target_gradient = row<T>(h_targets, m, s.many);
    r.slope = &slopes[m];
    execute(n, r, parallel);
  });)
  return {h_images, h_targets, from_doubles(slopes, s)};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> tangent(const Tensor& parameters, const Tensor& images,
                                                   const Tensor& targets, const Tensor& direction,
                                                   at::IntArrayRef config) {
  Tensor h = at::empty_like(direction, at::MemoryFormat::Contiguous);
  auto [h_images, h_targets, slope] =
      tangent_into(parameters, images, targets, direction.contiguous(), config, std::nullopt, h);
  return {h, h_images, h_targets, slope};
}

Three step_back(const Tensor& parameters, const Tensor& images, const Tensor& targets, double rate,
                at::IntArrayRef config, Tensor direction) {
  return tangent_into(parameters, images, targets, direction, config, rate, direction);
}

std::tuple<Tensor, Tensor> forward(const Tensor& parameters, const Tensor& images, int64_t classes,
                                   at::IntArrayRef config) {
  const Students s(parameters, images, {}, classes, 0, config);
  Tensor logits = s.empty({s.batch, classes}), features = s.empty({s.batch, s.net.features});
  DISPATCH(s.parameters.scalar_type(), s.each([&](int64_t m, bool parallel) {
    auto r = s.request<T>(m);
    r.logits = row<T>(logits, m, s.many);
    r.features = row<T>(features, m, s.many);
    execute(s.net, r, parallel);
  });)
  return {logits, features};
}

// The gradient by the images of <features, cotangent>.
Tensor embed_gradient(const Tensor& parameters, const Tensor& images, const Tensor& cotangent,
                      int64_t classes, at::IntArrayRef config) {
  const Students s(parameters, images, cotangent, classes, -1, config);
  Tensor by_images = s.empty({s.batch, s.net.channels, s.net.height, s.net.width});
  DISPATCH(s.parameters.scalar_type(), s.each([&](int64_t m, bool parallel) {
    auto r = s.request<T>(m);
    r.kind = Seed::features;
    r.image_gradient = row<T>(by_images, m, s.many);
    execute(s.net, r, parallel);
  });)
  return by_images;
}

std::string convnet_isa() { return instruction_set(); }

TORCH_LIBRARY_FRAGMENT(iadd, m) {
  m.def(
      "convnet_gradient(Tensor parameters, Tensor images, Tensor targets, int[] config) -> "
      "(Tensor loss, Tensor gradient)");
  m.def(
      "convnet_step(Tensor parameters, Tensor images, Tensor targets, float rate, int[] config, "
      "Tensor(a!) next) -> Tensor loss");
  m.def(
      "convnet_step_back(Tensor parameters, Tensor images, Tensor targets, float rate, int[] "
      "config, "
      "Tensor(a!) direction) -> (Tensor h_images, Tensor h_targets, Tensor slope)");
  m.def(
      "convnet_tangent(Tensor parameters, Tensor images, Tensor targets, Tensor direction, "
      "int[] config) -> (Tensor h_parameters, Tensor h_images, Tensor h_targets, Tensor slope)");
  m.def(
      "convnet_forward(Tensor parameters, Tensor images, int classes, int[] config) -> "
      "(Tensor logits, Tensor features)");
  m.def(
      "convnet_embed_gradient(Tensor parameters, Tensor images, Tensor cotangent, int classes, "
      "int[] config) -> Tensor by_images");
  m.def("convnet_isa() -> str", convnet_isa);
}

TORCH_LIBRARY_IMPL(iadd, CPU, m) {
  m.impl("convnet_gradient", gradient);
  m.impl("convnet_step", step);
  m.impl("convnet_step_back", step_back);
  m.impl("convnet_tangent", tangent);
  m.impl("convnet_forward", forward);
  m.impl("convnet_embed_gradient", embed_gradient);
}

}  // namespace
}  // namespace iadd::convnet
