// Plain feed-forward networks (MLP, LeNet, AlexNet) as their native first-order pass sees them.
//
// A stage is a convolution of stride 1, a ReLU or none, a 2x2 pool or none; a linear layer is a
// convolution whose kernel is as large as the map. Maps are held as [pixel][image][channel], so
// that a tap meets all images at once and padding costs nothing: what a tap finds outside the map
// is left out. The first stage works on its input's unfolded columns.
#pragma once

namespace iadd::chain {

constexpr int kMaxStages = 16;

enum class Pool { none, max, average };

struct Stage {
  long in, out;                // channels; of the first stage, the elements of a column
  long in_stride, out_stride;  // the same in whole registers, but for the first stage's columns
  long height, width;          // the map that comes in
  long kernel_height, kernel_width, padding;
  long rows, columns;  // the map after the convolution
  bool relu;
  Pool pool;
  long weight, bias;  // offsets in the flat parameter vector
  // Offsets in the packed weights and gradients: [tap][in][out], and [tap][out][in] backwards.
  long packed_weight, packed_bias, packed_transposed;

  // Inlined, always: this is compiled for several instruction sets.
#define INLINED __attribute__((always_inline))
  INLINED long taps() const { return kernel_height * kernel_width; }
  INLINED long pixels() const { return rows * columns; }
  INLINED long pooled_rows() const { return pool == Pool::none ? rows : rows / 2; }
  INLINED long pooled_columns() const { return pool == Pool::none ? columns : columns / 2; }
  INLINED long pooled() const { return pooled_rows() * pooled_columns(); }
#undef INLINED
};

struct Network {
  long channels, height, width, kernel_height, kernel_width, padding;  // what is unfolded
  long classes, parameters, count;
  Stage stages[kMaxStages];
  long gradient_size, packed_size;  // a packed gradient is laid out as the weights begin
};

// One micro-batch.
template <class T>
struct Job {
  const Network* network;
  const T* weights;  // packed
  const T* images;   // (count, channels, height, width)
  long count;
  T* arena;
  T* logits;         // (count, classes), null: not wanted
  const T* targets;  // (count, classes), null: only the way forward, and nothing of what follows
  T mean;            // 1 / batch
  T* gradient;       // packed
  bool accumulate;   // add to `gradient` instead of overwriting it
  double* loss;      // this micro-batch's share of the mean loss
};

template <class T>
struct Kernels {
  long (*arena)(const Network&, long count);  // elements that a micro-batch needs
  void (*pack)(const Network&, const T* parameters, T* packed);
  void (*run)(const Job<T>&);
  // The sum of the partial gradients, which lie `stride` apart, as a flat vector.
  void (*collect)(const Network&, const T* partials, long slots, long stride, T* out);
};

}  // namespace iadd::chain
