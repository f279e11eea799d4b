// One micro-batch through the network and back; with a direction, the same in dual numbers, whose
// derivative part is the Hessian-vector product (forward over reverse, Pearlmutter 1994). Every
// stage is a number of independent units, which the threads at hand take one after the other; sums
// are always within a unit, so that neither their number nor their pace changes a bit.
#pragma once

#include "cpu_convnet_block.h"
#include "cpu_convnet_gemm.h"

namespace iadd::convnet::CONVNET_ISA {

// Where everything lies. The stages build on it: Head, Forward, and Pass, which runs them.
template <class T, bool D>
struct Arena {
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

  explicit Arena(const Job<T>& job) : job(job), net(*job.network) {
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
      const Arena& arena;
      const Unit& unit;
    } context{*this, unit};
    const Task task = [](void* context, long index, long thread) {
      const auto& [arena, unit] = *static_cast<Context*>(context);
      Layout own{arena.scratches + thread * arena.scratch_size};
      unit(index, arena.lay_out(own));
    };
    if (job.spread) return job.spread(count, &context, task);
    Layout own{scratches};
    const Scratch scratch = lay_out(own);  // once: small networks have small units
    for (long i = 0; i < count; ++i) unit(i, scratch);
  }

  // In the Winograd domain, between the tiles of two channel blocks and between two frequencies.
  // Odd numbers of vectors, so that what is used together spreads over the sets of the caches.
  long block_stride(const Layer& l) const { return (job.count * l.tiles | 1) * L; }
  long frequency_stride(const Layer& l, long blocks) const { return blocks * block_stride(l) + L; }
  // The first layer's part of the packed gradient.
  static long first_gradient_size(const Layer& l) { return l.gradient.shift + l.out_blocks * L; }
  static long column_stride(const Layer& l) { return l.pixels + L; }
  static long column_blocks(const Layer& l) { return (9 * l.in + L - 1) / L; }

  Ref<const T, D> weights(long offset) const {
    return {job.weights + offset, D ? job.direction + offset : nullptr};
  }
  template <class F>
  Line<F, T, D> line(const Layer& l, long block, const Moments<T, D>& m) const {
    if (!F::norm) return {Num<T, D>{}, weights(l.packed.bias).get(block)};
    const Num<T, D> slope = weights(l.packed.scale).get(block) * m.root;
    return {slope, weights(l.packed.shift).get(block) - m.mean * slope};
  }
};

}  // namespace iadd::convnet::CONVNET_ISA
