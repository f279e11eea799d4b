// Members of Pass: the convolutions with what follows them, forward and backward.
#pragma once

// From a convolution's output map to the next layer's transformed input, or to the features.
void finish_block(long i, long image, long block) {
  const Layer& l = net.layers[i];
  const long at = image * l.out_blocks + block;
  const Ref<T, D> map = maps[i] + at * l.pixels * L;
  const Num<T, D> root = normalise<T, D>(l, net.norm, map, weight(l.packed_bias + block * L));
  roots[i].put(at, root);
  if (i + 1 == net.depth)
    return activate<T, D>(l, affine(l, block), map,
                          features + image * net.padded_features + block * l.pooled * L);
  activate<T, D>(l, affine(l, block), map, pooled);
  const Layer& next = net.layers[i + 1];
  const long tiles = job.count * next.tiles;
  const Ref<T, D> to = inputs[i + 1] + (block * tiles + image * next.tiles) * L;
  const long stride = net.frequency_maps(next.in_blocks, tiles);
  map_to_frequencies<InputTransform, T>(pooled.v, next.height, next.width, 1, to.v, stride);
  if constexpr (D)
    map_to_frequencies<InputTransform, T>(pooled.d, next.height, next.width, 1, to.d, stride);
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
  for (long image = 0; image < job.count; ++image)
    for (long block = 0; block < l.out_blocks; ++block) {
      const Ref<T, D> map = maps[i] + (image * l.out_blocks + block) * l.pixels * L;
      const Ref<T, D> in = outputs + (block * tiles + image * l.tiles) * L;
      frequencies_to_map<T>(in.v, to, l.height, l.width, map.v);
      if constexpr (D) frequencies_to_map<T>(in.d, to, l.height, l.width, map.d);
      finish_block(i, image, block);
    }
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
      const long blocks = l.out_blocks - block < kPanel ? l.out_blocks - block : kPanel;
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

// From the gradient of a block's output to that of its convolution's output, in place in its map.
void differentiate_block(long i, long image, long block, Ref<T, D> out_gradient) {
  const Layer& l = net.layers[i];
  const long at = image * l.out_blocks + block;
  const BlockGradient<T, D> g = differentiate<T, D>(l, affine(l, block), roots[i].get(at),
                                                    maps[i] + at * l.pixels * L, out_gradient);
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

// The gradient of block i's output, from the layer above; `pooled` where it has to be assembled.
Ref<T, D> output_gradient(long i, long image, long block) {
  const Layer& l = net.layers[i];
  if (i + 1 == net.depth)
    return feature_gradient + image * net.padded_features + block * l.pooled * L;
  const Layer& next = net.layers[i + 1];
  const long tiles = job.count * next.tiles;
  const Ref<T, D> from = inputs[i + 1] + (block * tiles + image * next.tiles) * L;
  const long stride = net.frequency_maps(next.in_blocks, tiles);
  frequencies_to_input<T>(from.v, stride, next.height, next.width, pooled.v);
  if constexpr (D) frequencies_to_input<T>(from.d, stride, next.height, next.width, pooled.d);
  return pooled;
}

void convolution_backward(long i) {
  const Layer& l = net.layers[i];
  const long tiles = job.count * l.tiles;
  const long from = net.frequency_maps(l.in_blocks, tiles);
  const long to = net.frequency_maps(l.out_blocks, tiles);
  for (long image = 0; image < job.count; ++image)
    for (long block = 0; block < l.out_blocks; ++block) {
      differentiate_block(i, image, block, output_gradient(i, image, block));
      const Ref<T, D> map = maps[i] + (image * l.out_blocks + block) * l.pixels * L;
      const Ref<T, D> out = outputs + (block * tiles + image * l.tiles) * L;
      map_to_frequencies<OutputTransposed, T>(map.v, l.height, l.width, 0, out.v, to);
      if constexpr (D)
        map_to_frequencies<OutputTransposed, T>(map.d, l.height, l.width, 0, out.d, to);
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
  for (long block = 0; block < l.out_blocks; block += kPanel) {
    const long blocks = l.out_blocks - block < kPanel ? l.out_blocks - block : kPanel;
    for (long f = 0; f < kFrequencies; ++f)
      for (long c = 0; c < l.in_blocks; ++c) {
        const Product<T> p = {nullptr,   1,       L, 0,        nullptr, L, 0,
                              tiles * L, nullptr, L, rows * L, tiles,   1, false};
        multiply_last<1>(p, constant(inputs[i] + f * from + c * tiles * L),
                         constant(outputs + f * to + block * tiles * L),
                         weight_gradient + f * panel_stride(l) + c * L * L, L, blocks);
      }
    for (long b = 0; b < blocks; ++b)
      for (long c = 0; c < l.in; ++c) {
        Vec<T> tile[kFrequencies], taps[9];
        load_tile(weight_gradient + (b * rows + c) * L, panel_stride(l), tile);
        transform<WeightTransposed, T>(tile, taps);
        const long offset = l.gradient_weight + ((block + b) * l.in + c) * 9 * L;
        for (long tap = 0; tap < 9; ++tap)
          add_gradient(offset + tap * L, taps[tap], job.accumulate);
      }
  }
}

void first_backward() {
  const Layer& l = net.layers[0];
  const long taps = 9 * l.in;
  for (long image = 0; image < job.count; ++image) {
    for (long block = 0; block < l.out_blocks; ++block)
      differentiate_block(0, image, block, output_gradient(0, image, block));
    const Ref<T, D> map = maps[0] + image * l.out_blocks * l.pixels * L;
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
