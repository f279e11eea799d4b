// The affine families of the augmentation: images moved by a matrix each, sampled bilinearly with
// zeros around, as torch's affine_grid and grid_sample with align_corners do it; and the transpose.
// Linear in the images, so that each is the other's gradient, to any order. A grid, which is larger
// than a grey image twice over, is never laid out.
#include <ATen/Functions.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdint>
#include <vector>

namespace iadd {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// A thread's working copy of an image, with a frame of zeros that whoever looks beside it sees.
template <class T>
class Canvas {
 public:
  Canvas(int64_t channels, int64_t height, int64_t width)
      : channels_(channels),
        height_(height),
        width_(width),
        row_(width + kFrame),
        plane_(row_ * (height + kFrame)),
        pixels_(channels * plane_),
        points_(width) {}

  void sample(const T* matrix, const T* from, T* to) {
    inside([&](T* own, int64_t at) { std::copy_n(from + at, width_, own); });
    walk(matrix, [&](int64_t c, int64_t at, T* four, T right, T down) {
      const T above = (1 - right) * four[0] + right * four[1];
      const T below = (1 - right) * four[row_] + right * four[row_ + 1];
      to[c * height_ * width_ + at] = (1 - down) * above + down * below;
    });
  }

  // The transpose of `sample`.
  void scatter(const T* matrix, const T* from, T* to) {
    std::fill(pixels_.begin(), pixels_.end(), T(0));
    walk(matrix, [&](int64_t c, int64_t at, T* four, T right, T down) {
      const T value = from[c * height_ * width_ + at];
      const T above = (1 - down) * value, below = down * value;
      four[0] += (1 - right) * above, four[1] += right * above;
      four[row_] += (1 - right) * below, four[row_ + 1] += right * below;
    });
    inside([&](const T* own, int64_t at) { std::copy_n(own, width_, to + at); });
  }

 private:
  // Two pixels before and three behind: what lies further off is taken for one of them.
  static constexpr int64_t kBefore = 2, kFrame = 5;

  struct Point {
    int32_t offset;
    T right, down;
  };

  // row(pixels here, offset in a plain image) for every row.
  template <class Row>
  void inside(const Row& row) {
    for (int64_t c = 0; c < channels_; ++c)
      for (int64_t y = 0; y < height_; ++y)
        row(pixels_.data() + c * plane_ + (y + kBefore) * row_ + kBefore,
            (c * height_ + y) * width_);
  }

  // at(channel, pixel, the upper left of its four neighbours, how far right and down of that).
  template <class At>
  void walk(const T* matrix, const At& at) {
    for (int64_t y = 0; y < height_; ++y) {
      find_points(matrix, y);
      for (int64_t c = 0; c < channels_; ++c) {
        T* plane = pixels_.data() + c * plane_;
        for (int64_t x = 0; x < width_; ++x) {
          const Point& p = points_[x];
          at(c, y * width_ + x, plane + p.offset, p.right, p.down);
        }
      }
    }
  }

  void find_points(const T* matrix, int64_t y) {
    const T v = place(y, height_), most_x = T(width_ + 1), most_y = T(height_ + 1);
    const T from_x = matrix[1] * v + matrix[2], from_y = matrix[4] * v + matrix[5];
    for (int64_t x = 0; x < width_; ++x) {
      const T u = place(x, width_);
      const T right = (matrix[0] * u + from_x + 1) / 2 * T(width_ - 1);
      const T down = (matrix[3] * u + from_y + 1) / 2 * T(height_ - 1);
      const T far_right = std::min(std::max(T(-2), right), most_x) + kBefore;
      const T far_down = std::min(std::max(T(-2), down), most_y) + kBefore;
      const int32_t left = int32_t(far_right), top = int32_t(far_down);
      points_[x] = {int32_t(top * row_ + left), far_right - T(left), far_down - T(top)};
    }
  }

