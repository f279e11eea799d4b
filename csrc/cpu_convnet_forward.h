// The convolutions with what follows them.
#pragma once

#include "cpu_convnet_head.h"
#include "cpu_convnet_winograd.h"

namespace iadd::convnet::CONVNET_ISA {

template <class T, bool D>
struct Forward : Head<T, D> {
  using Base = Head<T, D>;
  using Base::Base, Base::L, Base::job, Base::net, Base::each, Base::weights;
  using Base::features, Base::block_stride, Base::frequency_stride, Base::column_stride;
  using Base::maps, Base::means, Base::roots, Base::inputs, Base::outputs, Base::columns;
  using typename Base::Scratch;

  // One channel block of one image's plane, or of the features, as the block before it writes it.
  struct Place {
    Ref<T, D> at;
    long row;
  };

  Place features_of(Ref<T, D> all, const Layer& l, long image, long block) const {
    return {all + image * net.padded_features + block * l.pooled * L, l.pooled_width};
  }

  static Place inside(const Layer& l, Ref<T, D> plane) {
    return {plane + (l.plane_row + 1) * L, l.plane_row};
  }

  // The tiles of one channel block of one image in a layer's transformed input or output.
  Ref<T, D> tiles_of(Ref<T, D> all, const Layer& l, long image, long block) const {
    return all + (block * block_stride(l) + image * l.tiles * L);
  }

  // Zeros around the inside of a plane.
  static void clear_margin(const Layer& l, T* plane) {
    clear(plane, (l.plane_row + 1) * L);
    for (long y = 1; y <= l.height; ++y)
      clear(plane + (y * l.plane_row + l.width + 1) * L, (l.plane_row - l.width) * L);
    const long done = (l.height + 1) * l.plane_row + 1;
    clear(plane + done * L, (l.plane - done) * L);
  }

  // From a convolution's output map to the next layer's transformed input, or to the features.
  void finish_block(long i, long image, long block, const Scratch& s) const {
    const Layer& l = net.layers[i];
    const long at = image * l.out_blocks + block;
    const Ref<T, D> map = maps[i] + at * l.pixels * L;
    const bool last = i + 1 == net.depth;
    const Place out =
        last ? features_of(features, l, image, block) : inside(net.layers[i + 1], s.plane);
    Moments<T, D> m{};
    if (net.norm) {
      m = moments<T, D>(l.pixels, map);
      // The norm takes the bias off again, so it is left out but for a NaN or infinity it may hold.
      m.mean = m.mean + weights(l.packed.bias).get(block) * T(0);
      means[i].put(at, m.mean);
      roots[i].put(at, m.root);
    }
    with_form(net.norm, net.relu, [&]<class F>(F) INLINE_LAMBDA {
      activate<F, T, D>(l, this->template line<F>(l, block, m), map, out.at, out.row);
    });
    if (last) return;
    const Layer& next = net.layers[i + 1];
    const Ref<T, D> to = tiles_of(inputs[i + 1], next, image, block);
    const long stride = frequency_stride(next, next.in_blocks);
    auto transformed = [&](T* from, T* tiles) INLINE_LAMBDA {
      clear_margin(next, from);
      map_to_frequencies<InputTransform, T>(next, from, next.plane_row, tiles, stride);
    };
    both<D>(transformed, s.plane, to);
  }

  // Sums over `blocks` blocks of channels; rows are tiles or pixels, whose blocks lie `stride`
  // apart.
  static Product<T> over_channels(long stride, long blocks) {
    Product<T> p{};
    p.a_row = L, p.a_inner = 1, p.a_outer = stride;
    p.b_inner = L, p.b_outer = L * L, p.b_vector = blocks * L * L;
    p.c_row = L, p.c_vector = stride;
    p.inner = L, p.outer = blocks;
    return p;
  }

