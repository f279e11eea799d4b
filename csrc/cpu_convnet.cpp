// The dispatcher operators of the ConvNet passes on the CPU: schemas and checks.
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <optional>
#include <string>
#include <tuple>

#include "cpu_convnet_batch.h"

namespace iadd::convnet {
namespace {

using at::Tensor;

// config: filters, depth, norm (0, 1), relu (0, 1), pool (0, 1).
Network make_network(const Tensor& images, int64_t classes, at::IntArrayRef config, int64_t lanes) {
  TORCH_CHECK_VALUE(config.size() == 5, "config has ", config.size(),
                    " numbers, allowed are 5: filters, depth, norm, relu, pool");
  TORCH_CHECK_VALUE(images.dim() == 4, "images have ", images.dim(),
                    " dimensions, allowed are (B, C, H, W)");
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

// body(T()) for the type that the tensor holds.
template <class Body>
void with_type_of(const Tensor& t, const Body& body) {
  t.scalar_type() == at::kFloat ? body(float()) : body(double());
}

// One request's checked and contiguous tensors; `seed` is where the backward pass begins.
struct Call {
  Tensor parameters, images, seed;
  int64_t batch;
  Network net;

  Call(const Tensor& parameters_, const Tensor& images_, const Tensor& seed_, int64_t classes,
       at::IntArrayRef config, bool at_features = false)
      : parameters(parameters_.contiguous()),
        images(images_.contiguous()),
        net(make_network(images, classes, config, lanes_of(parameters.scalar_type()))) {
    batch = images.size(0);
    const auto type = parameters.scalar_type();
    check("parameters", parameters, {net.parameters}, type);
    check("images", images, {batch, net.channels, net.height, net.width}, type);
    TORCH_CHECK_VALUE(batch > 0, "images hold no image, at least 1 is needed");
    if (!seed_.defined()) return;
    seed = seed_.contiguous();
    check("targets", seed, {batch, at_features ? net.features : classes}, type);
  }

  Tensor empty(at::IntArrayRef shape) const { return at::empty(shape, parameters.options()); }

  template <class T>
  Request<T> request(Seed kind) const {
    Request<T> r;
    r.parameters = parameters.const_data_ptr<T>();
    r.images = images.const_data_ptr<T>();
    if (seed.defined()) r.seed = seed.const_data_ptr<T>();
    r.kind = kind;
    r.batch = batch;
    return r;
  }

  template <class T>
  void run(const Request<T>& r) const {
    execute(net, r, worth_threads(net, batch));
  }

  void check_written(const char* name, const Tensor& t) const {
    check(name, t, parameters.sizes(), parameters.scalar_type());
    TORCH_CHECK_VALUE(t.is_contiguous(), name, " must be contiguous");
  }
};

// The gradient in `out`; with a rate, the parameters after a step of it. Returns the loss.
Tensor gradient(const Tensor& parameters, const Tensor& images, const Tensor& targets,
                std::optional<double> rate, at::IntArrayRef config, Tensor out) {
  const Call c(parameters, images, targets, targets.size(-1), config);
  c.check_written("out", out);
  double loss = 0;
  with_type_of(out, [&]<class T>(T) {
    auto r = c.request<T>(Seed::cross_entropy);
    r.gradient = out.mutable_data_ptr<T>();
    if (rate) r.base = r.parameters, r.rate = T(*rate);
    r.loss = &loss;
    c.run(r);
  });
  return at::scalar_tensor(loss, out.options());
}

// The tangent along `direction` in `out`; with a rate, the direction after a step of it. The two
// may be the same.
std::tuple<Tensor, Tensor, Tensor> tangent(const Tensor& parameters, const Tensor& images,
                                           const Tensor& targets, const Tensor& direction_,
                                           std::optional<double> rate, at::IntArrayRef config,
                                           Tensor out) {
  const Call c(parameters, images, targets, targets.size(-1), config);
  const Tensor direction = direction_.contiguous();
  c.check_written("direction", direction);
  c.check_written("out", out);
  Tensor h_images = c.empty(c.images.sizes()), h_targets = c.empty(c.seed.sizes());
  double slope = 0;
  with_type_of(out, [&]<class T>(T) {
    auto r = c.request<T>(Seed::cross_entropy);
    r.direction = direction.const_data_ptr<T>();
    r.gradient = out.mutable_data_ptr<T>();
    if (rate) r.base = r.direction, r.rate = T(*rate);
    r.image_gradient = h_images.mutable_data_ptr<T>();
    r.target_gradient = h_targets.mutable_data_ptr<T>();
    r.slope = &slope;
    c.run(r);
  });
  return {h_images, h_targets, at::scalar_tensor(slope, out.options())};
}

std::tuple<Tensor, Tensor> forward(const Tensor& parameters, const Tensor& images, int64_t classes,
                                   at::IntArrayRef config) {
  const Call c(parameters, images, {}, classes, config);
  Tensor logits = c.empty({c.batch, classes}), features = c.empty({c.batch, c.net.features});
  with_type_of(logits, [&]<class T>(T) {
    auto r = c.request<T>(Seed::none);
    r.logits = logits.mutable_data_ptr<T>();
    r.features = features.mutable_data_ptr<T>();
    c.run(r);
  });
  return {logits, features};
}

// The gradient by the images of <features, cotangent>.
Tensor embed_gradient(const Tensor& parameters, const Tensor& images, const Tensor& cotangent,
                      int64_t classes, at::IntArrayRef config) {
  const Call c(parameters, images, cotangent, classes, config, true);
  Tensor by_images = c.empty(c.images.sizes());
  with_type_of(by_images, [&]<class T>(T) {
    auto r = c.request<T>(Seed::features);
    r.image_gradient = by_images.mutable_data_ptr<T>();
    c.run(r);
  });
  return by_images;
}

TORCH_LIBRARY_FRAGMENT(iadd, m) {
  m.def(
      "convnet_gradient(Tensor parameters, Tensor images, Tensor targets, float? rate, "
      "int[] config, Tensor(a!) out) -> Tensor loss");
  m.def(
      "convnet_tangent(Tensor parameters, Tensor images, Tensor targets, Tensor direction, "
      "float? rate, int[] config, Tensor(a!) out) -> "
      "(Tensor h_images, Tensor h_targets, Tensor slope)");
  m.def(
      "convnet_forward(Tensor parameters, Tensor images, int classes, int[] config) -> "
      "(Tensor logits, Tensor features)");
  m.def(
      "convnet_embed_gradient(Tensor parameters, Tensor images, Tensor cotangent, int classes, "
      "int[] config) -> Tensor by_images");
}

TORCH_LIBRARY_IMPL(iadd, CPU, m) {
  m.impl("convnet_gradient", gradient);
  m.impl("convnet_tangent", tangent);
  m.impl("convnet_forward", forward);
  m.impl("convnet_embed_gradient", embed_gradient);
}

}  // namespace
}  // namespace iadd::convnet
