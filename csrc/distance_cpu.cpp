// The weighted parameter distance on the CPU.

#include <vector>

#include "distance.h"
#include "workspace.h"

// One binary for every node of a cluster: the loops are compiled for each instruction set and
// chosen when they are first run.
#define IADD_ISA generic
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

// The unit of summation and of work: small enough that what is staged stays in the first cache,
// and fixed, so that the order of summation does not depend on the number of threads.
constexpr int64_t kChunk = 4096;
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
    return generic::distance_chunk<T, weighted>;
  }();
  return chosen;
}

}  // namespace

template <class T>
void compute(const Distance<T>& p) {
  const bool large = p.size >= kStream;
  if (large) {
    prefer_huge_pages(p.student_gradient, p.size * sizeof(T));
    prefer_huge_pages(p.weights_gradient, p.size * sizeof(T));
  }
  const bool stream = large && reinterpret_cast<uintptr_t>(p.student_gradient) % 64 == 0 &&
                      reinterpret_cast<uintptr_t>(p.weights_gradient) % 64 == 0;
  const auto& sum_up = p.weights ? loop<T, true>() : loop<T, false>();
  const int64_t chunks = (p.size + kChunk - 1) / kChunk, threads = at::get_num_threads();
  const int64_t grain = std::max(kSerial / kChunk, (chunks + threads - 1) / threads);
  std::vector<Sums> sums(chunks);
  at::parallel_for(0, chunks, grain, [&](int64_t first, int64_t last) {
    for (int64_t k = first; k < last; ++k) {
      const int64_t begin = k * kChunk, count = std::min(kChunk, p.size - begin);
      const auto at = [begin](auto* array) { return array ? array + begin : nullptr; };
      sums[k] =
          sum_up(at(p.student), at(p.start), at(p.target), at(p.weights), count,
                 p.weighted_denominator, at(p.student_gradient), at(p.weights_gradient), stream);
    }
  });
  Sums all{};
  for (const Sums& part : sums) {
    all.numerator += part.numerator, all.plain_numerator += part.plain_numerator;
    all.denominator += part.denominator, all.plain_denominator += part.plain_denominator;
  }
  *p.loss = static_cast<T>(all.numerator / all.denominator);
  *p.unweighted = static_cast<T>(all.plain_numerator / all.plain_denominator);
  *p.scale = static_cast<T>(2 / all.denominator);
}

template void compute(const Distance<float>&);
template void compute(const Distance<double>&);

}  // namespace iadd