  void convolution(long i) const {
    const Layer& l = net.layers[i];
    const long tiles = job.count * l.tiles;
    const long from = frequency_stride(l, l.in_blocks);
    const long to = frequency_stride(l, l.out_blocks);
    each(kFrequencies, [&](long f, const Scratch&) {
      Product<T> p = over_channels(block_stride(l), l.in_blocks);
      if (l.in >= 64) p.ahead = l.in_blocks * L;  // less stays in the cache anyhow
      multiply_dual<L>(p, inputs[i] + f * from, weights(l.packed.weight + f * l.frequency_weights),
                       outputs + f * to, tiles, l.out_blocks);
    });
    each(job.count * l.out_blocks, [&](long unit, const Scratch& s) {
      const long image = unit / l.out_blocks, block = unit % l.out_blocks;
      const Ref<T, D> map = maps[i] + unit * l.pixels * L;
      const Ref<T, D> in = tiles_of(outputs, l, image, block);
      both<D>([&](T* from, T* out) { write_map(l, from, to, out, s.whole); }, in, map);
      finish_block(i, image, block, s);
    });
  }

  // A map that ends inside its last tiles goes through an array that does not.
  static void write_map(const Layer& l, const T* in, long stride, T* map, T* whole) {
    const long row = 4 * l.tile_columns;
    frequencies_to_map(l, in, stride, l.whole ? map : whole, row);
    if (l.whole) return;
    for (long y = 0; y < l.height; ++y)
      for (long i = 0; i < l.width * L; ++i) map[y * l.width * L + i] = whole[y * row * L + i];
  }

  // An image in a margin of one pixel of zeros, a line of which is `width + 2` long.
  void frame(const T* image, T* framed) const {
    const Layer& l = net.layers[0];
    const long line = l.width + 2, plane = (l.height + 2) * line;
    for (long i = 0; i < l.in * plane; ++i) framed[i] = T(0);
    for (long c = 0; c < l.in; ++c)
      for (long y = 0; y < l.height; ++y, image += l.width) {
        T* to = framed + c * plane + (y + 1) * line + 1;
        for (long x = 0; x < l.width; ++x) to[x] = image[x];
      }
  }

  // Where the map that a weight of the first layer sees begins; k counts channels and taps.
  static T* tap(const Layer& l, T* framed, long k) {
    const long line = l.width + 2;
    return framed + k / 9 * (l.height + 2) * line + k % 9 / 3 * line + k % 3;
  }

  // The nine shifted copies of each channel, [(channel, tap)][pixel]. Whole registers, so that a
  // row begins with what is too much of the one before it.
  void unfold(const T* image, T* columns, T* framed) const {
    const Layer& l = net.layers[0];
    const long width = l.width, height = l.height, line = width + 2;
    frame(image, framed);
    for (long k = 0; k < 9 * l.in; ++k, columns += column_stride(l)) {
      const T* from = tap(l, framed, k);
      T* row = columns;
      for (long y = 0; y < height; ++y, row += width, from += line)
        for (long x = 0; x < width; x += L) store(row + x, load(from + x));
    }
  }

  T* columns_of(long image) const {
    const Layer& l = net.layers[0];
    return columns + image * 9 * l.in * column_stride(l);
  }

  void first_convolution() const {
    const Layer& l = net.layers[0];
    const long taps = 9 * l.in, panels = (l.out_blocks + kPanel - 1) / kPanel;
    each(job.count, [&](long image, const Scratch& s) {
      unfold(job.images + image * l.in * l.pixels, columns_of(image), s.framed);
    });
    each(job.count * panels, [&](long unit, const Scratch& s) {
      const long image = unit / panels, block = unit % panels * kPanel;
      const long blocks = smaller(kPanel, l.out_blocks - block);
      const Ref<T, D> map = maps[0] + (image * l.out_blocks + block) * l.pixels * L;
      const Ref<const T, D> weight = weights(l.packed.weight + block * taps * L);
      Product<T> p{};
      p.a = columns_of(image), p.a_row = 1, p.a_inner = column_stride(l);
      p.b_inner = L, p.b_vector = taps * L;
      p.c_row = L, p.c_vector = l.pixels * L;
      p.inner = taps;
      const auto multiplied = [&](const T* w, T* out) {
        p.b = w, p.c = out;
        multiply<T, 1>(p, l.pixels, blocks);
      };
      both<D>(multiplied, weight, map);
      for (long b = block; b < block + blocks; ++b) finish_block(0, image, b, s);
    });
  }
};

}  // namespace iadd::convnet::CONVNET_ISA
