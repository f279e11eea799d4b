// The first-order pass of a chain of stages, for one instruction set.
#pragma once

// Maps [pixel][image][channel] on which a kernel [tap][in][out] works.
template <class T>
struct Convolution {
  long count;              // images
  long height, width, in;  // comes in; `in` is the stride of a pixel's image
  long kernel_height, kernel_width, padding_y, padding_x;
  long rows, columns, out;  // goes out

  struct Range {
    long begin, end;
  };
  // Of `taps`, those that from an output at `at` find one of `size` inputs; and the other way.
  static Range inside(long at, long padding, long taps, long size) {
    return {larger(0, padding - at), smaller(taps, size + padding - at)};
  }

  const T* input(const T* x, long row, long column) const {
    return x + (row * width + column) * count * in;
  }

  void forward(const T* x, const T* weight, T* y) const {
    for (long row = 0; row < rows; ++row)
      for (long column = 0; column < columns; ++column, y += count * out) {
        const Range down = inside(row, padding_y, kernel_height, height);
        const Range across = inside(column, padding_x, kernel_width, width);
        Product<T> p{};
        p.a_row = in, p.a_inner = 1, p.a_outer = count * in;
        p.b_inner = out, p.b_outer = in * out, p.b_vector = kLanes<T>;
        p.c = y, p.c_row = out, p.c_vector = kLanes<T>;
        p.inner = in, p.outer = across.end - across.begin;
        for (long tap = down.begin; tap < down.end; ++tap) {
          p.a = input(x, row + tap - padding_y, column + across.begin - padding_x);
          p.b = weight + (tap * kernel_width + across.begin) * in * out;
          p.accumulate = tap > down.begin;
          multiply<T>(p, count, out / kLanes<T>);
        }
      }
  }

  // The gradient by the kernel, given that by the output.
  void weights(const T* x, const T* gradient, T* weight, bool accumulate) const {
    for (long down = 0; down < kernel_height; ++down)
      for (long across = 0; across < kernel_width; ++across, weight += in * out) {
        const Range row = inside(down, padding_y, rows, height);
        const Range column = inside(across, padding_x, columns, width);
        if (row.begin >= row.end || column.begin >= column.end) {  // of a small map: meets nothing
          if (!accumulate) clear(weight, in * out);
          continue;
        }
        Product<T> p{};
        p.a = input(x, row.begin + down - padding_y, column.begin + across - padding_x);
        p.a_row = 1, p.a_inner = in, p.a_outer = width * count * in;
        p.b = gradient + (row.begin * columns + column.begin) * count * out;
        p.b_inner = out, p.b_outer = columns * count * out, p.b_vector = kLanes<T>;
        p.c = weight, p.c_row = out, p.c_vector = kLanes<T>;
        p.inner = (column.end - column.begin) * count, p.outer = row.end - row.begin;
        p.accumulate = accumulate;
        multiply<T, 1>(p, in, out / kLanes<T>);
      }
  }
};

template <class T>
class Chain {
  static constexpr long L = kLanes<T>;

 public:
  Chain(const chain::Network& network, long count, T* arena = nullptr)
      : net(network), count(count), begin(arena), next(arena) {
    long gradient = 0, input_gradient = 0;
    for (long i = 0; i < net.count; ++i) {
      const chain::Stage& s = net.stages[i];
      const long map = s.pixels() * count * s.out_stride;
      if (i == 0) inputs[0] = take(s.height * s.width * count * s.in_stride);
      maps[i] = take(map);
      inputs[i + 1] =
          s.pool == chain::Pool::none ? maps[i] : take(s.pooled() * count * s.out_stride);
      gradient = larger(gradient, map);
      input_gradient = larger(input_gradient, s.pooled() * count * s.out_stride);
    }
    map_gradient = take(gradient);
    input_gradient_ = take(input_gradient);
  }

  long size() const { return next - begin; }

