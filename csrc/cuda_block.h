// Instance norm, ReLU and 2x2 average pool of one plane (an image's channel): forward, backward and
// both in dual numbers. Written once over a `Group` of workers that share a plane: a warp or a
// block of threads on a GPU, one worker on a CPU. No torch header here.
//
// With u = (x - mean) r, r = 1 / sqrt(var + eps), a = scale u + shift: y = pool(relu(a)).
// Dual maps hold values, then tangents; dual adjoints hold tangents, then adjoints.
#pragma once

#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#define IADD_BOTH __host__ __device__ inline
#define IADD_UNROLL _Pragma("unroll")
#else
#define IADD_BOTH inline
#define IADD_UNROLL
#endif

namespace iadd::block {

constexpr double kEpsilon = 1e-5;

// One problem: `planes` = images x channels planes of height x width. Null pointers are of another
// pass: without by_x it is the forward one, without scale_dot no dual one. Offsets between the two
// parts of a dual map are whole maps: planes * pixels.
template <class T>
struct Problem {
  int64_t planes, channels;
  int height, width;
  bool relu, pool;
  const T* x;                      // (planes, H, W); dual: (2, planes, H, W)
  const T *scale, *shift;          // (channels,)
  const T *scale_dot, *shift_dot;  // (channels,), dual only
  const T* by_y;                   // adjoints (planes, h, w); dual: (2, planes, h, w)
  T* y;                            // (planes, h, w); dual: (2, planes, h, w)
  T* stats;                        // (planes, 2): mean, r; dual (planes, 4): and their tangents'
  T* by_x;                         // like x
  T* parts;                        // (planes, 2): this plane's share of by scale, by shift

  IADD_BOTH int64_t pixels() const { return int64_t{height} * width; }
  IADD_BOTH int pooled_height() const { return pool ? height / 2 : height; }
  IADD_BOTH int pooled_width() const { return pool ? width / 2 : width; }
  IADD_BOTH int64_t outputs() const { return int64_t{pooled_height()} * pooled_width(); }
};

// Four neighbours of a plane at a time where the plane is a multiple of four and so is its address.
template <class T>
struct alignas(16) Quad {
  T x[4];
};
template <class T>
struct alignas(2 * sizeof(T)) Pair {
  T x[2];
};

template <class T>
IADD_BOTH bool aligned(const T* p, int64_t multiple) {
  return reinterpret_cast<uintptr_t>(p) % (multiple * sizeof(T)) == 0;
}

IADD_BOTH float inverse_root(float x) {
#ifdef __CUDA_ARCH__
  return rsqrtf(x);
#else
  return 1 / std::sqrt(x);
#endif
}
IADD_BOTH double inverse_root(double x) { return 1 / sqrt(x); }

// Call f(value) or f(value, other) for this worker's pixels of a plane (or of two planes alike).
template <class Group, class T, class F>
IADD_BOTH void each(const Group& group, const T* x, const T* other, int pixels, const F& f) {
  if (pixels % 4 == 0 && aligned(x, 16 / sizeof(T)) && aligned(other, 16 / sizeof(T))) {
    for (int i = group.rank() * 4; i < pixels; i += group.size() * 4) {
      const Quad<T> a = *reinterpret_cast<const Quad<T>*>(x + i);
      const Quad<T> b = *reinterpret_cast<const Quad<T>*>(other + i);
      IADD_UNROLL
      for (int k = 0; k < 4; ++k) f(a.x[k], b.x[k]);
    }
  } else {
    for (int i = group.rank(); i < pixels; i += group.size()) f(x[i], other[i]);
  }
}

// The pixels that share one output: 2x2 with pooling, else one. `output` is -1 for the pixels that
// an odd side leaves out of the pool.
struct Window {
  int64_t output;
  int first, width;   // its upper left pixel, and a row of the plane
  bool right, below;  // whether the plane goes on there
  bool pairs;         // all four are there and each row's two can move as one

