// The weighted parameter distance on the CPU.

#include <ATen/Parallel.h>
#include <ATen/Version.h>

#include <algorithm>
#include <vector>

#include "distance.h"
#include "distance_loops.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

// One binary for every node of a cluster: the loops are compiled for each instruction set and
// chosen when they are first run, by torch's own finding (so ATEN_CPU_CAPABILITY holds here too).
#define IADD_ISA plain
#define IADD_LANES 2
#include "distance_chunk.h"
#undef IADD_LANES
#undef IADD_ISA
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define IADD_X86
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#define IADD_ISA avx2
#define IADD_LANES 4
#include "distance_chunk.h"
#undef IADD_LANES
#undef IADD_ISA
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")
#define IADD_ISA avx512
#define IADD_LANES 8
#include "distance_chunk.h"
#undef IADD_LANES
#undef IADD_ISA
#pragma GCC pop_options
#endif

namespace iadd {
namespace {

// From here on a gradient does not stay in the caches: store it past them.
constexpr int64_t kStream = int64_t{1} << 20;
// Below this many elements waking a second thread costs more than it saves.
constexpr int64_t kSerial = int64_t{1} << 15;

template <class T, bool weighted>
DistanceLoop<T>& loop() {
  static DistanceLoop<T>& chosen = [&]() -> DistanceLoop<T>& {
#ifdef IADD_X86
    if (instruction_set() == "avx512") return avx512::distance_chunk<T, weighted>;
    if (instruction_set() == "avx2") return avx2::distance_chunk<T, weighted>;
#endif
    return plain::distance_chunk<T, weighted>;
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

template <class T>
T* at_element(void* array, int64_t i) {
  return array ? static_cast<T*>(array) + i : nullptr;
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

// The unscaled gradient of the weights where the start is weighted too: it wants the loss, so it
// comes in a second pass. d L / d w_p is scale * w_p (d_p^2 - L e_p^2): a difference, hence in
// double.
template <class T>
void weights_gradient(const T* s, const T* o, const T* t, const T* w, int64_t n, double loss,
                      T* gw) {
  for (int64_t i = 0; i < n; ++i) {
    const double d = s[i] - t[i], e = o[i] - t[i];
    gw[i] = static_cast<T>(w[i] * (d * d - loss * (e * e)));
  }
}

template <class T>
void run(const Distance& p) {
  const T *s = static_cast<const T*>(p.student), *o = static_cast<const T*>(p.start);
  const T *t = static_cast<const T*>(p.target), *w = static_cast<const T*>(p.weights);
  if (p.size >= kStream) {
    prefer_huge_pages(p.student_gradient, p.size * sizeof(T));
    prefer_huge_pages(p.weights_gradient, p.size * sizeof(T));
  }
  const auto& sum_up = w ? loop<T, true>() : loop<T, false>();
  const bool stream = p.size >= kStream &&
                      reinterpret_cast<uintptr_t>(p.student_gradient) % 64 == 0 &&
                      reinterpret_cast<uintptr_t>(p.weights_gradient) % 64 == 0;
  const bool second_pass = p.weights_gradient && p.weighted_denominator;

  std::vector<Sums> sums(count_chunks(p.size));
  each_chunk(p.size, [&](int64_t k, int64_t begin, int64_t end) {
    T* gw = second_pass ? nullptr : at_element<T>(p.weights_gradient, begin);
    sums[k] = sum_up(s + begin, o + begin, t + begin, w ? w + begin : w, end - begin,
                     p.weighted_denominator, at_element<T>(p.student_gradient, begin), gw, stream);
  });
  Sums all{};
  for (const Sums& part : sums) {
    all.numerator += part.numerator, all.plain_numerator += part.plain_numerator;
    all.denominator += part.denominator, all.plain_denominator += part.plain_denominator;
  }
  const double loss = all.numerator / all.denominator;
  *static_cast<T*>(p.loss) = static_cast<T>(loss);
  *static_cast<T*>(p.unweighted) = static_cast<T>(all.plain_numerator / all.plain_denominator);
  *static_cast<T*>(p.scale) = static_cast<T>(2 / all.denominator);
  if (!second_pass) return;
  each_chunk(p.size, [&](int64_t, int64_t begin, int64_t end) {
    weights_gradient(s + begin, o + begin, t + begin, w + begin, end - begin, loss,
                     at_element<T>(p.weights_gradient, begin));
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

}  // namespace iadd
