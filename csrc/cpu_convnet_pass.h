// One micro-batch through the network and back; with a direction, the same in dual numbers, whose
// derivative part is the Hessian-vector product (forward over reverse, Pearlmutter 1994). Every
// stage is a number of independent units, which the threads at hand take one after the other; sums
// are always within a unit, so that neither their number nor their pace changes a bit.
#pragma once

#include "cpu_convnet_block.h"
#include "cpu_convnet_gemm.h"
#include "cpu_convnet_winograd.h"

namespace iadd::convnet::CONVNET_ISA {

template <class T, bool D>
struct Pass {
  static constexpr long L = kLanes<T>;
  const Job<T>& job;
  const Network& net;
  Ref<T, D> maps[kMaxDepth], means[kMaxDepth], roots[kMaxDepth], inputs[kMaxDepth];
  Ref<T, D> outputs, features, feature_gradient, logits, logit_gradient;
  T *columns, *weight_gradient, *first_gradients;

  // What one thread works in.
  struct Scratch {
    Ref<T, D> plane, map_gradient, panel;
    T *column_gradient, *framed, *whole;
  };
  T* scratches;
  long shared_size, scratch_size;

  // Arrays one after the other; from null on it only measures.
  struct Layout {
    T* arena;
    long used = 0;

    T* plain(long size) {
      T* p = arena + used;
      used += (size + 2 * L - 1) / L * L;
      return p;
    }
    Ref<T, D> dual(long size) {
      T* v = plain(size);
      return {v, D ? plain(size) : nullptr};
    }
  };

  explicit Pass(const Job<T>& job) : job(job), net(*job.network) {
    Layout layout{job.arena};
    const long count = job.count;
    const Layer& first = net.layers[0];
    long largest = 0, weights = 0;
    for (long i = 0; i < net.depth; ++i) {
      const Layer& l = net.layers[i];
      maps[i] = layout.dual(count * l.out_blocks * l.pixels * L);
      means[i] = layout.dual(count * l.out_blocks * L);
      roots[i] = layout.dual(count * l.out_blocks * L);
      if (i == 0) continue;
      inputs[i] = layout.dual(kFrequencies * frequency_stride(l, l.in_blocks));
      largest = larger(largest, kFrequencies * frequency_stride(l, l.out_blocks));
      weights = larger(weights, kFrequencies * l.frequency_weights);
    }
    outputs = layout.dual(largest);
    weight_gradient = layout.plain(weights);
    first_gradients = layout.plain(count * first_gradient_size(first));
    columns = layout.plain(count * 9 * first.in * column_stride(first));
    features = layout.dual(count * net.padded_features);
    feature_gradient = layout.dual(count * net.padded_features);
    logits = layout.dual(count * net.classes);
    logit_gradient = layout.dual(count * net.classes);
    shared_size = layout.used;
    scratches = job.arena + shared_size;
    Layout own{scratches};
    lay_out(own);
    scratch_size = own.used;
  }

  Scratch lay_out(Layout& own) const {
    const Layer& first = net.layers[0];
    long plane = 0, map = smaller(kPanel, first.out_blocks) * first.pixels, panel = 0, ragged = 0;
    for (long i = 1; i < net.depth; ++i) {
      const Layer& l = net.layers[i];
      plane = larger(plane, l.plane);
      map = larger(map, l.pixels);
      panel = larger(panel, smaller(kPanel, l.in_blocks) * l.out_blocks * L * L);
      if (!l.whole) ragged = larger(ragged, 16 * l.tiles);
    }
    return {own.dual(plane * L),
            own.dual(map * L),
            own.dual(panel),
            own.plain(column_blocks(first) * L * first.pixels),
            own.plain(first.in * (first.height + 2) * (first.width + 2) + L),
            own.plain(ragged * L)};
  }

  long size(long threads) const { return shared_size + threads * scratch_size; }

