// Instance norm, ReLU and 2x2 average pool of one plane (an image's channel): forward, backward and
// both in dual numbers. Written once over a `Group` of workers that share a plane: threads of a
// block on a GPU, one worker on a CPU. No torch header here.
//
// With u = (x - mean) r, r = 1 / sqrt(var + eps), a = scale u + shift: y = pool(relu(a)).
// Dual maps hold values, then tangents; dual adjoints hold tangents, then adjoints. Channels are
// the last dimension of a map: a plane's pixels lie `channels` apart, and neighbouring threads work
// on neighbouring channels.
#pragma once

#include <cmath>
#include <cstdint>

#include "both.h"

namespace iadd::block {

constexpr double kEpsilon = 1e-5;

// One problem: `images` x `channels` planes of height x width. Null pointers are of another pass:
// without by_x it is the forward one, without scale_dot no dual one.
template <class T>
struct Problem {
  int64_t images, channels;
  int height, width;
  bool relu, pool;
  const T* x;                      // (images, H, W, channels); dual: (2, images, H, W, channels)
  const T *scale, *shift;          // (channels,)
  const T *scale_dot, *shift_dot;  // (channels,), dual only
  const T* by_y;                   // adjoints (images, h, w, channels); dual: 2 of them
  T* y;                            // (images, h, w, channels); dual: 2 of them
  T* stats;                        // (planes, 2): mean, r; dual (planes, 4): and their tangents'
  T* by_x;                         // like x
  T* parts;                        // (planes, 2): this plane's share of by scale, by shift

  IADD_BOTH int pixels() const { return height * width; }
  IADD_BOTH int pooled_width() const { return pool ? width / 2 : width; }
  IADD_BOTH int outputs() const { return (pool ? height / 2 : height) * pooled_width(); }
  // Elements of one of a dual map's two halves.
  IADD_BOTH int64_t map() const { return images * channels * pixels(); }
  IADD_BOTH int64_t pooled_map() const { return images * channels * outputs(); }
};

// One plane of a map: element i is pixel i.
template <class T>
struct Plane {
  T* first;
  int64_t stride;

  IADD_BOTH Plane(T* map, int64_t image, int64_t channel, int64_t channels, int pixels)
      : first(map + image * pixels * channels + channel), stride(channels) {}
  IADD_BOTH T& operator[](int i) const { return first[i * stride]; }
};

IADD_BOTH float inverse_root(float x) {
#ifdef __CUDA_ARCH__
  return rsqrtf(x);
#else
  return 1 / std::sqrt(x);
#endif
}
IADD_BOTH double inverse_root(double x) { return 1 / sqrt(x); }

// The pixels that share one output: 2x2 with pooling, else one. `output` is -1 for the pixels that
// an odd side leaves out of the pool.
struct Window {
  int output;
  int first, width;   // its upper left pixel, and a row of the plane
  bool right, below;  // whether the plane goes on there

  IADD_BOTH int at(int k) const { return first + k % 2 + k / 2 * width; }
  IADD_BOTH bool inside(int k) const { return (k % 2 == 0 || right) && (k / 2 == 0 || below); }
};

// Call f(window) for this worker's windows of a plane.
template <class Group, class F>
IADD_BOTH void each_window(const Group& group, int height, int width, bool pool, const F& f) {
  if (!pool) {
    for (int i = group.rank(); i < height * width; i += group.size())
      f(Window{i, i, width, false, false});
    return;
  }
  const int columns = (width + 1) / 2, rows = (height + 1) / 2;
  for (int i = group.rank(); i < rows * columns; i += group.size()) {
    const int row = i / columns, column = i - row * columns;
    const bool right = 2 * column + 1 < width, below = 2 * row + 1 < height;
    const int output = right && below ? row * (width / 2) + column : -1;
    f(Window{output, 2 * row * width + 2 * column, width, right, below});
  }
}

template <class T>
IADD_BOTH void load(const Plane<const T>& plane, const Window& w, T (&to)[4]) {
  IADD_UNROLL
  for (int k = 0; k < 4; ++k) to[k] = w.inside(k) ? plane[w.at(k)] : T(0);
}

template <class T>
IADD_BOTH void store(const Plane<T>& plane, const Window& w, const T (&from)[4]) {
  IADD_UNROLL
  for (int k = 0; k < 4; ++k)
    if (w.inside(k)) plane[w.at(k)] = from[k];
}

// Mean and inverse deviation of a plane, in two sweeps.
template <class Group, class T>
IADD_BOTH void moments(const Group& group, const Plane<const T>& x, int pixels, T& mean, T& rate) {
  T total = 0, squares = 0;
  IADD_UNROLL_SOME
  for (int i = group.rank(); i < pixels; i += group.size()) total += x[i];
  mean = group.sum(total) / T(pixels);
  IADD_UNROLL_SOME
  for (int i = group.rank(); i < pixels; i += group.size())
    squares += (x[i] - mean) * (x[i] - mean);
  rate = inverse_root(group.sum(squares) / T(pixels) + T(kEpsilon));
}

// A plane's norm and affine map. With dual, their tangents too; else these are not read.
template <bool dual, class T>
struct Norm {
  T scale, shift, mean, rate;
  T scale_dot = 0, shift_dot = 0, mean_dot = 0, slope = 0;  // slope: mean of unit times tangent

