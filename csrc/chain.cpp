// The plain networks' operator: shapes and layout, micro-batches, one ordered sum.
#include "chain.h"

#include <ATen/Functions.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>
#include <vector>

#include "convnet_engine.h"
#include "workspace.h"

namespace iadd::chain {
namespace {

using at::Tensor;

// Enough rows for the products, few enough for the cache. A function of the batch alone, never of
// the number of threads; a slot has a partial gradient of its own.
constexpr int64_t kMicroBatch = 24, kMostSlots = 8;
constexpr size_t kNumbers = 5;  // of a stage: channels, kernel (0: as large as the map), padding,
                                // ReLU (0, 1), pool (0, 1: the greatest, 2: the mean)

long whole_registers(long channels, long lanes) { return (channels + lanes - 1) / lanes * lanes; }

Network make_network(const Tensor& images, at::IntArrayRef stages, long lanes) {
  const size_t count = stages.size() / kNumbers;
  TORCH_CHECK_VALUE(count > 0 && count <= kMaxStages && stages.size() % kNumbers == 0,
                    "stages has ", stages.size(), " numbers, allowed are 5 for each of 1 to ",
                    kMaxStages, " stages");
  Network net{};
  net.channels = images.size(1), net.height = images.size(2), net.width = images.size(3);
  net.count = long(count);
  long in = net.channels, in_stride = 0, height = net.height, width = net.width;
  for (size_t i = 0; i < count; ++i) {
    const int64_t* numbers = stages.data() + i * kNumbers;
    Stage& s = net.stages[i];
    s.out = numbers[0], s.padding = numbers[2];
    s.kernel_height = numbers[1] ? numbers[1] : height;
    s.kernel_width = numbers[1] ? numbers[1] : width;
    s.relu = numbers[3], s.pool = Pool(numbers[4]);
    s.rows = height + 2 * s.padding - s.kernel_height + 1;
    s.columns = width + 2 * s.padding - s.kernel_width + 1;
    const bool fits = s.rows > 0 && s.columns > 0 && s.out > 0 && s.padding >= 0 &&
                      s.padding < std::min(s.kernel_height, s.kernel_width) && numbers[4] >= 0 &&
                      numbers[4] <= 2 && s.pooled() > 0;
    TORCH_CHECK_VALUE(fits, "stage ", i, " (", at::IntArrayRef(numbers, kNumbers),
                      ") does not fit a map of ", height, " x ", width);
    s.in = in, s.in_stride = in_stride, s.height = height, s.width = width;
    s.out_stride = whole_registers(s.out, lanes);
    if (i == 0) {
      net.kernel_height = s.kernel_height, net.kernel_width = s.kernel_width;
      net.padding = s.padding;
      s.in = s.in_stride = in * s.taps();
      s.height = s.rows, s.width = s.columns;
      s.kernel_height = s.kernel_width = 1, s.padding = 0;
    }
    s.weight = net.parameters, s.bias = s.weight + s.out * s.in * s.taps();
    net.parameters = s.bias + s.out;
    s.packed_weight = net.gradient_size;
    s.packed_bias = s.packed_weight + s.taps() * s.in_stride * s.out_stride;
    net.gradient_size = s.packed_bias + s.out_stride;
    in = s.out, in_stride = s.out_stride, height = s.pooled_rows(), width = s.pooled_columns();
  }
  TORCH_CHECK_VALUE(height * width == 1, "the last stage leaves maps of ", height, " x ", width,
                    ", expected logits");
  net.classes = in;
  net.packed_size = net.gradient_size;
  for (size_t i = 1; i < count; ++i) {
    Stage& s = net.stages[i];
    s.packed_transposed = net.packed_size;
    net.packed_size += s.taps() * s.in_stride * s.out_stride;
  }
  return net;
}

// What is asked for of a batch: the logits, or with targets the gradient.
struct Request {
  Tensor parameters, images, targets, logits, gradient;
  Network net;
};

Request request(const Tensor& parameters, const Tensor& images, const Tensor* targets,
                at::IntArrayRef stages) {
  const auto type = parameters.scalar_type();
  TORCH_CHECK_TYPE(type == at::kFloat || type == at::kDouble, "parameters are ", type,
                   ", allowed are float32 and float64");
  TORCH_CHECK_VALUE(images.dim() == 4 && images.size(0) > 0, "images have shape ", images.sizes(),
                    ", expected (B, C, H, W) with B > 0");
  TORCH_CHECK_TYPE(images.scalar_type() == type, "images are ", images.scalar_type(), ", expected ",
                   type, " as the parameters");
  Request r{parameters.contiguous(), images.contiguous(), {}, {}, {}, {}};
  const long lanes =
      type == at::kFloat ? convnet::kernels<float>().lanes : convnet::kernels<double>().lanes;
  r.net = make_network(images, stages, lanes);
  TORCH_CHECK_VALUE(parameters.sizes() == at::IntArrayRef({r.net.parameters}),
                    "parameters have shape ", parameters.sizes(), ", expected ", r.net.parameters);
  if (!targets) return r;
  const std::vector<int64_t> shape{images.size(0), r.net.classes};
  TORCH_CHECK_VALUE(targets->sizes() == at::IntArrayRef(shape), "targets have shape ",
                    targets->sizes(), ", expected ", at::IntArrayRef(shape));
  TORCH_CHECK_TYPE(targets->scalar_type() == type, "targets are ", targets->scalar_type(),
                   ", expected ", type, " as the parameters");
  r.targets = targets->contiguous();
  return r;
}

// The loss, where there are targets.
template <class T>
double execute(const Request& r) {
  static thread_local Workspace workspace;
  const Kernels<T>& kernels = convnet::kernels<T>().chain;
  const Network& net = r.net;
  const long batch = r.images.size(0), pieces = (batch + kMicroBatch - 1) / kMicroBatch;
  const long slots = std::min<long>(pieces, kMostSlots);
  const auto even = [](long size) { return (size + 63) / 64 * 64; };
  const auto begin = [&](long piece) { return batch * piece / pieces; };
  const bool differentiate = r.targets.defined();
  const long packed = even(net.packed_size), partial = differentiate ? even(net.gradient_size) : 0;
  const long arena = even(kernels.arena(net, std::min<long>(batch, kMicroBatch)));
  const bool parallel = slots > 1 && !at::in_parallel_region();
  const long arenas = parallel ? std::min<long>(slots, at::get_num_threads()) : 1;
  T* weights = workspace.get<T>(packed + arenas * arena + slots * partial);
  T *scratch = weights + packed, *partials = scratch + arenas * arena;
  kernels.pack(net, r.parameters.const_data_ptr<T>(), weights);
  std::vector<double> losses(pieces);
  spread(slots, parallel, [&](long slot, int thread) {
    const long first = pieces * slot / slots, last = pieces * (slot + 1) / slots;
    for (long piece = first; piece < last; ++piece) {
      Job<T> job{};
      job.network = &net, job.weights = weights, job.arena = scratch + thread * arena;
      job.images = r.images.const_data_ptr<T>() + begin(piece) * r.images.stride(0);
      job.count = begin(piece + 1) - begin(piece);
      if (r.logits.defined())
        job.logits = r.logits.mutable_data_ptr<T>() + begin(piece) * net.classes;
      if (differentiate) {
        job.targets = r.targets.const_data_ptr<T>() + begin(piece) * net.classes;
        job.mean = T(1) / T(batch), job.loss = &losses[piece];
        job.gradient = partials + slot * partial, job.accumulate = piece > first;
      }
      kernels.run(job);
    }
  });
  if (differentiate)
    kernels.collect(net, partials, slots, partial, r.gradient.mutable_data_ptr<T>());
  double loss = 0;
  for (const double share : losses) loss += share;
  return loss;
}

double execute(const Request& r) {
  return r.parameters.scalar_type() == at::kFloat ? execute<float>(r) : execute<double>(r);
}

std::tuple<Tensor, Tensor> gradient(const Tensor& parameters, const Tensor& images,
                                    const Tensor& targets, at::IntArrayRef stages) {
  Request r = request(parameters, images, &targets, stages);
  r.gradient = at::empty_like(r.parameters);
  const double loss = execute(r);
  return {at::scalar_tensor(loss, r.parameters.options()), r.gradient};
}

Tensor forward(const Tensor& parameters, const Tensor& images, at::IntArrayRef stages) {
  Request r = request(parameters, images, nullptr, stages);
  r.logits = at::empty({images.size(0), r.net.classes}, r.parameters.options());
  execute(r);
  return r.logits;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(iadd, m) {
  m.def(
      "chain_gradient(Tensor parameters, Tensor images, Tensor targets, int[] stages) -> "
      "(Tensor loss, Tensor gradient)");
  m.def("chain_forward(Tensor parameters, Tensor images, int[] stages) -> Tensor");
}

TORCH_LIBRARY_IMPL(iadd, CPU, m) {
  m.impl("chain_gradient", gradient);
  m.impl("chain_forward", forward);
}

}  // namespace iadd::chain
