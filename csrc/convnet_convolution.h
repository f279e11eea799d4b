// Members of Pass: the convolutions with what follows them, forward and backward.
#pragma once

// One channel block of one image's plane, or of the features, as the block before it writes it.
struct Place {
  Ref<T, D> at;
  long row;
};

Place features_of(Ref<T, D> all, const Layer& l, long image, long block) const {
  return {all + image * net.padded_features + block * l.pooled * L, l.pooled_width};
}
Place inside(const Layer& l) const { return {plane + (l.plane_row + 1) * L, l.plane_row}; }

// The tiles of one channel block of one image in the transformed input of layer i.
Ref<T, D> tiles_of(long i, long image, long block) const {
  const Layer& l = net.layers[i];
  return inputs[i] + (block * job.count + image) * l.tiles * L;
}

// Planes keep their margins of zeros while their insides are written again and again.
void clear_plane(long i) const {
  if (i == net.depth) return;
  clear(plane.v, net.layers[i].plane * L);
  if constexpr (D) clear(plane.d, net.layers[i].plane * L);
}

// From a convolution's output map to the next layer's transformed input, or to the features.
void finish_block(long i, long image, long block) {
  const Layer& l = net.layers[i];
  const long at = image * l.out_blocks + block;
  const Ref<T, D> map = maps[i] + at * l.pixels * L;
  const bool last = i + 1 == net.depth;
  const Place out = last ? features_of(features, l, image, block) : inside(net.layers[i + 1]);
  const Num<T, D> bias = weight(l.packed_bias + block * L);
  Moments<T, D> m{bias * T(-1), one()};
  if (net.norm) {
    m = moments<T, D>(l.pixels, map);
    // The norm takes the bias off again, so it is left out but for a NaN or infinity it may hold.
    m.mean = m.mean + bias * T(0);
  }
  means[i].put(at, m.mean);
  roots[i].put(at, m.root);
  with_form(net.norm, net.relu, [&](auto form) INLINE_LAMBDA {
    activate<decltype(form), T, D>(l, affine(l, block), m, map, out.at, out.row);
  });
  if (last) return;
  const Layer& next = net.layers[i + 1];
  const Ref<T, D> to = tiles_of(i + 1, image, block);
  const long stride = net.frequency_maps(next.in_blocks, job.count * next.tiles);
  auto transformed = [&](const T* from, T* tiles) INLINE_LAMBDA {
    map_to_frequencies<InputTransform, T>(from, next.plane_row, next.tile_rows, next.tile_columns,
                                          tiles, stride);
  };
  transformed(plane.v, to.v);
  if constexpr (D) transformed(plane.d, to.d);
}

// Small operands stay in the cache anyhow.
static long ahead(long depth) { return depth < 64 ? 0 : depth; }

void convolution(long i) {
  const Layer& l = net.layers[i];
  const long tiles = job.count * l.tiles;
  const long from = net.frequency_maps(l.in_blocks, tiles);
  const long to = net.frequency_maps(l.out_blocks, tiles);
  const long depth = l.in_blocks * L;
  for (long f = 0; f < kFrequencies; ++f) {
    const Product<T> p = {nullptr,   L,     1,           tiles * L, nullptr,
                          L,         L * L, depth * L,   nullptr,   L,
                          tiles * L, L,     l.in_blocks, false,     ahead(depth)};
    multiply_dual<L>(p, constant(inputs[i] + f * from),
                     weights(l.packed_forward + f * l.frequency_weights), outputs + f * to, tiles,
                     l.out_blocks);
  }
  clear_plane(i + 1);
  for (long image = 0; image < job.count; ++image)
    for (long block = 0; block < l.out_blocks; ++block) {
      const Ref<T, D> map = maps[i] + (image * l.out_blocks + block) * l.pixels * L;
      const Ref<T, D> in = outputs + (block * tiles + image * l.tiles) * L;
      write_map(l, in.v, to, map.v);
      if constexpr (D) write_map(l, in.d, to, map.d);
      finish_block(i, image, block);
    }
}

// A map that ends inside its last tiles goes through an array that does not.
void write_map(const Layer& l, const T* in, long stride, T* map) const {
  const long row = 4 * l.tile_columns;
  frequencies_to_map<T>(in, stride, l.tile_rows, l.tile_columns, l.whole ? map : whole, row);
  if (l.whole) return;
  for (long y = 0; y < l.height; ++y)
    for (long i = 0; i < l.width * L; ++i) map[y * l.width * L + i] = whole[y * row * L + i];
}

void read_map(const Layer& l, const T* map, T* out, long stride) const {
  const long row = 4 * l.tile_columns;
  if (!l.whole) {
    clear(whole, 16 * l.tiles * L);
    for (long y = 0; y < l.height; ++y)
      for (long i = 0; i < l.width * L; ++i) whole[y * row * L + i] = map[y * l.width * L + i];
  }
  map_to_frequencies<OutputTransposed, T>(l.whole ? map : whole, row, l.tile_rows, l.tile_columns,
                                          out, stride);
}