  IADD_BOTH int at(int k) const { return first + k % 2 + k / 2 * width; }
  IADD_BOTH bool inside(int k) const { return (k % 2 == 0 || right) && (k / 2 == 0 || below); }
};

// Call f(window) for this worker's windows of a plane. `even`: rows are aligned to pairs.
template <class Group, class F>
IADD_BOTH void each_window(const Group& group, int height, int width, bool pool, bool even,
                           const F& f) {
  if (!pool) {
    for (int i = group.rank(); i < height * width; i += group.size())
      f(Window{i, i, width, false, false, false});
    return;
  }
  const int columns = (width + 1) / 2, rows = (height + 1) / 2;
  for (int i = group.rank(); i < rows * columns; i += group.size()) {
    const int row = i / columns, column = i - row * columns;
    const bool right = 2 * column + 1 < width, below = 2 * row + 1 < height, whole = right && below;
    const int64_t output = whole ? int64_t{row} * (width / 2) + column : -1;
    f(Window{output, 2 * row * width + 2 * column, width, right, below, whole && even});
  }
}

template <class T>
IADD_BOTH void load(const T* plane, const Window& w, T (&to)[4]) {
  if (w.pairs) {
    const Pair<T> top = *reinterpret_cast<const Pair<T>*>(plane + w.at(0));
    const Pair<T> bottom = *reinterpret_cast<const Pair<T>*>(plane + w.at(2));
    to[0] = top.x[0], to[1] = top.x[1], to[2] = bottom.x[0], to[3] = bottom.x[1];
  } else {
    IADD_UNROLL
    for (int k = 0; k < 4; ++k) to[k] = w.inside(k) ? plane[w.at(k)] : T(0);
  }
}

template <class T>
IADD_BOTH void store(T* plane, const Window& w, const T (&from)[4]) {
  if (w.pairs) {
    *reinterpret_cast<Pair<T>*>(plane + w.at(0)) = Pair<T>{{from[0], from[1]}};
    *reinterpret_cast<Pair<T>*>(plane + w.at(2)) = Pair<T>{{from[2], from[3]}};
  } else {
    IADD_UNROLL
    for (int k = 0; k < 4; ++k)
      if (w.inside(k)) plane[w.at(k)] = from[k];
  }
}

template <class T>
IADD_BOTH bool even_rows(const Problem<T>& p, const T* first, const T* second) {
  return p.width % 2 == 0 && aligned(first, 2) && aligned(second, 2) && p.pixels() % 2 == 0;
}

// Mean and inverse deviation of a plane, in two sweeps.
template <class Group, class T>
IADD_BOTH void moments(const Group& group, const T* x, int pixels, T& mean, T& rate) {
  T total = 0, squares = 0;
  each(group, x, x, pixels, [&](T value, T) { total += value; });
  mean = group.sum(total) / T(pixels);
  each(group, x, x, pixels, [&](T value, T) { squares += (value - mean) * (value - mean); });
  rate = inverse_root(group.sum(squares) / T(pixels) + T(kEpsilon));
}

// A plane's norm and affine map. With dual, their tangents too; else these are not read.
template <bool dual, class T>
struct Norm {
  T scale, shift, mean, rate;
  T scale_dot = 0, shift_dot = 0, mean_dot = 0, slope = 0;  // slope: mean of unit times tangent

  IADD_BOTH Norm(const Problem<T>& p, int64_t plane)
      : scale(p.scale[plane % p.channels]), shift(p.shift[plane % p.channels]) {
    if (!dual) return;
    scale_dot = p.scale_dot[plane % p.channels], shift_dot = p.shift_dot[plane % p.channels];
  }
  IADD_BOTH T unit(T x) const { return (x - mean) * rate; }
  IADD_BOTH T unit_dot(T x_dot, T unit) const { return rate * (x_dot - mean_dot - unit * slope); }
  IADD_BOTH T a(T unit) const { return scale * unit + shift; }
  IADD_BOTH T a_dot(T unit, T unit_dot) const {
    return scale_dot * unit + scale * unit_dot + shift_dot;
  }
};

template <bool dual, class Group, class T>
IADD_BOTH void forward(const Group& group, const Problem<T>& p, int64_t plane) {
  const int pixels = static_cast<int>(p.pixels());
  const T* x = p.x + plane * p.pixels();
  const T* x_dot = dual ? x + p.planes * p.pixels() : x;
  T* y = p.y + plane * p.outputs();
  Norm<dual, T> n(p, plane);
  moments(group, x, pixels, n.mean, n.rate);
  T* stats = p.stats + (dual ? 4 : 2) * plane;
  if (group.rank() == 0) stats[0] = n.mean, stats[1] = n.rate;
  if constexpr (dual) {
    T total = 0, slope = 0;
    each(group, x, x_dot, pixels,
         [&](T value, T tangent) { total += tangent, slope += n.unit(value) * tangent; });
    n.mean_dot = group.sum(total) / T(pixels);
    n.slope = group.sum(slope) / T(pixels);
    if (group.rank() == 0) stats[2] = n.mean_dot, stats[3] = n.slope;
  }
  const T share = p.pool ? T(0.25) : T(1);
  each_window(group, p.height, p.width, p.pool, even_rows(p, x, x_dot), [&](const Window& w) {
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
    if constexpr (dual) y[p.planes * p.outputs() + w.output] = sum_dot * share;
  });
}

template <bool dual, class Group, class T>
IADD_BOTH void backward(const Group& group, const Problem<T>& p, int64_t plane) {
  const int64_t map = dual ? p.planes * p.pixels() : 0;
  const T *x = p.x + plane * p.pixels(), *x_dot = x + map;
  const T* by_y_dot = p.by_y + plane * p.outputs();
  const T* by_y = by_y_dot + (dual ? p.planes * p.outputs() : 0);
  T *by_x_dot = p.by_x + plane * p.pixels(), *by_x = by_x_dot + map;
  Norm<dual, T> n(p, plane);
  const T* stats = p.stats + (dual ? 4 : 2) * plane;
  n.mean = stats[0], n.rate = stats[1];
  if constexpr (dual) n.mean_dot = stats[2], n.slope = stats[3];
  const T share = p.pool ? T(0.25) : T(1), count = T(p.pixels());
  const bool even = even_rows(p, x, x_dot) && even_rows(p, by_x, by_x_dot);
  T total = 0, along = 0, total_dot = 0, along_dot = 0;
  each_window(group, p.height, p.width, p.pool, even, [&](const Window& w) {
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
  each_window(group, p.height, p.width, p.pool, even, [&](const Window& w) {
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
IADD_BOTH void run(const Group& group, const Problem<T>& p, int64_t plane) {
  back ? backward<dual>(group, p, plane) : forward<dual>(group, p, plane);
}

#ifdef IADD_WITH_CUDA
// Launch on `stream` (a cudaStream_t); the cudaError_t of the launch, 0 for none.
template <class T>
int launch(const Problem<T>&, void* stream);
#endif

}  // namespace iadd::block
