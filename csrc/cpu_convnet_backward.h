// From the gradient of the features to those of all weights and of the images.
#pragma once

#include "cpu_convnet_forward.h"

namespace iadd::convnet::CONVNET_ISA {

template <class T, bool D>
struct Pass : Forward<T, D> {
  using Base = Forward<T, D>;
  using Base::Base, Base::L, Base::job, Base::net, Base::each, Base::weights;
  using Base::column_stride, Base::column_blocks, Base::columns_of, Base::first_gradient_size;
  using Base::features_of, Base::inside, Base::tiles_of, Base::over_channels, Base::tap;
  using Base::first_gradients, Base::feature_gradient, Base::block_stride, Base::frequency_stride;
  using Base::maps, Base::means, Base::roots, Base::inputs, Base::outputs, Base::weight_gradient;
  using typename Base::Scratch, typename Base::Place;

  // Vectors of output channels that a weight gradient takes at once: where registers are few, 3, as
  // its rows come 8 at a time and 4 by 3 leaves no thin remainder of them.
  static constexpr int kWide = CONVNET_ACCUMULATORS < 24 ? 3 : 4;
  static constexpr long kRun = 96;  // tiles

  void run() const {
    this->first_convolution();
    for (long i = 1; i < net.depth; ++i) this->convolution(i);
    if (job.features) this->copy_features();
    if (job.kind == Seed::none && !job.logits) return;
    if (job.kind == Seed::features) {
      this->seed_features();
    } else {
      this->head_forward();
      if (job.kind == Seed::none) return;
      this->loss();
      this->head_backward();
    }
    for (long i = net.depth - 1; i >= 1; --i) convolution_backward(i);
    first_backward();
  }

  static INLINE void add_to(T* at, Vec<T> g, bool accumulate) {
    store(at, accumulate ? load(at) + g : g);
  }

  // From the gradient of a block's output to that of its convolution's output, in `to`. The
  // vectors' gradients go to `gradient`, or are added if there is something already.
  void differentiate_block(long i, long image, long block, Ref<T, D> to, T* gradient, bool more,
                           const Scratch& s) const {
    const Layer& l = net.layers[i];
    const long at = image * l.out_blocks + block;
    const Place out = output_gradient(i, image, block, s.plane);
    Moments<T, D> m{};
    if (net.norm) m = {means[i].get(at), roots[i].get(at)};
    BlockGradient<T, D> g;
    with_form(net.norm, net.relu, [&]<class F>(F) INLINE_LAMBDA {
      g = differentiate<F, T, D>(l, this->template line<F>(l, block, m), m,
                                 maps[i] + at * l.pixels * L, out.at, out.row, to);
    });
    if (!gradient) return;
    gradient += block * L;
    if (net.norm) {
      // The norm takes the mean off, so the bias before it has no gradient at all.
      add_to(gradient + l.gradient.bias, g.shift.last() * T(0), more);
      add_to(gradient + l.gradient.scale, g.scale.last(), more);
      add_to(gradient + l.gradient.shift, g.shift.last(), more);
    } else {
      add_to(gradient + l.gradient.bias, g.shift.last(), more);
    }
  }

  // The gradient of block i's output, from the layer above; assembled in the plane but for the
  // last.
  Place output_gradient(long i, long image, long block, Ref<T, D> plane) const {
    const Layer& l = net.layers[i];
    if (i + 1 == net.depth) return features_of(feature_gradient, l, image, block);
    const Layer& next = net.layers[i + 1];
    const Ref<T, D> from = tiles_of(inputs[i + 1], next, image, block);
    const long stride = frequency_stride(next, next.in_blocks);
    auto assemble = [&](const T* tiles, T* to)
                        INLINE_LAMBDA { frequencies_to_plane(next, tiles, stride, to); };
    both<D>(assemble, from, plane);
    return inside(next, plane);
  }

  static void read_map(const Layer& l, const T* map, T* out, long stride, T* whole) {
    const long row = 4 * l.tile_columns;
    if (!l.whole) {
      clear(whole, 16 * l.tiles * L);
      for (long y = 0; y < l.height; ++y)
        for (long i = 0; i < l.width * L; ++i) whole[y * row * L + i] = map[y * l.width * L + i];
    }
    map_to_frequencies<OutputTransposed, T>(l, l.whole ? map : whole, row, out, stride);
  }