static Ref<const T, D> constant(Ref<T, D> r) { return {r.v, r.d}; }

// The nine shifted copies of each channel, [(channel, tap)][pixel].
void unfold(const T* image) {
  const Layer& l = net.layers[0];
  for (long c = 0; c < l.in; ++c)
    for (long tap = 0; tap < 9; ++tap) {
      const long dy = tap / 3 - 1, dx = tap % 3 - 1;
      T* row = columns + (c * 9 + tap) * column_stride(l);
      for (long y = 0; y < l.height; ++y, row += l.width) {
        const bool inside = y + dy >= 0 && y + dy < l.height;
        const T* from = image + (c * l.height + y + dy) * l.width + dx;
        const long begin = dx < 0 ? 1 : 0, end = dx > 0 ? l.width - 1 : l.width;
        for (long x = 0; x < l.width; ++x) row[x] = T(0);
        if (inside)
          for (long x = begin; x < end; ++x) row[x] = from[x];
      }
    }
}

void first_convolution() {
  const Layer& l = net.layers[0];
  const long taps = 9 * l.in;
  clear_plane(1);
  for (long image = 0; image < job.count; ++image) {
    unfold(job.images + image * l.in * l.pixels);
    const Ref<T, D> map = maps[0] + image * l.out_blocks * l.pixels * L;
    Product<T> p = {columns,
                    1,
                    column_stride(l),
                    0,
                    job.weights + l.packed_forward,
                    L,
                    0,
                    taps * L,
                    map.v,
                    L,
                    l.pixels * L,
                    taps,
                    1,
                    false};
    for (long block = 0; block < l.out_blocks; block += kPanel) {
      const long blocks = smaller(kPanel, l.out_blocks - block);
      p.b = job.weights + l.packed_forward + block * taps * L;
      p.c = map.v + block * l.pixels * L;
      multiply<T, 1>(p, l.pixels, blocks);
      if constexpr (D) {
        p.b = job.direction + l.packed_forward + block * taps * L;
        p.c = map.d + block * l.pixels * L;
        multiply<T, 1>(p, l.pixels, blocks);
      }
      for (long b = block; b < block + blocks; ++b) finish_block(0, image, b);
    }
  }
}

INLINE void add_gradient(long offset, Vec<T> g, bool accumulate) const {
  T* at = job.gradient + offset;
  store(at, accumulate ? load(at) + g : g);
}

// From the gradient of a block's output to that of its convolution's output, in `to`, which may be
// the block's own map.
void differentiate_block(long i, long image, long block, Ref<T, D> to) {
  const Layer& l = net.layers[i];
  const long at = image * l.out_blocks + block;
  const Place out = output_gradient(i, image, block);
  const Moments<T, D> m{means[i].get(at), roots[i].get(at)};
  BlockGradient<T, D> g;
  with_form(net.norm, net.relu, [&](auto form) INLINE_LAMBDA {
    g = differentiate<decltype(form), T, D>(l, affine(l, block), m, maps[i] + at * l.pixels * L,
                                            out.at, out.row, to);
  });
  if (!job.gradient) return;
  const bool more = job.accumulate || image > 0;
  if (net.norm) {
    // The norm takes the mean off, so the bias before it has no gradient at all.
    add_gradient(l.gradient_bias + block * L, g.shift.last() * T(0), more);
    add_gradient(l.gradient_scale + block * L, g.scale.last(), more);
    add_gradient(l.gradient_shift + block * L, g.shift.last(), more);
  } else {
    add_gradient(l.gradient_bias + block * L, g.shift.last(), more);
  }
}

// The gradient of block i's output, from the layer above; assembled in the plane but for the last.
Place output_gradient(long i, long image, long block) {
  const Layer& l = net.layers[i];
  if (i + 1 == net.depth) return features_of(feature_gradient, l, image, block);
  const Layer& next = net.layers[i + 1];
  const Ref<T, D> from = tiles_of(i + 1, image, block);
  const long stride = net.frequency_maps(next.in_blocks, job.count * next.tiles);
  auto assemble = [&](const T* tiles, T* to) INLINE_LAMBDA {
    frequencies_to_plane<T>(tiles, stride, next.tile_rows, next.tile_columns, to, next.plane_row);
  };
  assemble(from.v, plane.v);
  if constexpr (D) assemble(from.d, plane.d);
  return inside(next);
}

