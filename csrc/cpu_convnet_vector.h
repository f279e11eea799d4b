// One vector register of channels, and the dual number that carries its derivative along.
//
// This and the headers that build on it are compiled once for each instruction set, which the
// including file has chosen by a target pragma and by CONVNET_ISA (a namespace, so that no function
// built for a newer processor is linked elsewhere), CONVNET_VECTOR_BYTES and CONVNET_ACCUMULATORS.
#pragma once

#include "cpu_convnet.h"

#ifndef CONVNET_ISA
#define CONVNET_ISA generic
#define CONVNET_VECTOR_BYTES 16
#define CONVNET_ACCUMULATORS 12
#endif

namespace iadd::convnet::CONVNET_ISA {

#define INLINE inline __attribute__((always_inline))
#define INLINE_LAMBDA __attribute__((always_inline))

// Not std::min: a copy of it compiled here could be linked where the instruction set is missing.
INLINE long smaller(long a, long b) { return a < b ? a : b; }
INLINE long larger(long a, long b) { return a < b ? b : a; }

template <class T>
struct VectorOf {
  typedef T type __attribute__((vector_size(CONVNET_VECTOR_BYTES)));
};
template <class T>
using Vec = typename VectorOf<T>::type;

template <class T>
constexpr long kLanes = CONVNET_VECTOR_BYTES / sizeof(T);

template <class T>
INLINE Vec<T> load(const T* p) {
  Vec<T> v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

template <class T, class V>
INLINE void store(T* p, V v) {
  static_assert(sizeof v == CONVNET_VECTOR_BYTES);
  __builtin_memcpy(p, &v, sizeof v);
}

// `size` is a multiple of a vector.
template <class T>
INLINE void clear(T* p, long size) {
  for (long i = 0; i < size; i += kLanes<T>) store(p + i, Vec<T>{});
}

// One step of Eklundh's transpose: exchanges bit H of the row and of the lane.
template <class T, int H, int... Lane>
INLINE void exchange(Vec<T>& a, Vec<T>& b, std::integer_sequence<int, Lane...>) {
  constexpr int n = kLanes<T>;
  const Vec<T> low = __builtin_shufflevector(a, b, (Lane & H ? n + Lane - H : Lane)...);
  b = __builtin_shufflevector(a, b, (Lane & H ? n + Lane : Lane + H)...);
  a = low;
}

template <class T, int H = kLanes<T> / 2>
INLINE void transpose(Vec<T>* rows) {
#pragma GCC unroll 16
  for (int i = 0; i < kLanes<T>; ++i)
    if (!(i & H))
      exchange<T, H>(rows[i], rows[i + H], std::make_integer_sequence<int, kLanes<T>>{});
  if constexpr (H > 1) transpose<T, H / 2>(rows);
}

template <class T>
INLINE T total(Vec<T> v) {
  T sum = 0;
  for (long i = 0; i < kLanes<T>; ++i) sum += v[i];
  return sum;
}

// The derivative where none is carried along: whatever is done to it, nothing comes of it.
struct None {};
INLINE None operator+(None, None) { return {}; }
INLINE None operator-(None, None) { return {}; }
template <class X>
INLINE None operator*(None, X) {
  return {};
}
template <class X>
INLINE None operator*(X, None) {
  return {};
}

// A value and, with D, its derivative: arithmetic on it is forward-mode differentiation, so that
// one source of the norm and its backward pass serves the gradient and the Hessian-vector product.
template <class T, bool D>
struct Num {
  Vec<T> v;
  [[no_unique_address]] std::conditional_t<D, Vec<T>, None> d;

  INLINE Vec<T> last() const {
    if constexpr (D)
      return d;
    else
      return v;
  }
};

template <class T, bool D>
INLINE Num<T, D> operator+(Num<T, D> a, Num<T, D> b) {
  return {a.v + b.v, a.d + b.d};
}
template <class T, bool D>
INLINE Num<T, D> operator-(Num<T, D> a, Num<T, D> b) {
  return {a.v - b.v, a.d - b.d};
}
template <class T, bool D>
INLINE Num<T, D> operator*(Num<T, D> a, Num<T, D> b) {
  return {a.v * b.v, a.d * b.v + a.v * b.d};
}
template <class T, bool D>
INLINE Num<T, D> operator*(Num<T, D> a, T s) {
  return {a.v * s, a.d * s};
}

// a b + c, written so that each part is a chain of fused operations.
template <class T, bool D>
INLINE Num<T, D> multiply_add(Num<T, D> a, Num<T, D> b, Num<T, D> c) {
  return {a.v * b.v + c.v, a.d * b.v + (a.v * b.d + c.d)};
}

template <class T, bool D>
INLINE Num<T, D> zero_unless(Num<T, D> a, Num<T, D> sign) {
  const auto off = sign.v <= Vec<T>{};  // written so that a NaN passes, as it does in the reference
  a.v = off ? Vec<T>{} : a.v;
  if constexpr (D) a.d = off ? Vec<T>{} : a.d;
  return a;
}

template <class T, bool D>
INLINE Num<T, D> reciprocal_root(Num<T, D> a) {
  Vec<T> root;
  for (long i = 0; i < kLanes<T>; ++i) root[i] = T(1) / std::sqrt(a.v[i]);
  return {root, a.d * root * root * root * T(-0.5)};
}

// Where an array and its derivative lie.
template <class T, bool D>
struct Ref {
  T *v, *d;

  Ref() = default;
  INLINE Ref(T* v, T* d) : v(v), d(d) {}
  template <class U>
  INLINE Ref(Ref<U, D> r)
    requires std::is_same_v<const U, T>
      : v(r.v), d(r.d) {}
  INLINE Ref operator+(long offset) const { return {v + offset, D ? d + offset : nullptr}; }
  INLINE Num<std::remove_const_t<T>, D> get(long vector) const {
    if constexpr (D)
      return {load(v + vector * kLanes<T>), load(d + vector * kLanes<T>)};
    else
      return {load(v + vector * kLanes<T>), {}};
  }
  INLINE void put(long vector, Num<T, D> x) const {
    store(v + vector * kLanes<T>, x.v);
    if constexpr (D) store(d + vector * kLanes<T>, x.d);
  }
  INLINE T* last() const { return D ? d : v; }
};

// What is done to values and to their derivatives alike.
template <bool D, class Body, class... Refs>
INLINE void both(const Body& body, Refs... refs) {
  body(refs.v...);
  if constexpr (D) body(refs.d...);
}

}  // namespace iadd::convnet::CONVNET_ISA
