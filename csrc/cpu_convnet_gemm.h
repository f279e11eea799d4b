// A small matrix product with free strides: C[row][vector] (+)= sum_k A[row][k] B[k][vector].
// Register-blocked; no packing, because every operand is laid out for it when it is written.
#pragma once

#include "cpu_convnet_vector.h"

namespace iadd::convnet::CONVNET_ISA {

// k runs over `outer` runs of `inner` elements, each with its own stride.
template <class T>
struct Product {
  const T* a;
  long a_row, a_inner, a_outer = 0;
  const T* b;
  long b_inner, b_outer = 0, b_vector;
  T* c;
  long c_row, c_vector;
  long inner, outer = 1;
  bool accumulate = false;
  long ahead = 0;  // rows of b to prefetch
};

// Stride is a_row where it is known at compile time, 0 where it is not.
template <class T, long Stride, int R, int N>
void product_block(const Product<T>& p, long row, long vector) {
  const long a_row = Stride ? Stride : p.a_row;
  const T* a = p.a + row * a_row;
  const T* b = p.b + vector * p.b_vector;
  T* c = p.c + row * p.c_row + vector * p.c_vector;
  // Sums over channel blocks in two halves, added up in c: rounding errors grow with a sum's
  // length.
  const long half = Stride == kLanes<T> ? (p.outer + 1) / 2 : p.outer;
  for (long from = 0; from < p.outer; from += half) {
    Vec<T> sum[R][N] = {};
    for (long o = from; o < smaller(from + half, p.outer); ++o) {
      const T* x = a + o * p.a_outer;
      const T* y = b + o * p.b_outer;
      for (long k = 0; k < p.inner; ++k, x += p.a_inner, y += p.b_inner) {
        Vec<T> w[N];
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n) w[n] = load(y + n * p.b_vector);
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
          for (int n = 0; n < N; ++n) sum[r][n] += w[n] * x[r * a_row];
      }
    }
    const bool add = p.accumulate || from > 0;
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
      for (int n = 0; n < N; ++n) {
        T* at = c + r * p.c_row + n * p.c_vector;
        store(at, add ? load(at) + sum[r][n] : sum[r][n]);
      }
  }
}

template <int N>
constexpr int kRows = CONVNET_ACCUMULATORS / N < 12 ? CONVNET_ACCUMULATORS / N : 12;

template <class T, long Stride, int N, int R = kRows<N>>
INLINE void product_rows(const Product<T>& p, long row, long vector, long rows) {
  if (rows == R) return product_block<T, Stride, R, N>(p, row, vector);
  if constexpr (R > 1) product_rows<T, Stride, N, R - 1>(p, row, vector, rows);
}

template <class T, long Stride, int N>
void product_panel(const Product<T>& p, long vector, long rows) {
  // Blocks of nearly equal height, so that no thin remainder runs at a fraction of the speed.
  const long blocks = (rows + kRows<N> - 1) / kRows<N>, height = rows / blocks;
  long taller = rows - height * blocks;
  // The panel after this one follows it in memory (of weights, be it in the next frequency): asked
  // for a little at a time, it is there when its turn comes.
  constexpr long line = 64 / sizeof(T);  // elements of a cache line
  const T* next = p.b + (vector + N) * p.b_vector;
  const long lines = p.ahead ? (p.ahead * N * kLanes<T> / line + blocks - 1) / blocks : 0;
  for (long row = 0; row < rows; --taller) {
    for (long j = 0; j < lines; ++j, next += line) __builtin_prefetch(next);
    const long size = taller > 0 ? height + 1 : height;
    product_rows<T, Stride, N>(p, row, vector, size);
    row += size;
  }
}

// Columns in panels of `Wide` vectors, the rest in narrower ones.
template <class T, long Stride = 0, int Wide = 4>
void multiply(const Product<T>& p, long rows, long vectors) {
  long v = 0;
  for (; v + Wide <= vectors; v += Wide) product_panel<T, Stride, Wide>(p, v, rows);
  for (; v + 2 <= vectors; v += 2) product_panel<T, Stride, 2>(p, v, rows);
  if (v < vectors) product_panel<T, Stride, 1>(p, v, rows);
}

template <class T, bool D>
using In = std::type_identity_t<Ref<const T, D>>;

// c = a * b of arrays and of their derivatives, by the product rule.
template <long Stride, class T, bool D>
void multiply_dual(Product<T> p, In<T, D> a, In<T, D> b, Ref<T, D> c, long rows, long vectors) {
  p.a = a.v, p.b = b.v, p.c = c.v;
  multiply<T, Stride>(p, rows, vectors);
  if constexpr (D) {
    p.a = a.d, p.c = c.d;
    multiply<T, Stride>(p, rows, vectors);
    p.a = a.v, p.b = b.d, p.accumulate = true;
    multiply<T, Stride>(p, rows, vectors);
  }
}

// Only the derivative of a * b, or the product itself without a direction: gradients of weights.
template <bool D, long Stride, int Wide = 4, class T>
void multiply_last(Product<T> p, In<T, D> a, In<T, D> b, T* c, long rows, long vectors) {
  p.a = a.v, p.b = b.last(), p.c = c;
  const bool both = D && a.d;  // images do not move
  if (both && p.outer == 1) {  // both terms in one sum over k, as two runs of it
    p.outer = 2, p.a_outer = a.d - a.v, p.b_outer = b.v - b.d;
    return multiply<T, Stride, Wide>(p, rows, vectors);
  }
  multiply<T, Stride, Wide>(p, rows, vectors);
  if (!both) return;
  p.a = a.d, p.b = b.v, p.accumulate = true;
  multiply<T, Stride, Wide>(p, rows, vectors);
}

}  // namespace iadd::convnet::CONVNET_ISA
