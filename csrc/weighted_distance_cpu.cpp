// The weighted parameter distance and the step on its weights on the CPU.

#include <ATen/Parallel.h>
#include <ATen/Version.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "weighted_distance.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace iadd {
namespace {

// ------------------------------------------------------------------------------------------- Loops

constexpr int kLanes = 16;
// The unit of summation and of work: small enough that what is staged stays in the first cache,
// and fixed, so that the order of summation does not depend on the number of threads.
constexpr int64_t kChunk = 4096;
// From here on a gradient does not stay in the caches: store it past them.
constexpr int64_t kStream = int64_t{1} << 20;
// Below this many elements waking a second thread costs more than it saves.
constexpr int64_t kSerial = int64_t{1} << 15;

enum class Power { none, linear, squared };

// Of one chunk, or of all.
struct Sums {
  double numerator, plain_numerator, denominator, plain_denominator;
};

template <class T>
struct Coefficients {
  T scale, mean, mean_gradient, beta1, rest1, beta2, rest2, step_size, root, eps, low, high;
};

template <class T>
struct Loops {
  using DistanceLoop = Sums(const T* s, const T* o, const T* t, const T* w, int64_t n,
                            bool weigh_start, T* gs, T* gw, bool stream);
  DistanceLoop* distance[3];  // by Power
  double (*sum)(const T* v, int64_t n);
  double (*inner)(const T* w, const T* g, int64_t n, Coefficients<T> c);
  void (*adam)(T* v, const T* w, const T* g, T* m, T* s, int64_t n, Coefficients<T> c);
  void (*clamp)(const T* v, T* w, int64_t n, Coefficients<T> c);
};

// One binary for every node of a cluster: the loops are compiled for each instruction set and
// chosen when they are first run, by torch's own finding (so ATEN_CPU_CAPABILITY holds here too).
namespace plain {
#define IADD_LANES 2
#include "weighted_distance_chunk.h"
#undef IADD_LANES
}  // namespace plain
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define IADD_X86
#pragma GCC push_options
#pragma GCC target("avx2,fma")
namespace avx2 {
#define IADD_LANES 4
#include "weighted_distance_chunk.h"
#undef IADD_LANES
}  // namespace avx2
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
namespace avx512 {
#define IADD_LANES 8
#include "weighted_distance_chunk.h"
#undef IADD_LANES
}  // namespace avx512
#pragma GCC pop_options
#endif

template <class T>
const Loops<T>& loops() {
  static const Loops<T>& chosen = [&]() -> const Loops<T>& {
#ifdef IADD_X86
    if (instruction_set() == "avx512") return avx512::kLoops<T>;
    if (instruction_set() == "avx2") return avx2::kLoops<T>;
#endif
    return plain::kLoops<T>;
  }();
  return chosen;
}

int64_t count_chunks(int64_t size) { return (size + kChunk - 1) / kChunk; }

// Call f(chunk, begin, end) for every chunk, in parallel.
template <class F>
void each_chunk(int64_t size, const F& f) {
  const int64_t chunks = count_chunks(size), threads = at::get_num_threads();
  const int64_t grain = std::max(kSerial / kChunk, (chunks + threads - 1) / threads);
  at::parallel_for(0, chunks, grain, [&](int64_t first, int64_t last) {
    for (int64_t k = first; k < last; ++k) f(k, k * kChunk, std::min(size, (k + 1) * kChunk));
  });
}

// ---------------------------------------------------------------------------------------- Distance

// Elements [begin, end) of an array as T: where they lie, or staged into `buffer`.
template <class T>
const T* staged(const void* from, Type type, int64_t begin, int64_t end, T* buffer) {
  auto widened = [&](auto* array) {
    for (int64_t i = begin; i < end; ++i) buffer[i - begin] = static_cast<float>(array[i]);
    return buffer;
  };
  if (type == Type::bfloat16) return widened(static_cast<const c10::BFloat16*>(from));
  if (type == Type::float16) return widened(static_cast<const c10::Half*>(from));
  return static_cast<const T*>(from) + begin;
}

// The segment of element `at`: the last one that begins at or before it.
int64_t segment_of(const Distance& p, int64_t at) {
  return std::upper_bound(p.offsets, p.offsets + p.segments, at) - p.offsets - 1;
}

// Call f(segment, begin, end) for the pieces that segments cut [begin, end) into.
template <class F>
void each_piece(const Distance& p, int64_t begin, int64_t end, const F& f) {
  for (int64_t s = segment_of(p, begin); begin < end; ++s) {
    const int64_t stop = std::min(end, p.offsets[s + 1]);
    if (begin < stop) f(s, begin, stop);
    begin = std::max(begin, stop);
  }
}

// The inputs of one chunk, staged where they are not plain arrays of T.
template <class T>
struct Chunk {
  const T *s, *o, *t, *w;
  T buffer[4][kChunk];

