// Members of Pass: the convolutions with what follows them, forward and backward.
#pragma once

#include "cpu_convnet_pass.h"

namespace iadd::convnet::CONVNET_ISA {

template <class T, bool D>
inline typename Pass<T, D>::Place Pass<T, D>::features_of(Ref<T, D> all, const Layer& l, long image,
                                                          long block) const {
  return {all + image * net.padded_features + block * l.pooled * L, l.pooled_width};
}

template <class T, bool D>
inline typename Pass<T, D>::Place Pass<T, D>::inside(const Layer& l, Ref<T, D> plane) {
  return {plane + (l.plane_row + 1) * L, l.plane_row};
}

// The tiles of one channel block of one image in a layer's transformed input or output.
template <class T, bool D>
inline Ref<T, D> Pass<T, D>::tiles_of(Ref<T, D> all, const Layer& l, long image, long block) const {
  return all + (block * block_stride(l) + image * l.tiles * L);
}

// Zeros around the inside of a plane.
template <class T, bool D>
inline void Pass<T, D>::clear_margin(const Layer& l, T* plane) {
  clear(plane, (l.plane_row + 1) * L);
  for (long y = 1; y <= l.height; ++y)
    clear(plane + (y * l.plane_row + l.width + 1) * L, (l.plane_row - l.width) * L);
  const long done = (l.height + 1) * l.plane_row + 1;
  clear(plane + done * L, (l.plane - done) * L);
}

// From a convolution's output map to the next layer's transformed input, or to the features.
template <class T, bool D>
inline void Pass<T, D>::finish_block(long i, long image, long block, const Scratch& s) const {
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
    m.mean = m.mean + weight(l.packed_bias + block * L) * T(0);
    means[i].put(at, m.mean);
    roots[i].put(at, m.root);
  }
  with_form(net.norm, net.relu, [&]<class F>(F) INLINE_LAMBDA {
    activate<F, T, D>(l, line<F>(l, block, m), map, out.at, out.row);
  });
  if (last) return;
  const Layer& next = net.layers[i + 1];
  const Ref<T, D> to = tiles_of(inputs[i + 1], next, image, block);
  const long stride = frequency_stride(next, next.in_blocks);
  auto transformed = [&](T* from, T* tiles) INLINE_LAMBDA {
    clear_margin(next, from);
    map_to_frequencies<InputTransform, T>(from, next.plane_row, next.tile_rows, next.tile_columns,
                                          tiles, stride);
  };
  transformed(s.plane.v, to.v);
  if constexpr (D) transformed(s.plane.d, to.d);
}

// Sums over `blocks` blocks of channels; rows are tiles or pixels, whose blocks lie `stride` apart.
template <class T, bool D>
inline Product<T> Pass<T, D>::over_channels(long stride, long blocks) {
  Product<T> p{};
  p.a_row = L, p.a_inner = 1, p.a_outer = stride;
  p.b_inner = L, p.b_outer = L * L, p.b_vector = blocks * L * L;
  p.c_row = L, p.c_vector = stride;
  p.inner = L, p.outer = blocks;
  return p;
}

template <class T, bool D>
inline void Pass<T, D>::convolution(long i) const {
  const Layer& l = net.layers[i];
  const long tiles = job.count * l.tiles;
  const long from = frequency_stride(l, l.in_blocks);
  const long to = frequency_stride(l, l.out_blocks);
  each(kFrequencies, [&](long f, const Scratch&) {
    Product<T> p = over_channels(block_stride(l), l.in_blocks);
    if (l.in >= 64) p.ahead = l.in_blocks * L;  // less stays in the cache anyhow
    multiply_dual<L>(p, constant(inputs[i] + f * from),
                     weights(l.packed_weight + f * l.frequency_weights), outputs + f * to, tiles,
                     l.out_blocks);
  });
  each(job.count * l.out_blocks, [&](long unit, const Scratch& s) {
    const long image = unit / l.out_blocks, block = unit % l.out_blocks;
    const Ref<T, D> map = maps[i] + unit * l.pixels * L;
    const Ref<T, D> in = tiles_of(outputs, l, image, block);
    write_map(l, in.v, to, map.v, s.whole);
    if constexpr (D) write_map(l, in.d, to, map.d, s.whole);
    finish_block(i, image, block, s);
  });
}

