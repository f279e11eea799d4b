// The ConvNet family as the C++ passes see it: shapes, buffer layout and the table of kernels.
//
// A block is [3x3 convolution, instance norm, ReLU, 2x2 average pool]; blocks are followed by a
// linear head. Maps are held as [channel block][pixel][lane], one vector register of channels wide.
// 3x3 convolutions after the first run in the Winograd F(4x4, 3x3) domain (Lavin & Gray 2015,
// arXiv:1509.09308), held as [frequency][channel block][tile][lane].
#pragma once

#include <cmath>
#include <type_traits>
#include <utility>

namespace iadd::convnet {

constexpr int kMaxDepth = 8;
constexpr long kFrequencies = 36;
constexpr long kPanel = 4;  // vectors of channels of which a panel of weights consists

// Where a block's convolution and norm begin.
struct Offsets {
  long weight, bias, scale, shift;
};

struct Layer {
  long in, out;                // channels
  long height, width, pixels;  // the map that is convolved
  long pooled_height, pooled_width, pooled;
  bool pool;
  long in_blocks, out_blocks;           // channel blocks of one vector
  long tile_rows, tile_columns, tiles;  // 4x4 output tiles of one map
  bool whole;                           // the tiles end where the map does
  // The map with the margin of zeros that its tiles reach into.
  long plane_row, plane;
  long frequency_weights;  // stride between frequencies of the transformed weights
  // In the parameters as they are given, (out, in, 3, 3); in the packed weights, of which the first
  // layer's are there transposed too; in the packed gradient, [out block][(input, tap)][lane].
  Offsets flat, packed, gradient;
  long packed_transposed;
};

struct Network {
  long channels, height, width, classes, filters, depth;
  bool norm, relu, pool;
  long lanes;
  Layer layers[kMaxDepth];
  long features, padded_features;  // of one image
  long head_weight, head_bias, parameters;
  long packed_head, packed_head_bias, packed_size;
  long gradient_head, gradient_head_bias, gradient_size;
  long pack_units, collect_units;  // independent pieces of work before and after the passes
};

// Calls task(context, index, thread) for every index below `count`, on several threads at once.
// Which thread takes which index is chance, so results must not depend on it.
using Task = void (*)(void* context, long index, long thread);
using Spread = void (*)(long count, void* context, Task task);

enum class Seed { cross_entropy, features, none };  // where the backward pass begins

// What a batch and a micro-batch of it have in common. Null outputs are not computed. With a
// direction of the parameters, every gradient is its derivative along that.
template <class T>
struct Tensors {
  const T* images = nullptr;  // (count, channels, height, width)
  const T* seed = nullptr;    // targets, or the cotangent of features: (count, ...)
  Seed kind = Seed::none;
  T* image_gradient = nullptr;   // (count, channels, height, width)
  T* target_gradient = nullptr;  // (count, classes), with a direction only
  T* logits = nullptr;           // (count, classes)
  T* features = nullptr;         // (count, features)
  double* loss = nullptr;        // the mean loss, or this micro-batch's share of it
  double* slope = nullptr;       // <gradient, direction>, or this micro-batch's share
};

template <class T>
struct Job : Tensors<T> {
  const Network* network = nullptr;
  const T* weights = nullptr;    // packed
  const T* direction = nullptr;  // packed
  long count = 0;
  T mean = 0;  // 1 / batch
  T* arena = nullptr;
  Spread spread = nullptr;  // null: the calling thread does it all
  T* gradient = nullptr;    // packed
  bool accumulate = false;  // add to `gradient` instead of overwriting it
};

// Shapes and layout for registers of `lanes` channels. Throws std::invalid_argument.
Network network(long channels, long height, long width, long classes, long filters, long depth,
                bool norm, bool relu, bool pool, long lanes);

template <class T>
struct Kernels {
  long lanes;
  // Elements that a micro-batch of `count` images needs when `threads` work on it.
  long (*arena)(const Network&, long count, bool tangent, long threads);
  void (*pack)(const Network&, const T* parameters, T* packed, long unit);
  void (*run)(const Job<T>&);
  // The sum of the partial gradients; with a base, base - rate * sum, which may be in place.
  void (*collect)(const Network&, const T* partials, long slots, long stride, const T* base, T rate,
                  T* out, long unit);
};

namespace avx512 {
template <class T>
Kernels<T> kernels();
}
namespace avx2 {
template <class T>
Kernels<T> kernels();
}
namespace generic {
template <class T>
Kernels<T> kernels();
}

}  // namespace iadd::convnet
