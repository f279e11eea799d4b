// Shapes of a ConvNet and where its parameters lie, flat and packed.
#include <stdexcept>
#include <string>

#include "cpu_convnet.h"

namespace iadd::convnet {
namespace {

long blocks(long count, long size) { return (count + size - 1) / size; }

void place_map(Layer& l, bool pool) {
  l.pixels = l.height * l.width;
  // As in iadd/networks: one-pixel maps would be constant under the norm.
  l.pool = pool && l.height >= 4 && l.width >= 4;
  l.pooled_height = l.pool ? l.height / 2 : l.height;
  l.pooled_width = l.pool ? l.width / 2 : l.width;
  l.pooled = l.pooled_height * l.pooled_width;
  l.tile_rows = blocks(l.height, 4);
  l.tile_columns = blocks(l.width, 4);
  l.tiles = l.tile_rows * l.tile_columns;
  l.whole = l.height % 4 == 0 && l.width % 4 == 0;
  l.plane_row = 4 * l.tile_columns + 2;
  l.plane = (4 * l.tile_rows + 2) * l.plane_row;
}

// A weight and then `vectors` of bias, scale and shift; where they end.
long place(Offsets& o, long at, long weight, long vector, int vectors = 3) {
  o = {at, at + weight, at + weight + vector, at + weight + 2 * vector};
  return o.bias + vectors * vector;
}

void place_layer(Network& n, Layer& l, bool first) {
  const long L = n.lanes, rows = l.out_blocks * L, taps = 9 * l.in;
  n.parameters = place(l.flat, n.parameters, l.out * taps, l.out, n.norm ? 3 : 1);
  n.gradient_size = place(l.gradient, n.gradient_size, taps * rows, rows);
  l.frequency_weights = (l.in_blocks * rows + 1) * L;
  l.packed_transposed = n.packed_size;
  if (first) n.packed_size += blocks(taps, L) * rows * L;
  const long weight = first ? taps * rows : kFrequencies * l.frequency_weights;
  n.packed_size = place(l.packed, n.packed_size, weight, rows);
  n.pack_units += l.out_blocks * (first ? 1 : l.in_blocks);
  n.collect_units += l.out_blocks;
}

void place_head(Network& n) {
  const Layer& last = n.layers[n.depth - 1];
  n.features = last.out * last.pooled;
  n.padded_features = last.out_blocks * n.lanes * last.pooled;
  n.head_weight = n.parameters, n.parameters += n.classes * n.features;
  n.head_bias = n.parameters, n.parameters += n.classes;
  n.packed_head = n.packed_size, n.packed_size += n.classes * n.padded_features;
  n.packed_head_bias = n.packed_size, n.packed_size += blocks(n.classes, n.lanes) * n.lanes;
  n.gradient_head = n.gradient_size, n.gradient_size += n.classes * n.padded_features;
  n.gradient_head_bias = n.gradient_size;
  n.gradient_size += blocks(n.classes, n.lanes) * n.lanes;
  n.pack_units += 1;
  n.collect_units += 1;
}

}  // namespace

Network network(long channels, long height, long width, long classes, long filters, long depth,
                bool norm, bool relu, bool pool, long lanes) {
  if (depth < 1 || depth > kMaxDepth)
    throw std::invalid_argument("ConvNet depth " + std::to_string(depth) + " is not in 1.." +
                                std::to_string(kMaxDepth));
  if (channels < 1 || height < 1 || width < 1 || classes < 1 || filters < 1)
    throw std::invalid_argument("ConvNet sizes must be positive");
  Network n{};
  n.channels = channels, n.height = height, n.width = width, n.classes = classes;
  n.filters = filters, n.depth = depth, n.norm = norm, n.relu = relu, n.pool = pool;
  n.lanes = lanes;
  for (long i = 0; i < depth; ++i) {
    Layer& l = n.layers[i];
    l.in = i == 0 ? channels : filters;
    l.out = filters;
    l.height = i == 0 ? height : n.layers[i - 1].pooled_height;
    l.width = i == 0 ? width : n.layers[i - 1].pooled_width;
    l.in_blocks = blocks(l.in, lanes);
    l.out_blocks = blocks(l.out, lanes);
    place_map(l, pool);
    place_layer(n, l, i == 0);
  }
  place_head(n);
  return n;
}

}  // namespace iadd::convnet