// A map that ends inside its last tiles goes through an array that does not.
template <class T, bool D>
inline void Pass<T, D>::write_map(const Layer& l, const T* in, long stride, T* map, T* whole) {
  const long row = 4 * l.tile_columns;
  frequencies_to_map<T>(in, stride, l.tile_rows, l.tile_columns, l.whole ? map : whole, row);
  if (l.whole) return;
  for (long y = 0; y < l.height; ++y)
    for (long i = 0; i < l.width * L; ++i) map[y * l.width * L + i] = whole[y * row * L + i];
}

template <class T, bool D>
inline void Pass<T, D>::read_map(const Layer& l, const T* map, T* out, long stride, T* whole) {
  const long row = 4 * l.tile_columns;
  if (!l.whole) {
    clear(whole, 16 * l.tiles * L);
    for (long y = 0; y < l.height; ++y)
      for (long i = 0; i < l.width * L; ++i) whole[y * row * L + i] = map[y * l.width * L + i];
  }
  map_to_frequencies<OutputTransposed, T>(l.whole ? map : whole, row, l.tile_rows, l.tile_columns,
                                          out, stride);
}

template <class T, bool D>
inline Ref<const T, D> Pass<T, D>::constant(Ref<T, D> r) {
  return {r.v, r.d};
}

// An image in a margin of one pixel of zeros, a line of which is `width + 2` long.
template <class T, bool D>
inline void Pass<T, D>::frame(const T* image, T* framed) const {
  const Layer& l = net.layers[0];
  const long line = l.width + 2, plane = (l.height + 2) * line;
  for (long i = 0; i < l.in * plane; ++i) framed[i] = T(0);
  for (long c = 0; c < l.in; ++c)
    for (long y = 0; y < l.height; ++y, image += l.width) {
      T* to = framed + c * plane + (y + 1) * line + 1;
      for (long x = 0; x < l.width; ++x) to[x] = image[x];
    }
}

// The nine shifted copies of each channel, [(channel, tap)][pixel]. Whole registers, so that a row
// begins with what is too much of the one before it.
template <class T, bool D>
inline void Pass<T, D>::unfold(const T* image, T* columns, T* framed) const {
  const Layer& l = net.layers[0];
  const long width = l.width, height = l.height, line = width + 2, plane = (height + 2) * line;
  frame(image, framed);
  for (long k = 0; k < 9 * l.in; ++k, columns += column_stride(l)) {
    const T* from = framed + k / 9 * plane + k % 9 / 3 * line + k % 3;
    T* row = columns;
    for (long y = 0; y < height; ++y, row += width, from += line)
      for (long x = 0; x < width; x += L) store(row + x, load(from + x));
  }
}

template <class T, bool D>
inline T* Pass<T, D>::columns_of(long image) const {
  const Layer& l = net.layers[0];
  return columns + image * 9 * l.in * column_stride(l);
}