  // From -1 to 1, corner to corner.
  static T place(int64_t pixel, int64_t side) {
    return side > 1 ? T(2 * pixel) / T(side - 1) - 1 : T(-1);
  }

  int64_t channels_, height_, width_, row_, plane_;
  std::vector<T> pixels_;
  std::vector<Point> points_;
};

Tensor move(const Tensor& images_, const Tensor& matrix_, bool transposed) {
  TORCH_CHECK_VALUE(images_.dim() == 4, "images have ", images_.dim(),
                    " dimensions, allowed are (B, C, H, W)");
  const Tensor images = images_.contiguous(), matrix = matrix_.contiguous();
  const int64_t count = images.size(0);
  TORCH_CHECK_VALUE(matrix.sizes() == at::IntArrayRef({count, 2, 3}), "matrix has shape ",
                    matrix.sizes(), ", expected one of 2 x 3 for each of ", count, " images");
  TORCH_CHECK_TYPE(matrix.scalar_type() == images.scalar_type(), "matrix is ", matrix.scalar_type(),
                   ", expected ", images.scalar_type(), " as the images");
  Tensor out = at::empty_like(images);
  auto run = [&]<class T>(T) {
    const T *from = images.const_data_ptr<T>(), *by = matrix.const_data_ptr<T>();
    T* to = out.mutable_data_ptr<T>();
    const int64_t size = images.stride(0), grain = std::max<int64_t>(1, 16384 / size);
    at::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
      Canvas<T> canvas(images.size(1), images.size(2), images.size(3));
      for (int64_t i = begin; i < end; ++i) {
        const T *m = by + 6 * i, *in = from + i * size;
        transposed ? canvas.scatter(m, in, to + i * size) : canvas.sample(m, in, to + i * size);
      }
    });
  };
  if (!images.numel()) return out;
  if (images.scalar_type() == at::kFloat)
    run(float());
  else if (images.scalar_type() == at::kDouble)
    run(double());
  else
    TORCH_CHECK_TYPE(false, "images are ", images.scalar_type(), ", allowed are float32, float64");
  return out;
}

Tensor affine_sample(const Tensor& images, const Tensor& matrix, bool transposed) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("iadd::affine_sample", "")
                             .typed<decltype(affine_sample)>();
  return op.call(images, matrix, transposed);
}

struct AffineSample : torch::autograd::Function<AffineSample> {
  static Tensor forward(AutogradContext* context, const Tensor& images, const Tensor& matrix,
                        bool transposed) {
    const at::AutoDispatchBelowADInplaceOrView below;
    context->save_for_backward({matrix});
    context->saved_data["transposed"] = transposed;
    return affine_sample(images, matrix, transposed);
  }

  static variable_list backward(AutogradContext* context, const variable_list& upstream) {
    if (!upstream[0].defined()) return {Tensor(), Tensor(), Tensor()};
    const Tensor matrix = context->get_saved_variables()[0];
    const bool transposed = context->saved_data["transposed"].toBool();
    return {affine_sample(upstream[0], matrix, !transposed), Tensor(), Tensor()};
  }
};

Tensor affine_sample_autograd(const Tensor& images, const Tensor& matrix, bool transposed) {
  TORCH_CHECK_VALUE(!matrix.requires_grad(), "matrix requires a gradient, allowed a constant only");
  if (at::GradMode::is_enabled() && images.requires_grad())
    return AffineSample::apply(images, matrix, transposed);
  const at::AutoDispatchBelowADInplaceOrView below;
  return affine_sample(images, matrix, transposed);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(iadd, m) {
  m.def("affine_sample(Tensor images, Tensor matrix, bool transposed=False) -> Tensor");
}

TORCH_LIBRARY_IMPL(iadd, Autograd, m) { m.impl("affine_sample", affine_sample_autograd); }

TORCH_LIBRARY_IMPL(iadd, CPU, m) { m.impl("affine_sample", move); }

}  // namespace iadd
