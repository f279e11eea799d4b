// The transforms of Winograd F(4x4, 3x3) with the points 0, +-11/16, +-3/2 and infinity, which
// halve the rounding error of the usual 0, +-1, +-2 and are exact in binary; each with its
// transpose: y = A^T [(G g G^T) . (B^T x B)] A, so dg = G^T [(A dy A^T) . (B^T x B)] G and dx = B
// [(A dy A^T) . (G g G^T)] B^T. The transformed x serves y and dg, the transformed dy serves dg and
// dx, the transformed g serves y and dx.
#pragma once

#include "cpu_convnet_vector.h"

namespace iadd::convnet::CONVNET_ISA {

template <class T>
struct Points {
  static constexpr T p = T(0.6875), q = T(1.5);
  static constexpr T pp = p * p, qq = q * q, s = pp + qq, d = pp * qq;
  static constexpr T g0 = 1 / d, gp = 1 / (2 * pp * (pp - qq)), gq = 1 / (2 * qq * (qq - pp));
};

template <int From, int To>
struct Sides {
  static constexpr int from = From, to = To;
};

// Lines 1 to 4, of the points +-p and +-q.
template <class V>
INLINE void put_pairs(V* y, V even_p, V odd_p, V even_q, V odd_q) {
  y[1] = even_p + odd_p, y[2] = even_p - odd_p;
  y[3] = even_q + odd_q, y[4] = even_q - odd_q;
}

struct InputTransform : Sides<6, 6> {  // B^T
  template <class T>
  INLINE static void line(const Vec<T>* x, Vec<T>* y) {
    using C = Points<T>;
    const Vec<T> even_p = x[4] - C::qq * x[2], odd_p = C::p * (x[3] - C::qq * x[1]);
    const Vec<T> even_q = x[4] - C::pp * x[2], odd_q = C::q * (x[3] - C::pp * x[1]);
    y[0] = C::d * x[0] - C::s * x[2] + x[4];
    put_pairs(y, even_p, odd_p, even_q, odd_q);
    y[5] = C::d * x[1] - C::s * x[3] + x[5];
  }
};

struct InputTransposed : Sides<6, 6> {  // B
  template <class T>
  INLINE static void line(const Vec<T>* x, Vec<T>* y) {
    using C = Points<T>;
    const Vec<T> even_p = x[1] + x[2], odd_p = C::p * (x[1] - x[2]);
    const Vec<T> even_q = x[3] + x[4], odd_q = C::q * (x[3] - x[4]);
    const Vec<T> first = x[0], last = x[5];
    y[0] = C::d * first;
    y[1] = C::d * last - C::qq * odd_p - C::pp * odd_q;
    y[2] = -C::s * first - C::qq * even_p - C::pp * even_q;
    y[3] = odd_p + odd_q - C::s * last;
    y[4] = first + even_p + even_q;
    y[5] = last;
  }
};

struct OutputTransform : Sides<6, 4> {  // A^T
  template <class T>
  INLINE static void line(const Vec<T>* x, Vec<T>* y) {
    using C = Points<T>;
    const Vec<T> even_p = x[1] + x[2], odd_p = C::p * (x[1] - x[2]);
    const Vec<T> even_q = x[3] + x[4], odd_q = C::q * (x[3] - x[4]);
    y[0] = x[0] + even_p + even_q;
    y[1] = odd_p + odd_q;
    y[2] = C::pp * even_p + C::qq * even_q;
    y[3] = C::pp * odd_p + C::qq * odd_q + x[5];
  }
};

struct OutputTransposed : Sides<4, 6> {  // A
  template <class T>
  INLINE static void line(const Vec<T>* x, Vec<T>* y) {
    using C = Points<T>;
    const Vec<T> even_p = x[0] + C::pp * x[2], odd_p = C::p * (x[1] + C::pp * x[3]);
    const Vec<T> even_q = x[0] + C::qq * x[2], odd_q = C::q * (x[1] + C::qq * x[3]);
    const Vec<T> first = x[0], last = x[3];
    y[0] = first;
    put_pairs(y, even_p, odd_p, even_q, odd_q);
    y[5] = last;
  }
};

struct WeightTransform : Sides<3, 6> {  // G
  template <class T>
  INLINE static void line(const Vec<T>* x, Vec<T>* y) {
    using C = Points<T>;
    const Vec<T> even_p = C::gp * (x[0] + C::pp * x[2]), odd_p = C::gp * C::p * x[1];
    const Vec<T> even_q = C::gq * (x[0] + C::qq * x[2]), odd_q = C::gq * C::q * x[1];
    y[0] = C::g0 * x[0];
    put_pairs(y, even_p, odd_p, even_q, odd_q);
    y[5] = x[2];
  }
};

struct WeightTransposed : Sides<6, 3> {  // G^T
  template <class T>
  INLINE static void line(const Vec<T>* x, Vec<T>* y) {
    using C = Points<T>;
    const Vec<T> even_p = C::gp * (x[1] + x[2]), odd_p = x[1] - x[2];
    const Vec<T> even_q = C::gq * (x[3] + x[4]), odd_q = x[3] - x[4];
    y[0] = C::g0 * x[0] + even_p + even_q;
    y[1] = C::gp * C::p * odd_p + C::gq * C::q * odd_q;
    y[2] = C::pp * even_p + C::qq * even_q + x[5];
  }
};

// Both directions of a square tile: load(row, column) from x from -> store(row, column, v) to x to.
// One line at a time, so that a register file of 16 holds it.
template <class Transform, class T, class Load, class Store>
INLINE void transform(Load load, Store store) {
  constexpr int n = Transform::from, m = Transform::to;
  Vec<T> half[m * n];
#pragma GCC unroll 8
  for (int c = 0; c < n; ++c) {
    Vec<T> x[n], y[m];
#pragma GCC unroll 8
    for (int r = 0; r < n; ++r) x[r] = load(r, c);
    Transform::template line<T>(x, y);
#pragma GCC unroll 8
    for (int r = 0; r < m; ++r) half[r * n + c] = y[r];
  }
#pragma GCC unroll 8
  for (int r = 0; r < m; ++r) {
    Vec<T> y[m];
    Transform::template line<T>(half + r * n, y);
#pragma GCC unroll 8
    for (int c = 0; c < m; ++c) store(r, c, y[c]);
  }
}

// The frequencies of a tile lie `stride` apart.
template <class T>
INLINE auto frequencies(const T* p, long stride) {
  return [=](int r, int c) INLINE_LAMBDA { return load(p + (r * 6 + c) * stride); };
}
template <class T>
INLINE auto frequencies(T* p, long stride) {
  return [=](int r, int c, Vec<T> v) INLINE_LAMBDA { store(p + (r * 6 + c) * stride, v); };
}

// Calls body(tile, frequencies) for the tiles of one channel block, 4 pixels apart in an array of
// `row` pixels a row; tile(r, c) is where a pixel of it lies.
template <class T, class U, class Body>
INLINE void each_tile(const Layer& l, T* map, long row, U* frequencies, const Body& body) {
  const long tile_rows = l.tile_rows, tile_columns = l.tile_columns;
  for (long y = 0; y < tile_rows; ++y)
    for (long x = 0; x < tile_columns; ++x, frequencies += kLanes<U>) {
      T* tile = map + (4 * y * row + 4 * x) * kLanes<T>;
      body([=](int r, int c) INLINE_LAMBDA { return tile + (r * row + c) * kLanes<T>; },
           frequencies);
    }
}

template <class Transform, class T>
void map_to_frequencies(const Layer& l, const T* map, long row, T* out, long stride) {
  each_tile(l, map, row, out, [&](auto tile, T* to) INLINE_LAMBDA {
    transform<Transform, T>([&](int r, int c) INLINE_LAMBDA { return load(tile(r, c)); },
                            frequencies(to, stride));
  });
}

// The 4x4 tiles of a convolution's output.
template <class T>
void frequencies_to_map(const Layer& l, const T* in, long stride, T* map, long row) {
  each_tile(l, map, row, in, [&](auto tile, const T* from) INLINE_LAMBDA {
    transform<OutputTransform, T>(frequencies(from, stride),
                                  [&](int r, int c, Vec<T> v)
                                      INLINE_LAMBDA { store(tile(r, c), v); });
  });
}

// The overlapping 6x6 tiles of a convolution's input gradient, added up over the whole plane.
template <class T>
void frequencies_to_plane(const Layer& l, const T* in, long stride, T* plane) {
  clear(plane, l.plane * kLanes<T>);
  each_tile(l, plane, l.plane_row, in, [&](auto tile, const T* from) INLINE_LAMBDA {
    transform<InputTransposed, T>(frequencies(from, stride),
                                  [&](int r, int c, Vec<T> v)
                                      INLINE_LAMBDA { store(tile(r, c), load(tile(r, c)) + v); });
  });
}

}  // namespace iadd::convnet::CONVNET_ISA