  void run(const chain::Job<T>& job) const {
    unfold(job.images);
    for (long i = 0; i < net.count; ++i) {
      const chain::Stage& s = net.stages[i];
      convolution(s).forward(inputs[i], job.weights + s.packed_weight, maps[i]);
      activate(s, job.weights + s.packed_bias, maps[i], inputs[i + 1]);
    }
    if (job.logits) copy_logits(job.logits);
    if (!job.targets) return;
    differentiate_loss(job);
    for (long i = net.count - 1; i >= 0; --i) {
      const chain::Stage& s = net.stages[i];
      T* bias = job.gradient + s.packed_bias;
      if (!job.accumulate) clear(bias, s.out_stride);
      differentiate(s, job.weights + s.packed_bias, maps[i], input_gradient_, map_gradient, bias);
      convolution(s).weights(inputs[i], map_gradient, job.gradient + s.packed_weight,
                             job.accumulate);
      if (i > 0)
        backwards(s).forward(map_gradient, job.weights + s.packed_transposed, input_gradient_);
    }
  }

 private:
  T* take(long size) {
    T* at = next;
    next += (size + 15) / 16 * 16;
    return at;
  }

  Convolution<T> convolution(const chain::Stage& s) const {
    return {count,     s.height,  s.width, s.in_stride, s.kernel_height, s.kernel_width,
            s.padding, s.padding, s.rows,  s.columns,   s.out_stride};
  }
  // The gradient by the input is a convolution of that by the output, the kernel turned round.
  Convolution<T> backwards(const chain::Stage& s) const {
    return {count,
            s.rows,
            s.columns,
            s.out_stride,
            s.kernel_height,
            s.kernel_width,
            s.kernel_height - 1 - s.padding,
            s.kernel_width - 1 - s.padding,
            s.height,
            s.width,
            s.in_stride};
  }

  // Images as columns: the elements under the kernel at each place of the first map.
  void unfold(const T* images) const {
    const chain::Stage& s = net.stages[0];
    T* to = inputs[0];
    for (long row = 0; row < s.height; ++row)
      for (long column = 0; column < s.width; ++column)
        for (long image = 0; image < count; ++image)
          for (long c = 0; c < net.channels; ++c) {
            const T* plane = images + (image * net.channels + c) * net.height * net.width;
            for (long y = row - net.padding; y < row - net.padding + net.kernel_height; ++y)
              for (long x = column - net.padding; x < column - net.padding + net.kernel_width; ++x)
                *to++ = y >= 0 && y < net.height && x >= 0 && x < net.width
                            ? plane[y * net.width + x]
                            : T(0);
          }
  }

  static Vec<T> relu(const chain::Stage& s, Vec<T> z, Vec<T> sign) {
    return s.relu ? zero_unless<T>({z}, {sign}).v : z;
  }

  // window(first, pooled): vectors at which a pooling window and its pooled pixel begin.
  template <class Window>
  void each_window(const chain::Stage& s, const Window& window) const {
    const long pixel = count * s.out_stride;
    for (long row = 0; row < s.pooled_rows(); ++row)
      for (long column = 0; column < s.pooled_columns(); ++column)
        window((2 * row * s.columns + 2 * column) * pixel,
               (row * s.pooled_columns() + column) * pixel);
  }

  // body(offset in a pixel, block of channels) for every vector of a pixel.
  template <class Body>
  INLINE void each_vector(const chain::Stage& s, Body body) const {
    for (long image = 0; image < count; ++image)
      for (long c = 0; c < s.out_stride; c += L) body(image * s.out_stride + c, c);
  }

  // Which corner of a window is the greatest, the first of equals; a NaN is greater than all.
  struct Greatest {
    Vec<T> value;
    decltype(Vec<T>{} < Vec<T>{}) taken[4];
  };
  INLINE static Greatest greatest(const T* y, long down, long right) {
    Greatest g{load(y), {}};
    const long corners[4] = {0, right, down, down + right};
#pragma GCC unroll 4
    for (int p = 1; p < 4; ++p) {
      const Vec<T> v = load(y + corners[p]);
      g.taken[p] = (v > g.value) | (v != v);
      g.value = g.taken[p] ? v : g.value;
    }
    return g;
  }