void convolution_backward(long i) {
  const Layer& l = net.layers[i];
  const long tiles = job.count * l.tiles;
  const long from = net.frequency_maps(l.in_blocks, tiles);
  const long to = net.frequency_maps(l.out_blocks, tiles);
  for (long image = 0; image < job.count; ++image)
    for (long block = 0; block < l.out_blocks; ++block) {
      differentiate_block(i, image, block, map_gradient);
      const Ref<T, D> out = outputs + (block * tiles + image * l.tiles) * L;
      read_map(l, map_gradient.v, out.v, to);
      if constexpr (D) read_map(l, map_gradient.d, out.d, to);
    }
  if (job.gradient) differentiate_weights(i);
  const long depth = l.out_blocks * L;
  for (long f = 0; f < kFrequencies; ++f) {
    const Product<T> p = {nullptr,      L,         1,           tiles * L, nullptr,   L,
                          L * L,        depth * L, nullptr,     L,         tiles * L, L,
                          l.out_blocks, false,     ahead(depth)};
    multiply_dual<L>(p, constant(outputs + f * to),
                     weights(l.packed_transposed + f * l.frequency_weights), inputs[i] + f * from,
                     tiles, l.in_blocks);
  }
}

void differentiate_weights(long i) {
  const Layer& l = net.layers[i];
  const long tiles = job.count * l.tiles, rows = l.in_blocks * L;
  const long from = net.frequency_maps(l.in_blocks, tiles);
  const long to = net.frequency_maps(l.out_blocks, tiles);
  for (long block = 0; block < l.out_blocks; block += kShare) {
    const long blocks = smaller(kShare, l.out_blocks - block);
    for (long f = 0; f < kFrequencies; ++f)
      for (long c = 0; c < l.in_blocks; ++c) {
        const Product<T> p = {nullptr,   1,       L, 0,        nullptr, L, 0,
                              tiles * L, nullptr, L, rows * L, tiles,   1, false};
        multiply_last<1, kWide>(p, constant(inputs[i] + f * from + c * tiles * L),
                                constant(outputs + f * to + block * tiles * L),
                                weight_gradient + f * panel_stride(l) + c * L * L, L, blocks);
      }
    for (long b = 0; b < blocks; ++b)
      for (long c = 0; c < l.in; ++c) {
        const long offset = l.gradient_weight + ((block + b) * l.in + c) * 9 * L;
        const T* tile = weight_gradient + (b * rows + c) * L;
        transform<WeightTransposed, T>(frequencies(tile, panel_stride(l)),
                                       [&](int y, int x, Vec<T> g) INLINE_LAMBDA {
                                         add_gradient(offset + (y * 3 + x) * L, g, job.accumulate);
                                       });
      }
  }
}

void first_backward() {
  const Layer& l = net.layers[0];
  const long taps = 9 * l.in;
  for (long image = 0; image < job.count; ++image) {
    const Ref<T, D> map = maps[0] + image * l.out_blocks * l.pixels * L;
    for (long block = 0; block < l.out_blocks; ++block)
      differentiate_block(0, image, block, map + block * l.pixels * L);
    if (job.gradient) {
      unfold(job.images + image * l.in * l.pixels);
      const Product<T> p = {
          nullptr,      column_stride(l), 1, 0,        nullptr,  L, 0,
          l.pixels * L, nullptr,          L, taps * L, l.pixels, 1, job.accumulate || image > 0};
      multiply_last<0>(p, {columns, nullptr}, constant(map), job.gradient + l.gradient_weight, taps,
                       l.out_blocks);
    }
    if (job.image_gradient)
      differentiate_image(constant(map), job.image_gradient + image * l.in * l.pixels);
  }
}

void differentiate_image(Ref<const T, D> map, T* out) {
  const Layer& l = net.layers[0];
  const Product<T> p = {nullptr,
                        L,
                        1,
                        l.pixels * L,
                        nullptr,
                        L,
                        L * L,
                        l.out_blocks * L * L,
                        nullptr,
                        L,
                        l.pixels * L,
                        L,
                        l.out_blocks,
                        false};
  multiply_last<L>(p, {D ? map.d : map.v, D ? map.v : nullptr},
                   swapped(weights(l.packed_transposed)), column_gradient, l.pixels,
                   column_blocks(l));
  fold(out);
}

// The transpose of unfold, through an image with a margin of one pixel (in `columns`).
void fold(T* out) {
  const Layer& l = net.layers[0];
  const long line = l.width + 2, plane = (l.height + 2) * line;
  for (long i = 0; i < l.in * plane; ++i) columns[i] = T(0);
  for (long k = 0; k < 9 * l.in; ++k) {
    const T* from = column_gradient + k / L * l.pixels * L + k % L;
    T* to = columns + k / 9 * plane + k % 9 / 3 * line + k % 3;
    for (long y = 0; y < l.height; ++y, to += line, from += l.width * L)
      for (long x = 0; x < l.width; ++x) to[x] += from[x * L];
  }
  for (long c = 0; c < l.in; ++c)
    for (long y = 0; y < l.height; ++y)
      for (long x = 0; x < l.width; ++x) *out++ = columns[c * plane + (y + 1) * line + x + 1];
}

// multiply_last forms a.v b.d + a.d b.v; for map' W + map W' both are handed over exchanged.
static Ref<const T, D> swapped(Ref<const T, D> r) {
  if constexpr (D) return {r.d, r.v};
  return r;
}
