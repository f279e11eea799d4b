// Instance norm, ReLU and average pool of one map of one channel block, forward and backward.
#pragma once

template <class T, bool D>
struct Affine {  // of the norm; `scale` and `shift` are unused without one
  Num<T, D> scale, shift;
  bool norm, relu;

  INLINE Num<T, D> operator()(Num<T, D> x) const { return norm ? scale * x + shift : x; }
};

// Visits every pixel as visit(pixel, window), the pixels of a pooling window one after the other;
// window is -1 for a last odd row or column, which the pool drops.
template <class Visit>
INLINE void each_pixel(const Layer& l, Visit visit) {
  if (!l.pool) {
    for (long i = 0; i < l.pixels; ++i) visit(i, i);
    return;
  }
  for (long y = 0; y < l.pooled_height; ++y)
    for (long x = 0; x < l.pooled_width; ++x) {
      const long first = 2 * y * l.width + 2 * x, window = y * l.pooled_width + x;
      visit(first, window);
      visit(first + 1, window);
      visit(first + l.width, window);
      visit(first + l.width + 1, window);
    }
  for (long y = 0; y < 2 * l.pooled_height; ++y)
    for (long x = 2 * l.pooled_width; x < l.width; ++x) visit(y * l.width + x, -1);
  for (long i = 2 * l.pooled_height * l.width; i < l.pixels; ++i) visit(i, -1);
}

// Sum over the map of term(pixel), in four interleaved chains for speed and accuracy.
template <class T, bool D, class Term>
INLINE Num<T, D> sum_pixels(long pixels, Term term) {
  Num<T, D> sum[4] = {};
  long i = 0;
  for (; i + 4 <= pixels; i += 4)
#pragma GCC unroll 4
    for (long j = 0; j < 4; ++j) sum[j] = sum[j] + term(i + j);
  for (; i < pixels; ++i) sum[0] = sum[0] + term(i);
  return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

// In place: y becomes the normalised map (or y + bias without a norm). Returns 1 / deviation.
template <class T, bool D>
Num<T, D> normalise(const Layer& l, bool norm, Ref<T, D> y, Num<T, D> bias) {
  if (!norm) {
    for (long i = 0; i < l.pixels; ++i) y.put(i, y.get(i) + bias);
    return Num<T, D>{};
  }
  const T share = T(1) / T(l.pixels);
  // The norm takes the bias off again, so it is left out but for a NaN or infinity it may hold.
  const Num<T, D> mean =
      sum_pixels<T, D>(l.pixels, [&](long i) INLINE_LAMBDA { return y.get(i); }) * share +
      bias * T(0);
  Num<T, D> variance = sum_pixels<T, D>(l.pixels,
                                        [&](long i) INLINE_LAMBDA {
                                          const Num<T, D> x = y.get(i) - mean;
                                          return x * x;
                                        }) *
                       share;
  variance.v += T(1e-5);
  const Num<T, D> root = reciprocal_root<T>(variance);
  for (long i = 0; i < l.pixels; ++i) y.put(i, (y.get(i) - mean) * root);
  return root;
}

// out = pool(relu(affine(x))).
template <class T, bool D>
void activate(const Layer& l, const Affine<T, D>& affine, Ref<T, D> x, Ref<T, D> out) {
  auto value = [&](long i) INLINE_LAMBDA {
    const Num<T, D> z = affine(x.get(i));
    return affine.relu ? zero_unless(z, z) : z;
  };
  if (!l.pool) {
    for (long i = 0; i < l.pixels; ++i) out.put(i, value(i));
    return;
  }
  for (long r = 0, window = 0; r < l.pooled_height; ++r)
    for (long c = 0; c < l.pooled_width; ++c, ++window) {
      const long i = 2 * r * l.width + 2 * c;
      out.put(window, ((value(i) + value(i + 1)) + (value(i + l.width) + value(i + l.width + 1))) *
                          T(0.25));
    }
}

template <class T, bool D>
struct BlockGradient {
  Num<T, D> scale, shift;  // shift is the convolution bias' gradient where there is no norm
};

// In place: x becomes the gradient of the convolution's output, given that of the pool's.
template <class T, bool D>
BlockGradient<T, D> differentiate(const Layer& l, const Affine<T, D>& affine, Num<T, D> root,
                                  Ref<T, D> x, Ref<T, D> out_gradient) {
  const T part = l.pool ? T(0.25) : T(1);
  auto before_relu = [&](Num<T, D> at, long window) INLINE_LAMBDA {
    if (window < 0) return Num<T, D>{};
    const Num<T, D> g = out_gradient.get(window) * part;
    return affine.relu ? zero_unless(g, affine(at)) : g;
  };
  BlockGradient<T, D> sum{};
  if (!affine.norm) {
    each_pixel(l, [&](long i, long window) INLINE_LAMBDA {
      const Num<T, D> g = before_relu(x.get(i), window);
      sum.shift = sum.shift + g;
      x.put(i, g);
    });
    return sum;
  }
  each_pixel(l, [&](long i, long window) INLINE_LAMBDA {
    const Num<T, D> at = x.get(i), g = before_relu(at, window);
    sum.shift = sum.shift + g;
    sum.scale = sum.scale + g * at;
  });
  const T share = T(1) / T(l.pixels);
  const Num<T, D> a = sum.shift * share, b = sum.scale * share, k = affine.scale * root;
  each_pixel(l, [&](long i, long window) INLINE_LAMBDA {
    const Num<T, D> at = x.get(i);
    x.put(i, k * (before_relu(at, window) - a - at * b));
  });
  return sum;
}