  IADD_BOTH Norm(const Problem<T>& p, int64_t channel)
      : scale(p.scale[channel]), shift(p.shift[channel]) {
    if (dual) scale_dot = p.scale_dot[channel], shift_dot = p.shift_dot[channel];
  }
  IADD_BOTH T unit(T x) const { return (x - mean) * rate; }
  IADD_BOTH T unit_dot(T x_dot, T unit) const { return rate * (x_dot - mean_dot - unit * slope); }
  IADD_BOTH T a(T unit) const { return scale * unit + shift; }
  IADD_BOTH T a_dot(T unit, T unit_dot) const {
    return scale_dot * unit + scale * unit_dot + shift_dot;
  }
};

template <bool dual, class Group, class T>
IADD_BOTH void forward(const Group& group, const Problem<T>& p, int64_t image, int64_t channel) {
  const int pixels = p.pixels();
  const Plane<const T> x(p.x, image, channel, p.channels, pixels);
  const Plane<const T> x_dot(p.x + (dual ? p.map() : 0), image, channel, p.channels, pixels);
  const Plane<T> y(p.y, image, channel, p.channels, p.outputs());
  const Plane<T> y_dot(p.y + (dual ? p.pooled_map() : 0), image, channel, p.channels, p.outputs());
  Norm<dual, T> n(p, channel);
  moments(group, x, pixels, n.mean, n.rate);
  T* stats = p.stats + (dual ? 4 : 2) * (image * p.channels + channel);
  if (group.rank() == 0) stats[0] = n.mean, stats[1] = n.rate;
  if constexpr (dual) {
    T total = 0, slope = 0;
    IADD_UNROLL_SOME
    for (int i = group.rank(); i < pixels; i += group.size()) {
      const T tangent = x_dot[i];
      total += tangent, slope += n.unit(x[i]) * tangent;
    }
    n.mean_dot = group.sum(total) / T(pixels);
    n.slope = group.sum(slope) / T(pixels);
    if (group.rank() == 0) stats[2] = n.mean_dot, stats[3] = n.slope;
  }
  const T share = p.pool ? T(0.25) : T(1);
  each_window(group, p.height, p.width, p.pool, [&](const Window& w) {
    if (w.output < 0) return;
    T value[4], tangent[4], sum = 0, sum_dot = 0;
    load(x, w, value);
    if constexpr (dual) load(x_dot, w, tangent);
    IADD_UNROLL
    for (int k = 0; k < 4; ++k) {
      if (!w.inside(k)) continue;
      const T unit = n.unit(value[k]), a = n.a(unit);
      sum += p.relu && a <= 0 ? T(0) : a;  // NaN is not <= 0: it propagates
      if constexpr (dual)
        sum_dot += !p.relu || a > 0 ? n.a_dot(unit, n.unit_dot(tangent[k], unit)) : T(0);
    }
    y[w.output] = sum * share;
    if constexpr (dual) y_dot[w.output] = sum_dot * share;
  });
}

template <bool dual, class Group, class T>
IADD_BOTH void backward(const Group& group, const Problem<T>& p, int64_t image, int64_t channel) {
  const int pixels = p.pixels(), outputs = p.outputs();
  const int64_t map = dual ? p.map() : 0, pooled = dual ? p.pooled_map() : 0;
  const int64_t plane = image * p.channels + channel;
  const Plane<const T> x(p.x, image, channel, p.channels, pixels);
  const Plane<const T> x_dot(p.x + map, image, channel, p.channels, pixels);
  const Plane<const T> by_y_dot(p.by_y, image, channel, p.channels, outputs);
  const Plane<const T> by_y(p.by_y + pooled, image, channel, p.channels, outputs);
  const Plane<T> by_x_dot(p.by_x, image, channel, p.channels, pixels);
  const Plane<T> by_x(p.by_x + map, image, channel, p.channels, pixels);
  Norm<dual, T> n(p, channel);
  const T* stats = p.stats + (dual ? 4 : 2) * plane;
  n.mean = stats[0], n.rate = stats[1];
  if constexpr (dual) n.mean_dot = stats[2], n.slope = stats[3];
  const T share = p.pool ? T(0.25) : T(1), count = T(pixels);
  T total = 0, along = 0, total_dot = 0, along_dot = 0;
  each_window(group, p.height, p.width, p.pool, [&](const Window& w) {
    if (w.output < 0) return;
    const T seed = by_y[w.output] * share, seed_dot = by_y_dot[w.output] * share;
    T value[4], tangent[4];
    load(x, w, value);
    if constexpr (dual) load(x_dot, w, tangent);
    IADD_UNROLL
    for (int k = 0; k < 4; ++k) {
      const T unit = n.unit(value[k]);
      if (!w.inside(k) || (p.relu && !(n.a(unit) > 0))) continue;
      total += seed, along += seed * unit;
      if constexpr (dual)
        total_dot += seed_dot, along_dot += seed_dot * unit + seed * n.unit_dot(tangent[k], unit);
    }
  });
  total = group.sum(total), along = group.sum(along);
  if constexpr (dual) total_dot = group.sum(total_dot), along_dot = group.sum(along_dot);
  if (group.rank() == 0) {
    p.parts[2 * plane] = dual ? along_dot : along;
    p.parts[2 * plane + 1] = dual ? total_dot : total;
  }
  total /= count, along /= count, total_dot /= count, along_dot /= count;
  const T gain = n.rate * n.scale, gain_dot = n.rate * (n.scale_dot - n.rate * n.slope * n.scale);
  each_window(group, p.height, p.width, p.pool, [&](const Window& w) {
    const T seed = w.output < 0 ? T(0) : by_y[w.output] * share;
    const T seed_dot = w.output < 0 ? T(0) : by_y_dot[w.output] * share;
    T value[4], tangent[4];
    load(x, w, value);
    if constexpr (dual) load(x_dot, w, tangent);
    IADD_UNROLL
    for (int k = 0; k < 4; ++k) {
      const T unit = n.unit(value[k]);
      const bool on = !p.relu || n.a(unit) > 0;
      const T centred = (on ? seed : T(0)) - total - unit * along;
      value[k] = gain * centred;
      if constexpr (dual) {
        const T unit_dot = n.unit_dot(tangent[k], unit);
        tangent[k] = gain_dot * centred + gain * ((on ? seed_dot : T(0)) - total_dot -
                                                  unit_dot * along - unit * along_dot);
      }
    }
    store(by_x, w, value);
    if constexpr (dual) store(by_x_dot, w, tangent);
  });
}

template <bool back, bool dual, class Group, class T>
IADD_BOTH void run(const Group& group, const Problem<T>& p, int64_t image, int64_t channel) {
  back ? backward<dual>(group, p, image, channel) : forward<dual>(group, p, image, channel);
}

#ifdef IADD_WITH_CUDA
// Launch on `stream` (a cudaStream_t); the cudaError_t of the launch, 0 for none.
template <class T>
int launch(const Problem<T>&, void* stream);
#endif

}  // namespace iadd::block