  void convolution_backward(long i) const {
    const Layer& l = net.layers[i];
    const long from = frequency_stride(l, l.in_blocks);
    const long stride = frequency_stride(l, l.out_blocks);
    each(l.out_blocks, [&](long block, const Scratch& s) {
      for (long image = 0; image < job.count; ++image) {
        differentiate_block(i, image, block, s.map_gradient, job.gradient,
                            job.accumulate || image > 0, s);
        const Ref<T, D> out = tiles_of(outputs, l, image, block);
        both<D>([&](const T* from, T* to) { read_map(l, from, to, stride, s.whole); },
                s.map_gradient, out);
      }
    });
    each(kFrequencies, [&](long f, const Scratch& s) {
      const Ref<T, D> in = inputs[i] + f * from;
      const Ref<const T, D> out = outputs + f * stride;
      // While all is near; the gradient by the inputs then takes their place.
      if (job.gradient)
        differentiate_weights(l, in, out, weight_gradient + f * l.frequency_weights);
      differentiate_inputs(l, weights(l.packed.weight + f * l.frequency_weights), out, in, s.panel);
    });
    if (!job.gradient) return;
    each(l.out_blocks, [&](long block, const Scratch&) {
      for (long c = 0; c < l.in; ++c) {
        const T* tile = weight_gradient + (block * l.in_blocks * L + c) * L;
        const long offset = l.gradient.weight + (block * l.in + c) * 9 * L;
        transform<WeightTransposed, T>(
            frequencies(tile, l.frequency_weights), [&](int y, int x, Vec<T> g) INLINE_LAMBDA {
              add_to(job.gradient + offset + (y * 3 + x) * L, g, job.accumulate);
            });
      }
    });
  }

  // One frequency's, as the weights lie: the sum over all tiles of input times output gradient.
  void differentiate_weights(const Layer& l, Ref<const T, D> in, Ref<const T, D> out,
                             T* gradient) const {
    const long tiles = job.count * l.tiles, rows = l.in_blocks * L;
    Product<T> p{};
    p.a_row = 1, p.a_inner = L;
    p.b_inner = L, p.b_vector = block_stride(l);
    p.c_row = L, p.c_vector = rows * L;
    // Runs of tiles, of which a panel stays in the nearest cache while the rows pass.
    for (long run = 0; run < tiles; run += kRun) {
      p.inner = smaller(kRun, tiles - run), p.accumulate = run > 0;
      for (long b = 0, wide = 0; b < l.out_blocks; b += wide) {
        wide = l.out_blocks - b == kWide + 1 ? 2 : smaller(kWide, l.out_blocks - b);
        for (long c = 0; c < l.in_blocks; ++c)
          multiply_last<D, 1, kWide>(p, in + (c * block_stride(l) + run * L),
                                     out + (b * block_stride(l) + run * L),
                                     gradient + (b * rows + c * L) * L, L, wide);
      }
    }
  }

  // One frequency's: output gradient times transposed weights, which are made a panel at a time.
  void differentiate_inputs(const Layer& l, Ref<const T, D> weight, Ref<const T, D> out,
                            Ref<T, D> in, Ref<T, D> panel) const {
    const long tiles = job.count * l.tiles;
    const Product<T> p = over_channels(block_stride(l), l.out_blocks);
    for (long block = 0; block < l.in_blocks; block += kPanel) {
      const long blocks = smaller(kPanel, l.in_blocks - block);
      both<D>([&](const T* w, T* to) { transpose_weights(l, w, block, blocks, to); }, weight,
              panel);
      multiply_dual<L>(p, out, panel, in + block * block_stride(l), tiles, blocks);
    }
  }

  // Of `blocks` blocks of input channels from `block` on.
  static void transpose_weights(const Layer& l, const T* from, long block, long blocks, T* to) {
    for (long o = 0; o < l.out_blocks; ++o)
      for (long b = 0; b < blocks; ++b) {
        const T* square = from + (o * l.in_blocks + block + b) * L * L;
        Vec<T> rows[L];
        for (long r = 0; r < L; ++r) rows[r] = load(square + r * L);
        transpose<T>(rows);
        T* out = to + (b * l.out_blocks + o) * L * L;
        for (long r = 0; r < L; ++r) store(out + r * L, rows[r]);
      }
  }