  // out = pool(relu(y + bias)); y itself becomes it where there is no pool.
  void activate(const chain::Stage& s, const T* bias, T* y, T* out) const {
    const long pixel = count * s.out_stride, down = s.columns * pixel;
    if (s.pool == chain::Pool::none) {
      for (long i = 0; i < s.pixels(); ++i, y += pixel)
        each_vector(s, [&](long at, long c) INLINE_LAMBDA {
          const Vec<T> z = load(y + at) + load(bias + c);
          store(y + at, relu(s, z, z));
        });
      return;
    }
    each_window(s, [&](long first, long pooled) {
      each_vector(s, [&](long at, long c) INLINE_LAMBDA {
        const T* from = y + first + at;
        const Vec<T> b = load(bias + c);
        if (s.pool == chain::Pool::max) {
          const Vec<T> z = greatest(from, down, pixel).value + b;
          store(out + pooled + at, relu(s, z, z));
        } else {
          Vec<T> sum{};
          for (const long corner : {0L, pixel, down, down + pixel}) {
            const Vec<T> z = load(from + corner) + b;
            sum += relu(s, z, z);
          }
          store(out + pooled + at, sum * T(0.25));
        }
      });
    });
  }

  // The transpose of `activate`; `y` is what it left. Adds up the gradient by the bias.
  void differentiate(const chain::Stage& s, const T* bias, const T* y, const T* out_gradient,
                     T* gradient, T* bias_gradient) const {
    const long pixel = count * s.out_stride, down = s.columns * pixel;
    const auto add = [&](long c, Vec<T> g)
                         INLINE_LAMBDA { store(bias_gradient + c, load(bias_gradient + c) + g); };
    if (s.pool == chain::Pool::none) {
      for (long i = 0; i < s.pixels() * pixel; i += pixel)
        each_vector(s, [&](long at, long c) INLINE_LAMBDA {
          const Vec<T> g = relu(s, load(out_gradient + i + at), load(y + i + at));
          store(gradient + i + at, g);
          add(c, g);
        });
      return;
    }
    if (s.rows % 2 || s.columns % 2) clear(gradient, s.pixels() * pixel);
    each_window(s, [&](long first, long pooled) {
      each_vector(s, [&](long at, long c) INLINE_LAMBDA {
        const T* from = y + first + at;
        T* to = gradient + first + at;
        const long corners[4] = {0, pixel, down, down + pixel};
        const Vec<T> b = load(bias + c), g = load(out_gradient + pooled + at);
        if (s.pool == chain::Pool::max) {
          const Greatest best = greatest(from, down, pixel);
          Vec<T> left = relu(s, g, best.value + b);
          add(c, left);
#pragma GCC unroll 4
          for (int p = 3; p > 0; --p) {
            store(to + corners[p], best.taken[p] ? left : Vec<T>{});
            left = best.taken[p] ? Vec<T>{} : left;
          }
          store(to, left);
        } else {
          Vec<T> sum{};
#pragma GCC unroll 4
          for (int p = 0; p < 4; ++p) {
            const Vec<T> part = relu(s, g * T(0.25), load(from + corners[p]) + b);
            store(to + corners[p], part);
            sum += part;
          }
          add(c, sum);
        }
      });
    });
  }

  void copy_logits(T* to) const {
    const long stride = net.stages[net.count - 1].out_stride;
    for (long image = 0; image < count; ++image)
      for (long k = 0; k < net.classes; ++k) *to++ = inputs[net.count][image * stride + k];
  }

  // The mean cross-entropy with soft targets; its gradient by the logits in `input_gradient_`.
  void differentiate_loss(const chain::Job<T>& job) const {
    const chain::Stage& s = net.stages[net.count - 1];
    const long classes = net.classes;
    double sum = 0;
    for (long image = 0; image < count; ++image) {
      const T* z = inputs[net.count] + image * s.out_stride;
      const T* target = job.targets + image * classes;
      T* g = input_gradient_ + image * s.out_stride;
      T largest = z[0], norm = 0, mass = 0, linear = 0;
      for (long k = 1; k < classes; ++k) largest = z[k] > largest ? z[k] : largest;
      for (long k = 0; k < classes; ++k) {
        norm += g[k] = std::exp(z[k] - largest);
        mass += target[k];
        linear += target[k] * (z[k] - largest);
      }
      sum += double(mass * std::log(norm) - linear);
      for (long k = 0; k < classes; ++k) g[k] = (g[k] / norm * mass - target[k]) * job.mean;
      for (long k = classes; k < s.out_stride; ++k) g[k] = T(0);
    }
    *job.loss = sum * double(job.mean);
  }

  const chain::Network& net;
  const long count;
  T *begin, *next;
  T *inputs[chain::kMaxStages + 1], *maps[chain::kMaxStages];
  T *map_gradient, *input_gradient_;
};