template <class T, bool D>
inline void Pass<T, D>::first_convolution() const {
  const Layer& l = net.layers[0];
  const long taps = 9 * l.in, panels = (l.out_blocks + kPanel - 1) / kPanel;
  each(job.count, [&](long image, const Scratch& s) {
    unfold(job.images + image * l.in * l.pixels, columns_of(image), s.framed);
  });
  each(job.count * panels, [&](long unit, const Scratch& s) {
    const long image = unit / panels, block = unit % panels * kPanel;
    const long blocks = smaller(kPanel, l.out_blocks - block);
    const Ref<T, D> map = maps[0] + (image * l.out_blocks + block) * l.pixels * L;
    const Ref<const T, D> weight = weights(l.packed_weight + block * taps * L);
    Product<T> p = {columns_of(image),
                    1,
                    column_stride(l),
                    0,
                    weight.v,
                    L,
                    0,
                    taps * L,
                    map.v,
                    L,
                    l.pixels * L,
                    taps,
                    1,
                    false};
    multiply<T, 1>(p, l.pixels, blocks);
    if constexpr (D) {
      p.b = weight.d, p.c = map.d;
      multiply<T, 1>(p, l.pixels, blocks);
    }
    for (long b = block; b < block + blocks; ++b) finish_block(0, image, b, s);
  });
}

template <class T, bool D>
INLINE void Pass<T, D>::add_to(T* at, Vec<T> g, bool accumulate) {
  store(at, accumulate ? load(at) + g : g);
}

// From the gradient of a block's output to that of its convolution's output, in `to`. The vectors'
// gradients go to `gradient`, or are added if there is something already.
template <class T, bool D>
inline void Pass<T, D>::differentiate_block(long i, long image, long block, Ref<T, D> to,
                                            T* gradient, bool more, const Scratch& s) const {
  const Layer& l = net.layers[i];
  const long at = image * l.out_blocks + block;
  const Place out = output_gradient(i, image, block, s.plane);
  Moments<T, D> m{};
  if (net.norm) m = {means[i].get(at), roots[i].get(at)};
  BlockGradient<T, D> g;
  with_form(net.norm, net.relu, [&]<class F>(F) INLINE_LAMBDA {
    g = differentiate<F, T, D>(l, line<F>(l, block, m), m, maps[i] + at * l.pixels * L, out.at,
                               out.row, to);
  });
  if (!gradient) return;
  gradient += block * L;
  if (net.norm) {
    // The norm takes the mean off, so the bias before it has no gradient at all.
    add_to(gradient + l.gradient_bias, g.shift.last() * T(0), more);
    add_to(gradient + l.gradient_scale, g.scale.last(), more);
    add_to(gradient + l.gradient_shift, g.shift.last(), more);
  } else {
    add_to(gradient + l.gradient_bias, g.shift.last(), more);
  }
}

// The gradient of block i's output, from the layer above; assembled in the plane but for the last.
template <class T, bool D>
inline typename Pass<T, D>::Place Pass<T, D>::output_gradient(long i, long image, long block,
                                                              Ref<T, D> plane) const {
  const Layer& l = net.layers[i];
  if (i + 1 == net.depth) return features_of(feature_gradient, l, image, block);
  const Layer& next = net.layers[i + 1];
  const Ref<T, D> from = tiles_of(inputs[i + 1], next, image, block);
  const long stride = frequency_stride(next, next.in_blocks);
  auto assemble = [&](const T* tiles, T* to) INLINE_LAMBDA {
    frequencies_to_plane<T>(tiles, stride, next.tile_rows, next.tile_columns, to, next.plane_row);
  };
  assemble(from.v, plane.v);
  if constexpr (D) assemble(from.d, plane.d);
  return inside(next, plane);
}

