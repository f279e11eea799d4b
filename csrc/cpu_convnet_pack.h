// Parameters from their flat order to the operands of the products, and gradients back. A unit of
// work is a channel block a layer and operand, so that threads can share it.
#pragma once

#include "cpu_convnet_winograd.h"

namespace iadd::convnet::CONVNET_ISA {

// Calls visit(packed, flat, step, lanes) for a channel block's bias, scale and shift: where a
// vector lies packed, and its lanes `step` apart in the flat order.
template <class Visit>
INLINE void each_vector(const Network& net, const Layer& l, const Offsets& packed, long block,
                        const Visit& visit) {
  const long at = block * net.lanes, lanes = smaller(net.lanes, l.out - at);
  visit(packed.bias + at, l.flat.bias + at, 1, lanes);
  if (!net.norm) return;
  visit(packed.scale + at, l.flat.scale + at, 1, lanes);
  visit(packed.shift + at, l.flat.shift + at, 1, lanes);
}

// The same for the head's weight, which begins at `packed`.
template <class Visit>
INLINE void each_head_vector(const Network& net, long packed, const Visit& visit) {
  const Layer& l = net.layers[net.depth - 1];
  const long L = net.lanes;
  for (long k = 0; k < net.classes; ++k)
    for (long block = 0; block < l.out_blocks; ++block)
      for (long i = 0; i < l.pooled; ++i, packed += L)
        visit(packed, net.head_weight + k * net.features + block * L * l.pooled + i, l.pooled,
              smaller(L, l.out - block * L));
}

template <class T>
struct Packer {
  static constexpr long L = kLanes<T>;
  const Network& net;
  const T* parameters;
  T* packed;

  // A vector of `lanes` numbers `step` apart; the rest are zero.
  INLINE void operator()(long to, long from, long step, long lanes) const {
    Vec<T> v{};
    for (long i = 0; i < L; ++i) v[i] = i < lanes ? parameters[from + i * step] : T(0);
    store(packed + to, v);
  }

  void first(const Layer& l, long block) const {
    const long taps = 9 * l.in, at = block * L;
    for (long k = 0; k < taps; ++k)
      (*this)(l.packed.weight + at * taps + k * L, l.flat.weight + at * taps + k, taps, l.out - at);
  }

  // [tap block][output channel][lane]
  void first_transposed(const Layer& l) const {
    const long taps = 9 * l.in, rows = l.out_blocks * L;
    for (long tap = 0; tap < taps; tap += L)
      for (long o = 0; o < rows; ++o)
        (*this)(l.packed_transposed + tap * rows + o * L, l.flat.weight + o * taps + tap, 1,
                o < l.out ? taps - tap : 0);
  }

  // The L x L channels of one pair of blocks, as rows of filters; copied where they are not full.
  const T* filters(const Layer& l, long out_block, long in_block, T* copy, long& stride) const {
    const T* from = parameters + l.flat.weight + (out_block * L * l.in + in_block * L) * 9;
    const long rows = smaller(L, l.out - out_block * L), inputs = smaller(L, l.in - in_block * L);
    stride = 9 * l.in;
    if (rows == L && inputs == L) return from;
    for (long o = 0; o < L; ++o)
      for (long k = 0; k < 9 * L; ++k)
        copy[o * 9 * L + k] = o < rows && k < 9 * inputs ? from[o * stride + k] : T(0);
    stride = 9 * L;
    return copy;
  }

  // [frequency][output block][input channel][lane].
  void transformed(const Layer& l, long out_block, long in_block) const {
    T copy[9 * L * L];
    Vec<T> taps[9 * L];
    long stride;
    const T* from = filters(l, out_block, in_block, copy, stride);
    for (long k = 0; k < 9 * L; k += L) {
      for (long o = 0; o < L; ++o) taps[k + o] = load(from + o * stride + k);
      transpose<T>(taps + k);
    }
    T* to = packed + l.packed.weight + (out_block * l.in_blocks + in_block) * L * L;
    for (long row = 0; row < L; ++row)
      transform<WeightTransform, T>([&](int r, int c)
                                        INLINE_LAMBDA { return taps[row * 9 + r * 3 + c]; },
                                    frequencies(to + row * L, l.frequency_weights));
  }

  void unit(long index) const {
    for (long i = 0; i < net.depth; ++i) {
      const Layer& l = net.layers[i];
      const long inputs = i == 0 ? 1 : l.in_blocks;
      if (index < l.out_blocks * inputs) {
        if (index < l.out_blocks) each_vector(net, l, l.packed, index, *this);
        return i == 0 ? first(l, index) : transformed(l, index / inputs, index % inputs);
      }
      index -= l.out_blocks * inputs;
    }
    first_transposed(net.layers[0]);
    each_head_vector(net, net.packed_head, *this);
    for (long k = 0; k < net.classes; ++k)
      packed[net.packed_head_bias + k] = parameters[net.head_bias + k];
  }
};

// Adds the partial gradients up in order and returns them to the flat order; with a base, as a step
// from it.
template <class T>
struct Collector {
  static constexpr long L = kLanes<T>;
  const Network& net;
  const T* partials;
  long slots, stride;
  const T* base;
  T rate;
  T* out;

  // V is a vector or a single number.
  template <class V>
  static INLINE V read(const T* p) {
    V v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
  }

  template <class V>
  INLINE V sum(long offset) const {
    V v = read<V>(partials + offset);
    for (long s = 1; s < slots; ++s) v += read<V>(partials + s * stride + offset);
    return v;
  }

  template <class V>
  INLINE void put(long at, V v) const {
    if (base) v = read<V>(base + at) - v * rate;
    __builtin_memcpy(out + at, &v, sizeof v);
  }

  INLINE void operator()(long from, long to, long step, long lanes) const {
    const Vec<T> v = sum<Vec<T>>(from);
    for (long o = 0; o < lanes; ++o) put<T>(to + o * step, v[o]);
  }

  void block(const Layer& l, long block) const {
    const long taps = 9 * l.in, lanes = smaller(L, l.out - block * L);
    const long from = l.gradient.weight + block * L * taps, to = l.flat.weight + block * L * taps;
    long k = 0;
    for (; k + L <= taps; k += L) {
      Vec<T> square[L];
      for (long i = 0; i < L; ++i) square[i] = sum<Vec<T>>(from + (k + i) * L);
      transpose<T>(square);
      for (long o = 0; o < lanes; ++o) put(to + o * taps + k, square[o]);
    }
    for (; k < taps; ++k) (*this)(from + k * L, to + k, taps, lanes);
    each_vector(net, l, l.gradient, block, *this);
  }

  void unit(long index) const {
    for (long i = 0; i < net.depth; ++i) {
      const Layer& l = net.layers[i];
      if (index < l.out_blocks) return block(l, index);
      index -= l.out_blocks;
    }
    each_head_vector(net, net.gradient_head, *this);
    for (long k = 0; k < net.classes; ++k)
      put(net.head_bias + k, sum<T>(net.gradient_head_bias + k));
  }
};

}  // namespace iadd::convnet::CONVNET_ISA