// A stage's weights as they are given, (out, in, taps), and as they are packed, [tap][in][out]: by
// squares of a register's size, square(o, m, rows), whose rows are m = (in, tap); the rest one by
// one, single(o, m, row).
template <class T, class Square, class Single>
void each_square(const chain::Stage& s, const Square& square, const Single& single) {
  constexpr long L = kLanes<T>;
  const long taps = s.taps(), all = s.in * taps;
  const auto row = [&](long m) { return (m % taps * s.in_stride + m / taps) * s.out_stride; };
  const long whole_out = s.out / L * L, whole = all / L * L;
  for (long m = 0; m < whole; m += L) {
    long rows[L];
    for (long j = 0; j < L; ++j) rows[j] = row(m + j);
    for (long o = 0; o < whole_out; o += L) square(o, m, rows);
  }
  for (long o = 0; o < s.out; ++o)
    for (long m = o < whole_out ? whole : 0; m < all; ++m) single(o, m, row(m));
}

template <class T>
void chain_pack(const chain::Network& net, const T* parameters, T* packed) {
  constexpr long L = kLanes<T>;
  for (long i = 0; i < net.count; ++i) {
    const chain::Stage& s = net.stages[i];
    const long all = s.in * s.taps();
    const T* from = parameters + s.weight;
    T *weight = packed + s.packed_weight, *bias = packed + s.packed_bias;
    clear(bias, s.out_stride);
    for (long o = 0; o < s.out; ++o) bias[o] = parameters[s.bias + o];
    if (s.in < s.in_stride || s.out < s.out_stride)
      clear(weight, s.taps() * s.in_stride * s.out_stride);
    each_square<T>(
        s,
        [&](long o, long m, const long* rows) {
          Vec<T> v[L];
          for (long j = 0; j < L; ++j) v[j] = load(from + (o + j) * all + m);
          transpose<T>(v);
          for (long j = 0; j < L; ++j) store(weight + rows[j] + o, v[j]);
        },
        [&](long o, long m, long row) { weight[row + o] = from[o * all + m]; });
    if (i == 0) continue;
    for (long tap = 0; tap < s.taps(); ++tap) {
      const T* square = weight + tap * s.in_stride * s.out_stride;
      T* turned = packed + s.packed_transposed + (s.taps() - 1 - tap) * s.in_stride * s.out_stride;
      for (long c = 0; c < s.in_stride; c += L)
        for (long o = 0; o < s.out_stride; o += L) {
          Vec<T> v[L];
          for (long j = 0; j < L; ++j) v[j] = load(square + (c + j) * s.out_stride + o);
          transpose<T>(v);
          for (long j = 0; j < L; ++j) store(turned + (o + j) * s.in_stride + c, v[j]);
        }
    }
  }
}

template <class T>
void chain_collect(const chain::Network& net, const T* partials, long slots, long stride, T* out) {
  constexpr long L = kLanes<T>;
  for (long i = 0; i < net.count; ++i) {
    const chain::Stage& s = net.stages[i];
    const long all = s.in * s.taps();
    T* to = out + s.weight;
    const auto sum = [&](long at) {
      T total = partials[at];
      for (long slot = 1; slot < slots; ++slot) total += partials[slot * stride + at];
      return total;
    };
    each_square<T>(
        s,
        [&](long o, long m, const long* rows) {
          Vec<T> v[L];
          for (long j = 0; j < L; ++j) {
            const T* at = partials + s.packed_weight + rows[j] + o;
            v[j] = load(at);
            for (long slot = 1; slot < slots; ++slot) v[j] += load(at + slot * stride);
          }
          transpose<T>(v);
          for (long j = 0; j < L; ++j) store(to + (o + j) * all + m, v[j]);
        },
        [&](long o, long m, long row) { to[o * all + m] = sum(s.packed_weight + row + o); });
    for (long o = 0; o < s.out; ++o) out[s.bias + o] = sum(s.packed_bias + o);
  }
}

template <class T>
long chain_arena(const chain::Network& net, long count) {
  return Chain<T>(net, count).size();
}

template <class T>
void chain_run(const chain::Job<T>& job) {
  Chain<T>(*job.network, job.count, job.arena).run(job);
}