template <class T, bool D>
inline void Pass<T, D>::convolution_backward(long i) const {
  const Layer& l = net.layers[i];
  const long from = frequency_stride(l, l.in_blocks);
  const long to = frequency_stride(l, l.out_blocks);
  each(l.out_blocks, [&](long block, const Scratch& s) {
    for (long image = 0; image < job.count; ++image) {
      differentiate_block(i, image, block, s.map_gradient, job.gradient,
                          job.accumulate || image > 0, s);
      const Ref<T, D> out = tiles_of(outputs, l, image, block);
      read_map(l, s.map_gradient.v, out.v, to, s.whole);
      if constexpr (D) read_map(l, s.map_gradient.d, out.d, to, s.whole);
    }
  });
  each(kFrequencies, [&](long f, const Scratch& s) {
    const Ref<T, D> in = inputs[i] + f * from;
    const Ref<const T, D> out = constant(outputs + f * to);
    // While all is near; the gradient by the inputs then takes their place.
    if (job.gradient)
      differentiate_weights(l, constant(in), out, weight_gradient + f * l.frequency_weights);
    differentiate_inputs(l, weights(l.packed_weight + f * l.frequency_weights), out, in, s.panel);
  });
  if (!job.gradient) return;
  each(l.out_blocks, [&](long block, const Scratch&) {
    for (long c = 0; c < l.in; ++c) {
      const T* tile = weight_gradient + (block * l.in_blocks * L + c) * L;
      const long offset = l.gradient_weight + (block * l.in + c) * 9 * L;
      transform<WeightTransposed, T>(
          frequencies(tile, l.frequency_weights), [&](int y, int x, Vec<T> g) INLINE_LAMBDA {
            add_to(job.gradient + offset + (y * 3 + x) * L, g, job.accumulate);
          });
    }
  });
}

// One frequency's, as the weights lie: the sum over all tiles of input times output gradient.
template <class T, bool D>
inline void Pass<T, D>::differentiate_weights(const Layer& l, Ref<const T, D> in,
                                              Ref<const T, D> out, T* gradient) const {
  const long tiles = job.count * l.tiles, rows = l.in_blocks * L;
  Product<T> p{};
  p.a_row = 1, p.a_inner = L;
  p.b_inner = L, p.b_vector = block_stride(l);
  p.c_row = L, p.c_vector = rows * L;
  p.outer = 1;
  // Runs of tiles, of which a panel stays in the nearest cache while the rows pass.
  for (long run = 0; run < tiles; run += kRun) {
    p.inner = smaller(kRun, tiles - run), p.accumulate = run > 0;
    for (long b = 0, wide = 0; b < l.out_blocks; b += wide) {
      wide = l.out_blocks - b == kWide + 1 ? 2 : smaller(kWide, l.out_blocks - b);
      for (long c = 0; c < l.in_blocks; ++c)
        multiply_last<1, kWide>(p, in + (c * block_stride(l) + run * L),
                                out + (b * block_stride(l) + run * L),
                                gradient + (b * rows + c * L) * L, L, wide);
    }
  }
}

// One frequency's: output gradient times transposed weights, which are made a panel at a time.
template <class T, bool D>
inline void Pass<T, D>::differentiate_inputs(const Layer& l, Ref<const T, D> weight,
                                             Ref<const T, D> out, Ref<T, D> in,
                                             Ref<T, D> panel) const {
  const long tiles = job.count * l.tiles;
  const Product<T> p = over_channels(block_stride(l), l.out_blocks);
  for (long block = 0; block < l.in_blocks; block += kPanel) {
    const long blocks = smaller(kPanel, l.in_blocks - block);
    transpose_weights(l, weight.v, block, blocks, panel.v);
    if constexpr (D) transpose_weights(l, weight.d, block, blocks, panel.d);
    multiply_dual<L>(p, out, constant(panel), in + block * block_stride(l), tiles, blocks);
  }
}

