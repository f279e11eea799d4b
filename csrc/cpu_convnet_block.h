// Instance norm, ReLU and average pool of one map of one channel block, forward and backward.
#pragma once

#include "cpu_convnet_vector.h"

namespace iadd::convnet::CONVNET_ISA {

// What is decided once a network and not once a pixel.
template <bool Norm, bool Relu>
struct Form {
  static constexpr bool norm = Norm, relu = Relu;
};

template <class Body>
INLINE void with_form(bool norm, bool relu, Body body) {
  if (norm && relu) return body(Form<true, true>{});
  if (norm) return body(Form<true, false>{});
  if (relu) return body(Form<false, true>{});
  body(Form<false, false>{});
}

template <int P>
struct Pixels {};

// Visits a map as visit(Pixels<P>, pixel, window): P pixels from `pixel` on are the pooling window
// that lies at `window` in an array of `row` a row: 4 (see corner), or 1 without a pool. A last
// odd row or column, which the pool drops, as drop(pixel).
template <class Visit, class Drop>
INLINE void each_window(const Layer& l, long row, Visit visit, Drop drop) {
  // Copies: to the compiler, a store of a vector might change what is behind a reference.
  const long width = l.width, height = l.height, columns = l.pooled_width, rows = l.pooled_height;
  if (!l.pool) {
    for (long y = 0; y < height; ++y)
      for (long x = 0; x < width; ++x) visit(Pixels<1>{}, y * width + x, y * row + x);
    return;
  }
  for (long y = 0; y < rows; ++y)
    for (long x = 0; x < columns; ++x) visit(Pixels<4>{}, 2 * y * width + 2 * x, y * row + x);
  for (long y = 0; y < 2 * rows; ++y)
    for (long x = 2 * columns; x < width; ++x) drop(y * width + x);
  for (long i = 2 * rows * width; i < width * height; ++i) drop(i);
}

// Where pixel p of a window lies.
INLINE long corner(long width, int p) { return p / 2 * width + p % 2; }

template <class T, bool D>
INLINE Num<T, D> total(const Num<T, D> (&x)[1]) {
  return x[0];
}
template <class T, bool D>
INLINE Num<T, D> total(const Num<T, D> (&x)[4]) {
  return (x[0] + x[1]) + (x[2] + x[3]);
}

// Sum of term(i) over i < count, in four interleaved chains for speed and accuracy.
template <class T, bool D, class Term>
INLINE Num<T, D> sum_over(long count, Term term) {
  Num<T, D> sum[4] = {};
  long i = 0;
  for (; i + 4 <= count; i += 4)
#pragma GCC unroll 4
    for (long j = 0; j < 4; ++j) sum[j] = sum[j] + term(i + j);
  for (; i < count; ++i) sum[0] = sum[0] + term(i);
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

template <class T, bool D>
struct Moments {
  Num<T, D> mean, root;  // root: 1 / deviation
};

// Of one map, read once: mean and squared deviations a chunk that stays in the cache, then merged
// (Chan, Golub & LeVeque 1983), which is as accurate as two passes over all of it.
template <class T, bool D>
Moments<T, D> moments(long pixels, Ref<T, D> y) {
  constexpr long chunk = 64;
  Num<T, D> mean{}, squares{};
  for (long begin = 0; begin < pixels; begin += chunk) {
    const long count = smaller(chunk, pixels - begin);
    const Ref<T, D> part = y + begin * kLanes<T>;
    const Num<T, D> middle =
        sum_over<T, D>(count, [&](long i) INLINE_LAMBDA { return part.get(i); }) *
        (T(1) / T(count));
    squares = squares + sum_over<T, D>(count, [&](long i) INLINE_LAMBDA {
                const Num<T, D> x = part.get(i) - middle;
                return x * x;
              });
    const T share = T(count) / T(begin + count);
    const Num<T, D> apart = middle - mean;
    mean = mean + apart * share;
    squares = squares + apart * apart * (T(begin) * share);
  }
  Num<T, D> variance = squares * (T(1) / T(pixels));
  variance.v += T(1e-5);
  return {mean, reciprocal_root(variance)};
}

// What the ReLU sees of a convolution's output y, slope y + offset: the norm with its affine map,
// or the bias, which has slope 1.
template <class F, class T, bool D>
struct Line {
  Num<T, D> slope, offset;

  INLINE Num<T, D> operator()(Num<T, D> y) const {
    return F::norm ? multiply_add(y, slope, offset) : y + offset;
  }
};

// out = pool(relu(line(y))), `row` vectors a row.
template <class F, class T, bool D>
void activate(const Layer& l, const Line<F, T, D> line, Ref<T, D> y, Ref<T, D> out, long row) {
  const long width = l.width;
  auto visit = [&]<int P>(Pixels<P>, long first, long window) INLINE_LAMBDA {
    Num<T, D> z[P];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      z[p] = line(y.get(first + corner(width, p)));
      if (F::relu) z[p] = zero_unless(z[p], z[p]);
    }
    out.put(window, P == 1 ? z[0] : total(z) * T(0.25));
  };
  each_window(l, row, visit, [](long) INLINE_LAMBDA {});
}

template <class T, bool D>
struct BlockGradient {
  Num<T, D> scale, shift;  // shift is the convolution bias' gradient where there is no norm
};

// x becomes the gradient of the convolution's output y, given that of the pool's, which lies `row`
// vectors a row. In place where x is y.
template <class F, class T, bool D>
BlockGradient<T, D> differentiate(const Layer& l, const Line<F, T, D> line, const Moments<T, D> m,
                                  Ref<T, D> y, Ref<T, D> out_gradient, long row, Ref<T, D> x) {
  const long width = l.width;
  const T part = l.pool ? T(0.25) : T(1), share = T(1) / T(l.pixels);
  auto before_relu = [&](Num<T, D> g, Num<T, D> at)
                         INLINE_LAMBDA { return F::relu ? zero_unless(g, line(at)) : g; };
  BlockGradient<T, D> sum{};
  auto add = [&]<int P>(Pixels<P>, long first, long window) INLINE_LAMBDA {
    const Num<T, D> g = out_gradient.get(window) * part;
    Num<T, D> shift[P], scale[P];
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const Num<T, D> at = y.get(first + corner(width, p));
      shift[p] = before_relu(g, at);
      if (F::norm) scale[p] = shift[p] * (at - m.mean);
      if (!F::norm) x.put(first + corner(width, p), shift[p]);
    }
    sum.shift = sum.shift + total(shift);
    if (F::norm) sum.scale = sum.scale + total(scale);
  };
  each_window(l, row, add, [&](long i) INLINE_LAMBDA {
    if (!F::norm) x.put(i, Num<T, D>{});
  });
  if (!F::norm) return sum;
  sum.scale = sum.scale * m.root;
  // With u = (y - mean) root: slope (g - mean(g) - u mean(g u)), with slope taken into every term.
  const Num<T, D> b = line.slope * (sum.scale * share) * m.root;
  const Num<T, D> a = line.slope * (sum.shift * share) - m.mean * b;
  auto pull_back = [&]<int P>(Pixels<P>, long first, long window) INLINE_LAMBDA {
    const Num<T, D> g = line.slope * (out_gradient.get(window) * part);
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
      const Num<T, D> at = y.get(first + corner(width, p));
      x.put(first + corner(width, p), before_relu(g, at) - multiply_add(at, b, a));
    }
  };
  each_window(l, row, pull_back,
              [&](long i) INLINE_LAMBDA { x.put(i, Num<T, D>{} - multiply_add(y.get(i), b, a)); });
  return sum;
}

}  // namespace iadd::convnet::CONVNET_ISA