  // unit(index, scratch) for every index below `count`.
  template <class Unit>
  void each(long count, const Unit& unit) const {
    struct Context {
      const Pass& pass;
      const Unit& unit;
    } context{*this, unit};
    const Task task = [](void* context, long index, long thread) {
      const auto& [pass, unit] = *static_cast<Context*>(context);
      Layout own{pass.scratches + thread * pass.scratch_size};
      unit(index, pass.lay_out(own));
    };
    if (job.spread) return job.spread(count, &context, task);
    Layout own{scratches};
    const Scratch scratch = lay_out(own);  // once: small networks have small units
    for (long i = 0; i < count; ++i) unit(i, scratch);
  }

  // Vectors of output channels that a weight gradient takes at once: where registers are few, 3, as
  // its rows come 8 at a time and 4 by 3 leaves no thin remainder of them.
  static constexpr int kWide = CONVNET_ACCUMULATORS < 24 ? 3 : 4;
  static constexpr long kRun = 96;  // tiles
  // In the Winograd domain, between the tiles of two channel blocks and between two frequencies.
  // Odd numbers of vectors, so that what is used together spreads over the sets of the caches.
  long block_stride(const Layer& l) const { return (job.count * l.tiles | 1) * L; }
  long frequency_stride(const Layer& l, long blocks) const { return blocks * block_stride(l) + L; }
  // The first layer's part of the packed gradient.
  static long first_gradient_size(const Layer& l) { return l.gradient_shift + l.out_blocks * L; }
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
  template <class F>
  Line<F, T, D> line(const Layer& l, long block, const Moments<T, D>& m) const {
    if (!F::norm) return {Num<T, D>{}, weight(l.packed_bias + block * L)};
    const Num<T, D> slope = weight(l.packed_scale + block * L) * m.root;
    return {slope, weight(l.packed_shift + block * L) - m.mean * slope};
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

  // One channel block of one image's plane, or of the features, as the block before it writes it.
  struct Place {
    Ref<T, D> at;
    long row;
  };

  // In cpu_convnet_convolution.h: the convolutions with what follows them, forward and backward.
  Place features_of(Ref<T, D> all, const Layer& l, long image, long block) const;
  static Place inside(const Layer& l, Ref<T, D> plane);
  Ref<T, D> tiles_of(Ref<T, D> all, const Layer& l, long image, long block) const;
  static void clear_margin(const Layer& l, T* plane);
  void finish_block(long i, long image, long block, const Scratch& s) const;
  static Product<T> over_channels(long stride, long blocks);
  void convolution(long i) const;
  static void write_map(const Layer& l, const T* in, long stride, T* map, T* whole);
  static void read_map(const Layer& l, const T* map, T* out, long stride, T* whole);
  static Ref<const T, D> constant(Ref<T, D> r);
  void frame(const T* image, T* framed) const;
  void unfold(const T* image, T* columns, T* framed) const;
  T* columns_of(long image) const;
  void first_convolution() const;
  static INLINE void add_to(T* at, Vec<T> g, bool accumulate);
  void differentiate_block(long i, long image, long block, Ref<T, D> to, T* gradient, bool more,
                           const Scratch& s) const;
  Place output_gradient(long i, long image, long block, Ref<T, D> plane) const;
  void convolution_backward(long i) const;
  void differentiate_weights(const Layer& l, Ref<const T, D> in, Ref<const T, D> out,
                             T* gradient) const;
  void differentiate_inputs(const Layer& l, Ref<const T, D> weight, Ref<const T, D> out,
                            Ref<T, D> in, Ref<T, D> panel) const;
  static void transpose_weights(const Layer& l, const T* from, long block, long blocks, T* to);
  void first_backward() const;
  void differentiate_first_weights(long image, Ref<const T, D> map, T* gradient, long blocks) const;
  void differentiate_columns(Ref<const T, D> map, long block, long blocks, T* gradient) const;
  void fold(const T* gradient, T* framed, T* out) const;
  static Ref<const T, D> swapped(Ref<const T, D> r);

  // In cpu_convnet_head.h: the linear head and the cross-entropy with soft targets.
  void copy_features();
  void seed_features();
  INLINE Num<T, D> dot(Ref<const T, D> a, Ref<const T, D> b, long vectors) const;
  static INLINE Num<T, D> get(Ref<const T, D> r, long vector);
  void head_forward() const;
  void loss();
  void head_backward() const;
};

}  // namespace iadd::convnet::CONVNET_ISA
