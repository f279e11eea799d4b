// Parameters from their flat order to the operands of the products.
#pragma once

#include "cpu_convnet_winograd.h"

namespace iadd::convnet::CONVNET_ISA {

// One unit of work a channel block a layer and operand, so that threads can share it.
template <class T>
struct Packer {
  static constexpr long L = kLanes<T>;
  const Network& net;
  const T* parameters;
  T* packed;

  // Lanes run over output channels (forward) or input channels (transposed); the rest are zero.
  Vec<T> gather(const T* from, long stride, long lanes) const {
    Vec<T> v{};
    for (long i = 0; i < L; ++i) v[i] = i < lanes ? from[i * stride] : T(0);
    return v;
  }

  void first(const Layer& l, long block) const {
    const long taps = 9 * l.in;
    for (long k = 0; k < taps; ++k)
      store(packed + l.packed_weight + (block * taps + k) * L,
            gather(parameters + l.weight + block * L * taps + k, taps, l.out - block * L));
  }

  // [tap block][output channel][lane]
  void first_transposed(const Layer& l, long block) const {
    const long taps = 9 * l.in, rows = l.out_blocks * L;
    for (long o = 0; o < rows; ++o) {
      const long lanes = o < l.out ? taps - block * L : 0;
      store(packed + l.packed_transposed + (block * rows + o) * L,
            gather(parameters + l.weight + o * taps + block * L, 1, lanes));
    }
  }

  // The L x L channels of one pair of blocks, as rows of filters; copied where they are not full.
  const T* filters(const Layer& l, long out_block, long in_block, T* copy, long& stride) const {
    const T* from = parameters + l.weight + (out_block * L * l.in + in_block * L) * 9;
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
    T* to = packed + l.packed_weight + (out_block * l.in_blocks + in_block) * L * L;
    for (long row = 0; row < L; ++row)
      transform<WeightTransform, T>([&](int r, int c)
                                        INLINE_LAMBDA { return taps[row * 9 + r * 3 + c]; },
                                    frequencies(to + row * L, l.frequency_weights));
  }

  void vectors(const Layer& l, long block) const {
    const long lanes = l.out - block * L;
    store(packed + l.packed_bias + block * L, gather(parameters + l.bias + block * L, 1, lanes));
    if (!net.norm) return;
    store(packed + l.packed_scale + block * L, gather(parameters + l.scale + block * L, 1, lanes));
    store(packed + l.packed_shift + block * L, gather(parameters + l.shift + block * L, 1, lanes));
  }

  void head() const {
    const Layer& l = net.layers[net.depth - 1];
    for (long k = 0; k < net.classes; ++k)
      for (long block = 0; block < l.out_blocks; ++block)
        for (long i = 0; i < l.pooled; ++i)
          store(packed + net.packed_head + k * net.padded_features + (block * l.pooled + i) * L,
                gather(parameters + net.head_weight + k * net.features + block * L * l.pooled + i,
                       l.pooled, l.out - block * L));
    for (long k = 0; k < net.classes; ++k)
      packed[net.packed_head_bias + k] = parameters[net.head_bias + k];
  }

  void unit(long index) const {
    for (long i = 0; i < net.depth; ++i) {
      const Layer& l = net.layers[i];
      const long inputs = i == 0 ? 1 : l.in_blocks;
      if (index < l.out_blocks * inputs) {
        if (index < l.out_blocks) vectors(l, index);
        return i == 0 ? first(l, index) : transformed(l, index / inputs, index % inputs);
      }
      index -= l.out_blocks * inputs;
    }
    for (long k = 0; k < (9 * net.channels + L - 1) / L; ++k) first_transposed(net.layers[0], k);
    head();
  }
};

template <class T>
void pack(const Network& net, const T* parameters, T* packed, long begin, long end) {
  for (long i = begin; i < end; ++i) Packer<T>{net, parameters, packed}.unit(i);
}

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
  static INLINE void write(T* p, V v) {
    __builtin_memcpy(p, &v, sizeof v);
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
    write(out + at, v);
  }

  void block(const Layer& l, long block) const {
    const long taps = 9 * l.in, lanes = smaller(L, l.out - block * L);
    const long from = l.gradient_weight + block * L * taps;
    const long to = l.weight + block * L * taps;
    long k = 0;
    for (; k + L <= taps; k += L) {
      Vec<T> square[L];
      for (long i = 0; i < L; ++i) square[i] = sum<Vec<T>>(from + (k + i) * L);
      transpose<T>(square);
      for (long o = 0; o < lanes; ++o) put(to + o * taps + k, square[o]);
    }
    for (; k < taps; ++k) vector(from + k * L, to + k, taps, lanes);
    vector(l.gradient_bias + block * L, l.bias + block * L, 1, lanes);
    if (!net.norm) return;
    vector(l.gradient_scale + block * L, l.scale + block * L, 1, lanes);
    vector(l.gradient_shift + block * L, l.shift + block * L, 1, lanes);
  }

  void vector(long from, long to, long step, long lanes) const {
    const Vec<T> v = sum<Vec<T>>(from);
    for (long o = 0; o < lanes; ++o) put<T>(to + o * step, v[o]);
  }

  void head() const {
    const Layer& l = net.layers[net.depth - 1];
    for (long k = 0; k < net.classes; ++k)
      for (long b = 0; b < l.out_blocks; ++b)
        for (long i = 0; i < l.pooled; ++i)
          vector(net.gradient_head + k * net.padded_features + (b * l.pooled + i) * L,
                 net.head_weight + k * net.features + b * L * l.pooled + i, l.pooled,
                 smaller(L, l.out - b * L));
    for (long k = 0; k < net.classes; ++k)
      put(net.head_bias + k, sum<T>(net.gradient_head_bias + k));
  }

  void unit(long index) const {
    for (long i = 0; i < net.depth; ++i) {
      const Layer& l = net.layers[i];
      if (index < l.out_blocks) return block(l, index);
      index -= l.out_blocks;
    }
    head();
  }
};

template <class T>
void collect(const Network& net, const T* partials, long slots, long stride, const T* base, T rate,
             T* out, long begin, long end) {
  const Collector<T> collector{net, partials, slots, stride, base, rate, out};
  for (long i = begin; i < end; ++i) collector.unit(i);
}

}  // namespace iadd::convnet::CONVNET_ISA
