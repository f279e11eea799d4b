// The affine families of the augmentation: images moved by a matrix each, sampled bilinearly with
// zeros around, as torch's affine_grid and grid_sample with align_corners do it; and the transpose.
// A grid, which is larger than a grey image twice over, is never laid out.
#include "augment.h"

#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "operators.h"

namespace iadd {
namespace {

using at::Tensor;

// A frame of zeros around the images, which whoever looks beside one sees: two pixels before and
// three behind. What lies further off is taken for one of them.
constexpr int64_t kBefore = 2, kFrame = 5;

// Where a pixel comes from: the upper left of four neighbours, and how far right and down of it.
template <class T>
struct Point {
  int32_t offset;
  T right, down;
};

template <class T>
void find_points(const T* matrix, int64_t y, int64_t height, int64_t width, Point<T>* points) {
  // From -1 to 1, corner to corner.
  const auto place = [](int64_t pixel, int64_t side) {
    return side > 1 ? T(2 * pixel) / T(side - 1) - 1 : T(-1);
  };
  const T v = place(y, height), most_x = T(width + 1), most_y = T(height + 1);
  const T from_x = matrix[1] * v + matrix[2], from_y = matrix[4] * v + matrix[5];
  for (int64_t x = 0; x < width; ++x) {
    const T u = place(x, width);
    const T right = (matrix[0] * u + from_x + 1) / 2 * T(width - 1);
    const T down = (matrix[3] * u + from_y + 1) / 2 * T(height - 1);
    const T far_right = std::min(std::max(T(-2), right), most_x) + kBefore;
    const T far_down = std::min(std::max(T(-2), down), most_y) + kBefore;
    const int32_t left = int32_t(far_right), top = int32_t(far_down);
    points[x] = {int32_t(top * (width + kFrame) + left), far_right - T(left), far_down - T(top)};
  }
}

// `to` (B, C, H, W) becomes samples of `from` or, transposed, what its pixels are the samples of.
template <class T, bool transposed>
void walk(const Tensor& from, const Tensor& matrix, const Tensor& to) {
  const int64_t channels = from.size(1), height = from.size(2), width = from.size(3);
  const int64_t row = width + kFrame, pixels = height * width;
  const int64_t grain = std::max<int64_t>(1, 16384 / from.stride(0));
  at::parallel_for(0, from.size(0), grain, [&](int64_t begin, int64_t end) {
    std::vector<Point<T>> points(pixels);
    std::vector<T> framed(row * (height + kFrame));
    const auto line = [&](int64_t y) { return &framed[(y + kBefore) * row + kBefore]; };
    for (int64_t k = begin * channels; k < end * channels; ++k) {
      const T *in = from.const_data_ptr<T>() + k * pixels, *by = matrix.const_data_ptr<T>();
      T* out = to.mutable_data_ptr<T>() + k * pixels;
      for (int64_t y = 0; y < height; ++y) {
        if (k % channels == 0)
          find_points(by + 6 * (k / channels), y, height, width, &points[y * width]);
        if (!transposed) std::copy_n(in + y * width, width, line(y));
      }
      if (transposed) std::fill(framed.begin(), framed.end(), T(0));
      for (int64_t i = 0; i < pixels; ++i) {
        const auto [offset, right, down] = points[i];
        T* four = framed.data() + offset;
        if constexpr (transposed) {
          const T above = (1 - down) * in[i], below = down * in[i];
          four[0] += (1 - right) * above, four[1] += right * above;
          four[row] += (1 - right) * below, four[row + 1] += right * below;
        } else {
          const T above = (1 - right) * four[0] + right * four[1];
          const T below = (1 - right) * four[row] + right * four[row + 1];
          out[i] = (1 - down) * above + down * below;
        }
      }
      for (int64_t y = 0; y < height && transposed; ++y)
        std::copy_n(line(y), width, out + y * width);
    }
  });
}

#ifdef IADD_WITH_CUDA
template <class T>
void walk_on_card(const Tensor& from, const Tensor& matrix, const Tensor& to, bool transposed) {
  TORCH_CHECK_VALUE(from.size(2) * from.size(3) <= (1 << 28), "images have ", from.size(2), " x ",
                    from.size(3), " pixels, allowed are 2^28");
  const Samples<T> samples{from.size(0),
                           from.size(1),
                           static_cast<int>(from.size(2)),
                           static_cast<int>(from.size(3)),
                           from.const_data_ptr<T>(),
                           matrix.const_data_ptr<T>(),
                           to.mutable_data_ptr<T>()};
  on_device_of(from, [&](void* stream) { return launch(samples, transposed, stream); });
}
#endif

Tensor move(const Tensor& images_, const Tensor& matrix_, bool transposed) {
  TORCH_CHECK_VALUE(images_.dim() == 4, "images have ", images_.dim(),
                    " dimensions, allowed are (B, C, H, W)");
  const Tensor images = images_.contiguous(), matrix = matrix_.contiguous();
  const int64_t count = images.size(0);
  const auto type = images.scalar_type();
  TORCH_CHECK_VALUE(matrix.sizes() == at::IntArrayRef({count, 2, 3}), "matrix has shape ",
                    matrix.sizes(), ", expected one of 2 x 3 for each of ", count, " images");
  TORCH_CHECK_TYPE(matrix.scalar_type() == type, "matrix is ", matrix.scalar_type(), ", expected ",
                   type, " as the images");
  TORCH_CHECK_TYPE(type == at::kFloat || type == at::kDouble, "images are ", type,
                   ", allowed are float32, float64");
  const Tensor out = at::empty_like(images);
  TORCH_CHECK_VALUE(matrix.device() == images.device(), "matrix is on ", matrix.device(),
                    ", expected ", images.device(), " as the images");
  if (!images.numel()) return out;
#ifdef IADD_WITH_CUDA
  if (images.is_cuda()) {
    const auto run = type == at::kFloat ? walk_on_card<float> : walk_on_card<double>;
    run(images, matrix, out, transposed);
    return out;
  }
#endif
  const auto run = type == at::kFloat ? transposed ? walk<float, true> : walk<float, false>
                   : transposed       ? walk<double, true>
                                      : walk<double, false>;
  run(images, matrix, out);
  return out;
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(iadd, m) {
  m.def("affine_sample(Tensor images, Tensor matrix, bool transposed=False) -> Tensor");
}

TORCH_LIBRARY_IMPL(iadd, CPU, m) { m.impl("affine_sample", move); }
#ifdef IADD_WITH_CUDA
TORCH_LIBRARY_IMPL(iadd, CUDA, m) { m.impl("affine_sample", move); }
#endif

}  // namespace iadd