// Of `blocks` blocks of input channels from `block` on.
template <class T, bool D>
inline void Pass<T, D>::transpose_weights(const Layer& l, const T* from, long block, long blocks,
                                          T* to) {
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
template <class T, bool D>
inline void Pass<T, D>::first_backward() const {
  const Layer& l = net.layers[0];
  const long size = first_gradient_size(l);
  each(job.count, [&](long image, const Scratch& s) {
    T* share = job.gradient ? first_gradients + image * size : nullptr;
    for (long block = 0; block < l.out_blocks; block += kPanel) {
      const long blocks = smaller(kPanel, l.out_blocks - block);
      for (long b = 0; b < blocks; ++b)
        differentiate_block(0, image, block + b, s.map_gradient + b * l.pixels * L, share, false,
                            s);
      const Ref<const T, D> map = constant(s.map_gradient);
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
    add(l.gradient_weight + block * 9 * l.in * L, 9 * l.in);
    add(l.gradient_bias + block * L, 1);
    if (!net.norm) return;
    add(l.gradient_scale + block * L, 1);
    add(l.gradient_shift + block * L, 1);
  });
}

// One image's, from `map` of some blocks: runs of pixels, which stay in the nearest cache.
template <class T, bool D>
inline void Pass<T, D>::differentiate_first_weights(long image, Ref<const T, D> map, T* gradient,
                                                    long blocks) const {
  const Layer& l = net.layers[0];
  const long taps = 9 * l.in;
  Product<T> p{};
  p.a_row = column_stride(l), p.a_inner = 1;
  p.b_inner = L, p.b_vector = l.pixels * L;
  p.c_row = L, p.c_vector = taps * L;
  p.outer = 1;
  for (long run = 0; run < l.pixels; run += kRun) {
    p.inner = smaller(kRun, l.pixels - run), p.accumulate = run > 0;
    multiply_last<0>(p, {columns_of(image) + run, nullptr}, map + run * L, gradient, taps, blocks);
  }
}

// One image's, of the unfolded columns: the share of `blocks` blocks of `map` from `block` on.
template <class T, bool D>
inline void Pass<T, D>::differentiate_columns(Ref<const T, D> map, long block, long blocks,
                                              T* gradient) const {
  const Layer& l = net.layers[0];
  Product<T> p = over_channels(l.pixels * L, blocks);
  p.b_vector = l.out_blocks * L * L;
  p.accumulate = block > 0;
  multiply_last<L>(p, {D ? map.d : map.v, D ? map.v : nullptr},
                   swapped(weights(l.packed_transposed + block * L * L)), gradient, l.pixels,
                   column_blocks(l));
}

// The transpose of unfold.
template <class T, bool D>
inline void Pass<T, D>::fold(const T* gradient, T* framed, T* out) const {
  const Layer& l = net.layers[0];
  const long width = l.width, height = l.height, line = width + 2, plane = (height + 2) * line;
  const long whole = width / L * L, taps = 9 * l.in;
  for (long i = 0; i < l.in * plane; ++i) framed[i] = T(0);
  for (long first = 0; first < taps; first += L, gradient += l.pixels * L) {
    const long count = smaller(L, taps - first);
    T* tap[L];
    for (long j = 0; j < count; ++j) {
      const long k = first + j;
      tap[j] = framed + k / 9 * plane + k % 9 / 3 * line + k % 3;
    }
    const T* from = gradient;
    for (long y = 0; y < height; ++y, from += width * L) {
      for (long x = 0; x < whole; x += L) {
        Vec<T> v[L];
        for (long j = 0; j < L; ++j) v[j] = load(from + (x + j) * L);
        transpose<T>(v);
        for (long j = 0; j < count; ++j) {
          T* at = tap[j] + y * line + x;
          store(at, load(at) + v[j]);
        }
      }
      for (long x = whole; x < width; ++x)
        for (long j = 0; j < count; ++j) tap[j][y * line + x] += from[x * L + j];
    }
  }
  for (long c = 0; c < l.in; ++c)
    for (long y = 0; y < height; ++y)
      for (long x = 0; x < width; ++x) *out++ = framed[c * plane + (y + 1) * line + x + 1];
}

// multiply_last forms a.v b.d + a.d b.v; for map' W + map W' both are handed over exchanged.
template <class T, bool D>
inline Ref<const T, D> Pass<T, D>::swapped(Ref<const T, D> r) {
  if constexpr (D) return {r.d, r.v};
  return r;
}

}  // namespace iadd::convnet::CONVNET_ISA
