// The dispatcher operators that take images to patches and back; see patches.h.
#include "patches.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include "operators.h"

namespace iadd::patches {
namespace {

using at::Tensor;

template <class T>
void run(const Tensor& from, const Tensor& to, const Tensor& images, bool adjoint) {
  Problem<T> p{};
  p.batch = images.size(0), p.channels = images.size(1);
  p.height = static_cast<int>(images.size(2)), p.width = static_cast<int>(images.size(3));
  p.from = from.const_data_ptr<T>(), p.to = to.mutable_data_ptr<T>();
#ifdef IADD_WITH_CUDA
  if (from.is_cuda()) {
    on_device_of(from, [&](void* stream) { return launch(p, adjoint, stream); });
    return;
  }
#endif
  at::parallel_for(0, to.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) adjoint ? p.scatter(i) : p.gather(i);
  });
}

void start(const Tensor& from, const Tensor& to, const Tensor& images, bool adjoint) {
  TORCH_CHECK_TYPE(from.scalar_type() == at::kFloat || from.scalar_type() == at::kDouble, "x is ",
                   from.scalar_type(), ", allowed are float32 and float64");
  TORCH_CHECK_VALUE(images.size(2) <= (1 << 15) && images.size(3) <= (1 << 15), "images of ",
                    images.size(2), " x ", images.size(3), ", allowed are sides of 2^15");
  const auto way = from.scalar_type() == at::kFloat ? run<float> : run<double>;
  way(from, to, images, adjoint);
}

// (B, C, H, W) -> (B H W, 9 C)
Tensor patches(const Tensor& given) {
  TORCH_CHECK_VALUE(given.dim() == 4, "images have shape ", given.sizes(),
                    ", expected (B, C, H, W)");
  const Tensor images = given.contiguous();
  const int64_t pixels = images.size(0) * images.size(2) * images.size(3);
  const Tensor rows = at::empty({pixels, 9 * images.size(1)}, images.options());
  start(images, rows, images, false);
  return rows;
}

// (B H W, 9 C) -> (B, C, H, W), the adjoint
Tensor patches_adjoint(const Tensor& given, int64_t batch, int64_t height, int64_t width) {
  TORCH_CHECK_VALUE(
      given.dim() == 2 && given.size(0) == batch * height * width && given.size(1) % 9 == 0,
      "rows have shape ", given.sizes(), ", expected (", batch * height * width, ", 9 C)");
  const Tensor rows = given.contiguous();
  const Tensor images = at::empty({batch, rows.size(1) / 9, height, width}, rows.options());
  start(rows, images, images, true);
  return images;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(iadd, m) {
  m.def("patches(Tensor images) -> Tensor");
  m.def("patches_adjoint(Tensor rows, int batch, int height, int width) -> Tensor");
}
TORCH_LIBRARY_IMPL(iadd, CPU, m) {
  m.impl("patches", patches);
  m.impl("patches_adjoint", patches_adjoint);
}
#ifdef IADD_WITH_CUDA
TORCH_LIBRARY_IMPL(iadd, CUDA, m) {
  m.impl("patches", patches);
  m.impl("patches_adjoint", patches_adjoint);
}
#endif

}  // namespace iadd::patches
