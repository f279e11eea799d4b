// One micro-batch through the network and back; with a direction, the same in dual numbers, whose
// derivative part is the Hessian-vector product (forward over reverse, Pearlmutter 1994).
#pragma once

template <class T, bool D>
struct Pass {
  static constexpr long L = kLanes<T>;
  const Job<T>& job;
  const Network& net;
  Ref<T, D> maps[kMaxDepth], means[kMaxDepth], roots[kMaxDepth], inputs[kMaxDepth];
  Ref<T, D> outputs, plane, map_gradient, features, feature_gradient, logits, logit_gradient;
  T *weight_gradient, *columns, *column_gradient, *whole;

  explicit Pass(const Job<T>& job) : job(job), net(*job.network) {}

  // Lays the arena out; with a null arena it only measures. Returns the elements used.
  long allocate(T* arena, long count) {
    long used = 0;
    auto plain = [&](long size) {
      T* p = arena + used;
      used += (size + 2 * L - 1) / L * L;
      return p;
    };
    auto dual = [&](long size) {
      T* v = plain(size);
      return Ref<T, D>{v, D ? plain(size) : nullptr};
    };
    long largest = 0, panel = 0, pixels = 0, ragged = 0, map = 0;
    for (long i = 0; i < net.depth; ++i) {
      const Layer& l = net.layers[i];
      maps[i] = dual(count * l.out_blocks * l.pixels * L);
      means[i] = dual(count * l.out_blocks * L);
      roots[i] = dual(count * l.out_blocks * L);
      if (i == 0) continue;
      pixels = l.plane > pixels ? l.plane : pixels;
      map = l.pixels > map ? l.pixels : map;
      if (!l.whole && 16 * l.tiles > ragged) ragged = 16 * l.tiles;
      const long size = kFrequencies * net.frequency_maps(l.out_blocks, count * l.tiles);
      inputs[i] = dual(kFrequencies * net.frequency_maps(l.in_blocks, count * l.tiles));
      largest = size > largest ? size : largest;
      const long weights = kFrequencies * panel_stride(l);
      panel = weights > panel ? weights : panel;
    }
    const Layer& first = net.layers[0];
    outputs = dual(largest);
    plane = dual(pixels * L);
    map_gradient = dual(map * L);
    features = dual(count * net.padded_features);
    feature_gradient = dual(count * net.padded_features);
    logits = dual(count * net.classes);
    logit_gradient = dual(count * net.classes);
    weight_gradient = plain(panel);
    columns = plain(9 * first.in * column_stride(first));
    column_gradient = plain(column_blocks(first) * L * first.pixels);
    whole = plain(ragged * L);
    return used;
  }

  // Rows of a weight gradient come a channel block at a time: where registers are few, 4 rows of 3
  // vectors leave no thin remainder of 8. `kShare` vectors of output channels are transformed back
  // together.
  static constexpr bool kFew = CONVNET_ACCUMULATORS < 24;
  static constexpr int kWide = kFew ? 3 : 4;
  static constexpr long kShare = kFew ? 6 : 4;
  static long panel_stride(const Layer& l) { return (kShare * l.in_blocks * L + 1) * L; }
  static long column_stride(const Layer& l) { return l.pixels + L; }
  static long column_blocks(const Layer& l) { return (9 * l.in + L - 1) / L; }

  Ref<const T, D> weights(long offset) const {
    return {job.weights + offset, D ? job.direction + offset : nullptr};
  }
  INLINE Num<T, D> weight(long offset) const {
    if constexpr (D)
      return {load(job.weights + offset), load(job.direction + offset)};
    else
      return {load(job.weights + offset)};
  }
  static INLINE Num<T, D> one() {
    Num<T, D> x{};
    x.v += T(1);
    return x;
  }
  Affine<T, D> affine(const Layer& l, long block) const {
    if (!net.norm) return Affine<T, D>{Num<T, D>{}, Num<T, D>{}};
    return {weight(l.packed_scale + block * L), weight(l.packed_shift + block * L)};
  }

  // c = a * b of arrays and of their derivatives, by the product rule.
  template <long Stride>
  void multiply_dual(Product<T> p, Ref<const T, D> a, Ref<const T, D> b, Ref<T, D> c, long rows,
                     long vectors) const {
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
  template <long Stride, int Wide = 4>
  void multiply_last(Product<T> p, Ref<const T, D> a, Ref<const T, D> b, T* c, long rows,
                     long vectors) const {
    p.c = c;
    p.a = a.v, p.b = D ? b.d : b.v;
    if constexpr (D) {
      if (a.d && p.outer == 1) {  // both terms in one sum over k, as two runs of it
        p.outer = 2, p.a_outer = a.d - a.v, p.b_outer = b.v - b.d;
        return multiply<T, Stride, Wide>(p, rows, vectors);
      }
    }
    multiply<T, Stride, Wide>(p, rows, vectors);
    if constexpr (D) {
      if (!a.d) return;  // images do not move
      p.a = a.d, p.b = b.v, p.accumulate = true;
      multiply<T, Stride, Wide>(p, rows, vectors);
    }
  }

  void run() {
    allocate(job.arena, job.count);
    first_convolution();
    for (long i = 1; i < net.depth; ++i) convolution(i);
    if (job.features) copy_features();
    if (job.kind == Seed::none && !job.logits) return;
    if (job.kind == Seed::features) {
      seed_features();
    } else {
      head_forward();
      if (job.kind == Seed::none) return;
      loss();
      head_backward();
    }
    for (long i = net.depth - 1; i >= 1; --i) convolution_backward(i);
    first_backward();
  }

#include "convnet_convolution.h"
#include "convnet_head.h"
};