  Chunk(const Distance& p, int64_t begin, int64_t end) {
    s = staged(p.student, p.type, begin, end, buffer[0]);
    o = staged(p.start, p.expert, begin, end, buffer[1]);
    t = staged(p.target, p.expert, begin, end, buffer[2]);
    w = static_cast<const T*>(p.weights);
    if (p.offsets) {
      each_piece(p, begin, end, [&](int64_t segment, int64_t from, int64_t to) {
        std::fill(buffer[3] + from - begin, buffer[3] + to - begin, w[segment]);
      });
      w = buffer[3];
    } else if (w) {
      w += begin;
    }
    if (p.mask) keep_where(p.mask + begin, end - begin);
  }

  // Positions that are masked out become zeros, whatever was there, and then add nothing.
  void keep_where(const bool* mask, int64_t n) {
    const T** arrays[] = {&s, &o, &t, &w};
    for (int a = 0; a < 4; ++a) {
      if (!*arrays[a]) continue;
      for (int64_t i = 0; i < n; ++i) buffer[a][i] = mask[i] ? (*arrays[a])[i] : T(0);
      *arrays[a] = buffer[a];
    }
  }
};

template <class T>
T* at_element(void* array, int64_t i) {
  return array ? static_cast<T*>(array) + i : nullptr;
}

// The unscaled gradient of one chunk's weights where the start is weighted too: it wants the loss,
// so it comes in a second pass. d L / d w_p is scale * w_p (d_p^2 - L e_p^2): a difference, hence
// in double.
template <class T, class Out>
void weights_gradient_chunk(const Chunk<T>& c, int64_t n, bool squared, double loss, Out* gw) {
  for (int64_t i = 0; i < n; ++i) {
    const double d = c.s[i] - c.t[i], e = c.o[i] - c.t[i];
    gw[i] = static_cast<Out>((squared ? c.w[i] : 0.5) * (d * d - loss * (e * e)));
  }
}

// Fresh memory costs a page fault every 4 KiB, which is more than all the arithmetic: ask for huge
// pages. Only a hint, and only for whole pages inside the array.
void prefer_huge_pages(void* array, int64_t bytes) {
#ifdef __linux__
  constexpr uintptr_t kPage = 4096;
  const auto begin = (reinterpret_cast<uintptr_t>(array) + kPage - 1) / kPage * kPage;
  const auto end = (reinterpret_cast<uintptr_t>(array) + bytes) / kPage * kPage;
  if (array && begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

template <class T>
void run(const Distance& p) {
  if (p.size >= kStream) {
    prefer_huge_pages(p.student_gradient, p.size * sizeof(T));
    if (!p.offsets) prefer_huge_pages(p.weights_gradient, p.size * sizeof(T));
  }
  const int64_t chunks = count_chunks(p.size);
  const auto power = !p.weights ? Power::none : p.squared ? Power::squared : Power::linear;
  const auto& loop = *loops<T>().distance[static_cast<int>(power)];
  const bool stream = p.size >= kStream &&
                      reinterpret_cast<uintptr_t>(p.student_gradient) % 64 == 0 &&
                      reinterpret_cast<uintptr_t>(p.weights_gradient) % 64 == 0;
  // A piece is (chunk k, segment s) and gets place k + s: along the vector one of the two grows
  // from each piece to the next, so places never meet.
  std::vector<double> pieces(p.offsets && p.weights_gradient ? chunks + p.segments : 0);
  auto add_pieces = [&]<class G>(int64_t k, int64_t begin, int64_t end, const G* gw) {
    each_piece(p, begin, end, [&](int64_t segment, int64_t from, int64_t to) {
      pieces[k + segment] = loops<G>().sum(gw + from - begin, to - from);
    });
  };
  const bool second_pass = p.weights_gradient && p.weighted_denominator;

  std::vector<Sums> sums(chunks);
  each_chunk(p.size, [&](int64_t k, int64_t begin, int64_t end) {
    const Chunk<T> c(p, begin, end);
    T* gs = at_element<T>(p.student_gradient, begin);
    if (second_pass || pieces.empty()) {
      T* gw = second_pass ? nullptr : at_element<T>(p.weights_gradient, begin);
      sums[k] = loop(c.s, c.o, c.t, c.w, end - begin, p.weighted_denominator, gs, gw, stream);
    } else {
      alignas(64) T gw[kChunk];
      sums[k] = loop(c.s, c.o, c.t, c.w, end - begin, p.weighted_denominator, gs, gw, false);
      add_pieces(k, begin, end, gw);
    }
  });
  Sums all{};
  for (const Sums& s : sums) {
    all.numerator += s.numerator, all.plain_numerator += s.plain_numerator;
    all.denominator += s.denominator, all.plain_denominator += s.plain_denominator;
  }
  const double loss = all.numerator / all.denominator;
  *static_cast<T*>(p.loss) = static_cast<T>(loss);
  *static_cast<T*>(p.unweighted) = static_cast<T>(all.plain_numerator / all.plain_denominator);
  *static_cast<T*>(p.scale) = static_cast<T>(2 / all.denominator);

  if (second_pass) {
    each_chunk(p.size, [&](int64_t k, int64_t begin, int64_t end) {
      const Chunk<T> c(p, begin, end);
      if (p.offsets) {
        double gw[kChunk];
        weights_gradient_chunk(c, end - begin, p.squared, loss, gw);
        add_pieces(k, begin, end, gw);
      } else {
        T* gw = at_element<T>(p.weights_gradient, begin);
        weights_gradient_chunk(c, end - begin, p.squared, loss, gw);
      }
    });
  }
  if (pieces.empty()) return;
  for (int64_t s = 0; s < p.segments; ++s) {
    const int64_t begin = p.offsets[s], end = p.offsets[s + 1];
    double sum = 0;
    for (int64_t k = begin / kChunk; begin < end && k <= (end - 1) / kChunk; ++k)
      sum += pieces[k + s];
    static_cast<T*>(p.weights_gradient)[s] = static_cast<T>(sum);
  }
}

// -------------------------------------------------------------------------------------------- Step

double total(const std::vector<double>& sums) {
  double sum = 0;
  for (const double s : sums) sum += s;
  return sum;
}

// Three sweeps, one for each number that the next one cannot do without: the mean of v and of the
// gradient it takes back; then, after Adam has moved v, the mean of the new v.
template <class T>
void run(const Step& p) {
  T *v = static_cast<T*>(p.v), *w = static_cast<T*>(p.weights);
  T *m = static_cast<T*>(p.exp_avg), *s = static_cast<T*>(p.exp_avg_sq);
  const T* g = static_cast<const T*>(p.gradient);
  Coefficients<T> c{
      .scale = p.scale ? *static_cast<const T*>(p.scale) : T(1),
      .mean = 1,
      .mean_gradient = 0,
      .beta1 = static_cast<T>(p.beta1),
      .rest1 = static_cast<T>(1 - p.beta1),
      .beta2 = static_cast<T>(p.beta2),
      .rest2 = static_cast<T>(1 - p.beta2),
      .step_size = static_cast<T>(p.step_size),
      .root = static_cast<T>(p.root),
      .eps = static_cast<T>(p.eps),
      .low = static_cast<T>(p.low),
      .high = static_cast<T>(p.high),
  };
  const Loops<T>& loop = loops<T>();
  std::vector<double> sums(p.normalise ? count_chunks(p.size) : 0), inner(sums);
  if (p.normalise) {
    each_chunk(p.size, [&](int64_t k, int64_t begin, int64_t end) {
      sums[k] = loop.sum(v + begin, end - begin);
      inner[k] = loop.inner(w + begin, g + begin, end - begin, c);
    });
    c.mean = static_cast<T>(total(sums) / p.size);
    c.mean_gradient = static_cast<T>(total(inner) / p.size);
  }
  each_chunk(p.size, [&](int64_t k, int64_t begin, int64_t end) {
    const int64_t n = end - begin;
    loop.adam(v + begin, w + begin, g + begin, m + begin, s + begin, n, c);
    if (p.normalise)
      sums[k] = loop.sum(v + begin, n);
    else
      loop.clamp(v + begin, w + begin, n, c);
  });
  if (!p.normalise) return;
  c.mean = static_cast<T>(total(sums) / p.size);
  each_chunk(p.size, [&](int64_t, int64_t begin, int64_t end) {
    loop.clamp(v + begin, w + begin, end - begin, c);
  });
}

}  // namespace

std::string instruction_set() {
#ifdef IADD_X86
  const std::string found = at::get_cpu_capability();
  if (found.rfind("AVX512", 0) == 0) return "avx512";
  if (found == "AVX2") return "avx2";
#endif
  return "plain";
}

void compute(const Distance& p) { p.type == Type::float64 ? run<double>(p) : run<float>(p); }

void compute(const Step& p) { p.type == Type::float64 ? run<double>(p) : run<float>(p); }

}  // namespace iadd
