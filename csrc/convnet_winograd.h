// The transforms of Winograd F(4x4, 3x3) with the points 0, +-3/4, +-3/2 and infinity, which halve
// the rounding error of the usual 0, +-1, +-2 and are exact in binary; each with its transpose: y =
// A^T [(G g G^T) . (B^T x B)] A, so dg = G^T [(A dy A^T) . (B^T x B)] G and dx = B [(A dy A^T) . (G
// g G^T)] B^T. The transformed x serves y and dg, the transformed dy serves dg and dx, the
// transformed g serves y and dx.
#pragma once

template <class T>
struct Points {
  static constexpr T p = T(0.75), q = T(1.5);
  static constexpr T pp = p * p, qq = q * q, s = pp + qq, d = pp * qq;
  static constexpr T g0 = 1 / d, gp = 1 / (2 * pp * (pp - qq)), gq = 1 / (2 * qq * (qq - pp));
};

struct InputTransform {  // B^T: 6 -> 6
  static constexpr int from = 6, to = 6;
  template <class T>
  INLINE static void line(const Vec<T>* x, long i, Vec<T>* y, long j) {
    using C = Points<T>;
    const Vec<T> even_p = x[4 * i] - C::qq * x[2 * i], odd_p = C::p * (x[3 * i] - C::qq * x[i]);
    const Vec<T> even_q = x[4 * i] - C::pp * x[2 * i], odd_q = C::q * (x[3 * i] - C::pp * x[i]);
    y[0] = C::d * x[0] - C::s * x[2 * i] + x[4 * i];
    y[j] = even_p + odd_p;
    y[2 * j] = even_p - odd_p;
    y[3 * j] = even_q + odd_q;
    y[4 * j] = even_q - odd_q;
    y[5 * j] = C::d * x[i] - C::s * x[3 * i] + x[5 * i];
  }
};

struct InputTransposed {  // B: 6 -> 6
  static constexpr int from = 6, to = 6;
  template <class T>
  INLINE static void line(const Vec<T>* x, long i, Vec<T>* y, long j) {
    using C = Points<T>;
    const Vec<T> even_p = x[i] + x[2 * i], odd_p = C::p * (x[i] - x[2 * i]);
    const Vec<T> even_q = x[3 * i] + x[4 * i], odd_q = C::q * (x[3 * i] - x[4 * i]);
    const Vec<T> first = x[0], last = x[5 * i];
    y[0] = C::d * first;
    y[j] = C::d * last - C::qq * odd_p - C::pp * odd_q;
    y[2 * j] = -C::s * first - C::qq * even_p - C::pp * even_q;
    y[3 * j] = odd_p + odd_q - C::s * last;
    y[4 * j] = first + even_p + even_q;
    y[5 * j] = last;
  }
};

struct OutputTransform {  // A^T: 6 -> 4
  static constexpr int from = 6, to = 4;
  template <class T>
  INLINE static void line(const Vec<T>* x, long i, Vec<T>* y, long j) {
    using C = Points<T>;
    const Vec<T> even_p = x[i] + x[2 * i], odd_p = C::p * (x[i] - x[2 * i]);
    const Vec<T> even_q = x[3 * i] + x[4 * i], odd_q = C::q * (x[3 * i] - x[4 * i]);
    y[0] = x[0] + even_p + even_q;
    y[j] = odd_p + odd_q;
    y[2 * j] = C::pp * even_p + C::qq * even_q;
    y[3 * j] = C::pp * odd_p + C::qq * odd_q + x[5 * i];
  }
};

struct OutputTransposed {  // A: 4 -> 6
  static constexpr int from = 4, to = 6;
  template <class T>
  INLINE static void line(const Vec<T>* x, long i, Vec<T>* y, long j) {
    using C = Points<T>;
    const Vec<T> even_p = x[0] + C::pp * x[2 * i], odd_p = C::p * (x[i] + C::pp * x[3 * i]);
    const Vec<T> even_q = x[0] + C::qq * x[2 * i], odd_q = C::q * (x[i] + C::qq * x[3 * i]);
    const Vec<T> first = x[0], last = x[3 * i];
    y[0] = first;
    y[j] = even_p + odd_p;
    y[2 * j] = even_p - odd_p;
    y[3 * j] = even_q + odd_q;
    y[4 * j] = even_q - odd_q;
    y[5 * j] = last;
  }
};

struct WeightTransform {  // G: 3 -> 6
  static constexpr int from = 3, to = 6;
  template <class T>
  INLINE static void line(const Vec<T>* x, long i, Vec<T>* y, long j) {
    using C = Points<T>;
    const Vec<T> even_p = C::gp * (x[0] + C::pp * x[2 * i]), odd_p = C::gp * C::p * x[i];
    const Vec<T> even_q = C::gq * (x[0] + C::qq * x[2 * i]), odd_q = C::gq * C::q * x[i];
    y[0] = C::g0 * x[0];
    y[j] = even_p + odd_p;
    y[2 * j] = even_p - odd_p;
    y[3 * j] = even_q + odd_q;
    y[4 * j] = even_q - odd_q;
    y[5 * j] = x[2 * i];
  }
};