  // An image at a time, so that no gradient of a map leaves the cache; each image's share of the
  // gradient is its own until all are added up.
  void first_backward() const {
    const Layer& l = net.layers[0];
    const long size = first_gradient_size(l);
    each(job.count, [&](long image, const Scratch& s) {
      T* share = job.gradient ? first_gradients + image * size : nullptr;
      for (long block = 0; block < l.out_blocks; block += kPanel) {
        const long blocks = smaller(kPanel, l.out_blocks - block);
        for (long b = 0; b < blocks; ++b)
          differentiate_block(0, image, block + b, s.map_gradient + b * l.pixels * L, share, false,
                              s);
        const Ref<const T, D> map = s.map_gradient;
        if (share) differentiate_first_weights(image, map, share + block * 9 * l.in * L, blocks);
        if (job.image_gradient) differentiate_columns(map, block, blocks, s.column_gradient);
      }
      if (job.image_gradient)
        fold(s.column_gradient, s.framed, job.image_gradient + image * l.in * l.pixels);
    });
    if (!job.gradient) return;
    each(l.out_blocks, [&](long block, const Scratch&) {
      auto add = [&](long offset, long vectors) INLINE_LAMBDA {
        for (long at = offset; at < offset + vectors * L; at += L) {
          Vec<T> sum = load(first_gradients + at);
          for (long image = 1; image < job.count; ++image)
            sum += load(first_gradients + image * size + at);
          add_to(job.gradient + at, sum, job.accumulate);
        }
      };
      add(l.gradient.weight + block * 9 * l.in * L, 9 * l.in);
      add(l.gradient.bias + block * L, 1);
      if (!net.norm) return;
      add(l.gradient.scale + block * L, 1);
      add(l.gradient.shift + block * L, 1);
    });
  }

  // One image's, from `map` of some blocks: runs of pixels, which stay in the nearest cache.
  void differentiate_first_weights(long image, Ref<const T, D> map, T* gradient,
                                   long blocks) const {
    const Layer& l = net.layers[0];
    const long taps = 9 * l.in;
    Product<T> p{};
    p.a_row = column_stride(l), p.a_inner = 1;
    p.b_inner = L, p.b_vector = l.pixels * L;
    p.c_row = L, p.c_vector = taps * L;
    for (long run = 0; run < l.pixels; run += kRun) {
      p.inner = smaller(kRun, l.pixels - run), p.accumulate = run > 0;
      multiply_last<D, 0>(p, {columns_of(image) + run, nullptr}, map + run * L, gradient, taps,
                          blocks);
    }
  }

  // One image's, of the unfolded columns: the share of `blocks` blocks of `map` from `block` on.
  void differentiate_columns(Ref<const T, D> map, long block, long blocks, T* gradient) const {
    const Layer& l = net.layers[0];
    Product<T> p = over_channels(l.pixels * L, blocks);
    p.b_vector = l.out_blocks * L * L;
    p.accumulate = block > 0;
    multiply_last<D, L>(p, {D ? map.d : map.v, D ? map.v : nullptr},
                        swapped(weights(l.packed_transposed + block * L * L)), gradient, l.pixels,
                        column_blocks(l));
  }

  // The transpose of unfold.
  void fold(const T* gradient, T* framed, T* out) const {
    const Layer& l = net.layers[0];
    const long width = l.width, height = l.height, line = width + 2, plane = (height + 2) * line;
    const long whole = width / L * L, taps = 9 * l.in;
    for (long i = 0; i < l.in * plane; ++i) framed[i] = T(0);
    for (long first = 0; first < taps; first += L, gradient += l.pixels * L) {
      const long count = smaller(L, taps - first);
      T* to[L];
      for (long j = 0; j < count; ++j) to[j] = tap(l, framed, first + j);
      const T* from = gradient;
      for (long y = 0; y < height; ++y, from += width * L) {
        for (long x = 0; x < whole; x += L) {
          Vec<T> v[L];
          for (long j = 0; j < L; ++j) v[j] = load(from + (x + j) * L);
          transpose<T>(v);
          for (long j = 0; j < count; ++j) {
            T* at = to[j] + y * line + x;
            store(at, load(at) + v[j]);
          }
        }
        for (long x = whole; x < width; ++x)
          for (long j = 0; j < count; ++j) to[j][y * line + x] += from[x * L + j];
      }
    }
    for (long c = 0; c < l.in; ++c)
      for (long y = 0; y < height; ++y)
        for (long x = 0; x < width; ++x) *out++ = framed[c * plane + (y + 1) * line + x + 1];
  }

  // multiply_last forms a.v b.d + a.d b.v; for map' W + map W' both are handed over exchanged.
  static Ref<const T, D> swapped(Ref<const T, D> r) {
    if constexpr (D) return {r.d, r.v};
    return r;
  }
};

}  // namespace iadd::convnet::CONVNET_ISA