struct WeightTransposed {  // G^T: 6 -> 3
  static constexpr int from = 6, to = 3;
  template <class T>
  INLINE static void line(const Vec<T>* x, long i, Vec<T>* y, long j) {
    using C = Points<T>;
    const Vec<T> even_p = C::gp * (x[i] + x[2 * i]), odd_p = x[i] - x[2 * i];
    const Vec<T> even_q = C::gq * (x[3 * i] + x[4 * i]), odd_q = x[3 * i] - x[4 * i];
    y[0] = C::g0 * x[0] + even_p + even_q;
    y[j] = C::gp * C::p * odd_p + C::gq * C::q * odd_q;
    y[2 * j] = C::pp * even_p + C::qq * even_q + x[5 * i];
  }
};

// Both directions of a square tile: from x from -> to x to.
template <class Transform, class T>
INLINE void transform(const Vec<T>* in, Vec<T>* out) {
  constexpr int n = Transform::from, m = Transform::to;
  Vec<T> half[m * n];
#pragma GCC unroll 8
  for (int c = 0; c < n; ++c) Transform::template line<T>(in + c, n, half + c, n);
#pragma GCC unroll 8
  for (int r = 0; r < m; ++r) Transform::template line<T>(half + r * n, 1, out + r * m, 1);
}

template <class T>
INLINE void load_tile(const T* p, long stride, Vec<T>* tile, int n = kFrequencies) {
#pragma GCC unroll 36
  for (int f = 0; f < n; ++f) tile[f] = load(p + f * stride);
}

template <class T>
INLINE void store_tile(T* p, long stride, const Vec<T>* tile, int n = kFrequencies) {
#pragma GCC unroll 36
  for (int f = 0; f < n; ++f) store(p + f * stride, tile[f]);
}

// A map of one channel block, [pixel][lane], read in tiles with a margin of zeros around it.
template <class Transform, class T>
void map_to_frequencies(const T* map, long height, long width, long margin, T* out, long stride) {
  constexpr int n = Transform::from;
  Vec<T> in[n * n], result[kFrequencies];
  for (long y = -margin; y + margin < height; y += 4)
    for (long x = -margin; x + margin < width; x += 4, out += kLanes<T>) {
      const bool inside = y >= 0 && x >= 0 && y + n <= height && x + n <= width;
      for (int r = 0; r < n; ++r)
        for (int c = 0; c < n; ++c) {
          const bool on = inside || (y + r >= 0 && y + r < height && x + c >= 0 && x + c < width);
          in[r * n + c] = on ? load(map + ((y + r) * width + x + c) * kLanes<T>) : Vec<T>{};
        }
      transform<Transform, T>(in, result);
      store_tile(out, stride, result);
    }
}

// The 4x4 tiles of a convolution's output. `out` is overwritten.
template <class T>
void frequencies_to_map(const T* in, long stride, long height, long width, T* out) {
  Vec<T> tile[kFrequencies], result[16];
  for (long y = 0; y < height; y += 4)
    for (long x = 0; x < width; x += 4, in += kLanes<T>) {
      load_tile(in, stride, tile);
      transform<OutputTransform, T>(tile, result);
      const long rows = height - y < 4 ? height - y : 4, columns = width - x < 4 ? width - x : 4;
      for (long r = 0; r < rows; ++r)
        for (long c = 0; c < columns; ++c)
          store(out + ((y + r) * width + x + c) * kLanes<T>, result[r * 4 + c]);
    }
}

// The overlapping 6x6 tiles of a convolution's input gradient, added up. `out` is overwritten.
template <class T>
void frequencies_to_input(const T* in, long stride, long height, long width, T* out) {
  Vec<T> tile[kFrequencies], result[kFrequencies];
  for (long i = 0; i < height * width; ++i) store(out + i * kLanes<T>, Vec<T>{});
  for (long y = -1; y + 1 < height; y += 4)
    for (long x = -1; x + 1 < width; x += 4, in += kLanes<T>) {
      load_tile(in, stride, tile);
      transform<InputTransposed, T>(tile, result);
      const long top = y < 0 ? 1 : 0, left = x < 0 ? 1 : 0;
      const long bottom = height - y < 6 ? height - y : 6, right = width - x < 6 ? width - x : 6;
      for (long r = top; r < bottom; ++r)
        for (long c = left; c < right; ++c) {
          T* at = out + ((y + r) * width + x + c) * kLanes<T>;
          store(at, load(at) + result[r * 6 + c]);
        }
    }
}
