// The weighted parameter distance of IADD, MTT and DDPP: schema, checks, gradients, CPU kernel.
//
//   L = sum_p m_p w_p^2 (s_p - t_p)^2 / sum_p m_p (o_p - t_p)^2
//
// Everything is done in one pass over memory (`distance_pass`): the sums and, as the inputs stream
// by, gradients that still lack the scalar factor 2 / denominator, which is known only at the end
// and is folded into what follows. iadd/ops.py holds the same in plain PyTorch: the specification.

#include "weighted_distance.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/Version.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/index_add.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/repeat_interleave.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/graph_task.h>
#include <torch/library.h>
#include <torch/version.h>

#include <algorithm>
#include <cmath>
#include <vector>

#ifdef IADD_WITH_CUDA
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif
#ifdef __x86_64__
#include <immintrin.h>
#endif
#ifdef __linux__
#include <sys/mman.h>
#endif

namespace iadd {
namespace {

using at::Tensor;
using OptionalTensor = std::optional<Tensor>;

// ---------------------------------------------------------------------------------- CPU: loops

constexpr int kLanes = 16;
// The unit of summation and of work: small enough that what is staged stays in the first cache,
// and fixed, so that the order of summation does not depend on the number of threads.
constexpr int64_t kChunk = 4096;
// From here on a gradient does not stay in the caches: store it past them.
constexpr int64_t kStream = int64_t{1} << 20;
// Below this many elements waking a second thread costs more than it saves.
constexpr int64_t kSerial = int64_t{1} << 15;

enum class Power { none, linear, squared };

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

std::string instruction_set() {
#ifdef IADD_X86
  const std::string found = at::get_cpu_capability();
  if (found.rfind("AVX512", 0) == 0) return "avx512";
  if (found == "AVX2") return "avx2";
#endif
  return "plain";
}

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

// Call f(chunk, begin, end) for every chunk of `size` elements, in parallel.
template <class F>
void each_chunk(int64_t size, const F& f) {
  const int64_t chunks = (size + kChunk - 1) / kChunk;
  const int64_t grain =
      std::max(kSerial / kChunk, (chunks + at::get_num_threads() - 1) / at::get_num_threads());
  at::parallel_for(0, chunks, grain, [&](int64_t first, int64_t last) {
    for (int64_t k = first; k < last; ++k) f(k, k * kChunk, std::min(size, (k + 1) * kChunk));
  });
}

int64_t count_chunks(int64_t size) { return (size + kChunk - 1) / kChunk; }

// ------------------------------------------------------------------------------- CPU: distance

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

// ----------------------------------------------------------------------------------- CPU: step

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

// -------------------------------------------------------------------------------------- Checks

Type type_of(const Tensor& x) {
  switch (x.scalar_type()) {
    case at::kFloat:
      return Type::float32;
    case at::kDouble:
      return Type::float64;
    case at::kBFloat16:
      return Type::bfloat16;
    default:
      return Type::float16;
  }
}

void check_floating(const Tensor& x, const char* name) {
  TORCH_CHECK_VALUE(x.dim() == 1 && x.numel() > 0, name, ": shape ", x.sizes(),
                    ", allowed a flat (P,) with P >= 1");
  TORCH_CHECK_VALUE(x.scalar_type() == at::kFloat || x.scalar_type() == at::kDouble, name,
                    ": dtype ", x.scalar_type(), ", allowed float32 or float64");
}

void check_like(const Tensor& x, const char* name, at::IntArrayRef shape, at::ScalarType dtype,
                const Tensor& student) {
  TORCH_CHECK_VALUE(x.sizes() == shape, name, ": shape ", x.sizes(), ", allowed ", shape);
  TORCH_CHECK_VALUE(x.scalar_type() == dtype, name, ": dtype ", x.scalar_type(), ", allowed ",
                    dtype);
  TORCH_CHECK_VALUE(x.device() == student.device(), name, ": device ", x.device(), ", allowed ",
                    student.device());
}

void check_written(const Tensor& x, const char* name, const Tensor& like) {
  check_like(x, name, like.sizes(), like.scalar_type(), like);
  TORCH_CHECK_VALUE(x.is_contiguous(), name, ": strides ", x.strides(), ", allowed contiguous");
}

// Values of offsets are read on the CPU only: on a GPU that would wait for the device. There a
// wrong offset gives a wrong sum, never an access outside the arrays.
void check_offsets(const Tensor& offsets, const Tensor& student) {
  TORCH_CHECK_VALUE(offsets.dim() == 1 && offsets.numel() >= 2, "offsets: shape ", offsets.sizes(),
                    ", allowed (S + 1,) with S >= 1");
  check_like(offsets, "offsets", offsets.sizes(), at::kLong, student);
  if (!offsets.is_cpu()) return;
  const auto at = offsets.accessor<int64_t, 1>();
  const int64_t last = offsets.numel() - 1;
  TORCH_CHECK_VALUE(at[0] == 0 && at[last] == student.numel(), "offsets: from ", at[0], " to ",
                    at[last], ", allowed from 0 to ", student.numel());
  for (int64_t s = 0; s < last; ++s)
    TORCH_CHECK_VALUE(at[s] <= at[s + 1], "offsets: ", at[s], " before ", at[s + 1],
                      " at position ", s, ", allowed an order that does not fall");
}

void check(const Tensor& student, const Tensor& start, const Tensor& target,
           const OptionalTensor& weights, const OptionalTensor& offsets,
           const OptionalTensor& mask) {
  check_floating(student, "student");
  const auto expert = start.scalar_type();
  TORCH_CHECK_VALUE(
      expert == student.scalar_type() ||
          (student.scalar_type() == at::kFloat && (expert == at::kBFloat16 || expert == at::kHalf)),
      "start: dtype ", expert, ", allowed ", student.scalar_type(),
      student.scalar_type() == at::kFloat ? ", BFloat16 or Half" : "");
  check_like(start, "start", student.sizes(), expert, student);
  check_like(target, "target", student.sizes(), expert, student);
  TORCH_CHECK_VALUE(weights || !offsets, "offsets: given without weights, allowed with them only");
  if (offsets) check_offsets(*offsets, student);
  if (weights)
    check_like(*weights, "weights", {offsets ? offsets->numel() - 1 : student.numel()},
               student.scalar_type(), student);
  if (mask) check_like(*mask, "mask", student.sizes(), at::kBool, student);
}

// --------------------------------------------------------------------------------- Operations

template <class Problem>
void dispatch(const Problem& problem, const Tensor& like) {
  if (like.is_cpu()) {
    if (problem.type == Type::float64)
      run<double>(problem);
    else
      run<float>(problem);
    return;
  }
#ifdef IADD_WITH_CUDA
  const c10::cuda::CUDAGuard guard(like.device());
  const Tensor space = at::empty({workspace(problem)}, like.options().dtype(at::kDouble));
  const auto error = static_cast<cudaError_t>(launch(problem, space.mutable_data_ptr<double>(),
                                                     c10::cuda::getCurrentCUDAStream().stream()));
  C10_CUDA_CHECK(error);
#endif
}

using Results = std::tuple<Tensor, Tensor, Tensor>;

Results distance_pass(const Tensor& student, const Tensor& start, const Tensor& target,
                      const OptionalTensor& weights, const OptionalTensor& offsets,
                      const OptionalTensor& mask, bool squared, bool weighted_denominator,
                      const OptionalTensor& student_gradient,
                      const OptionalTensor& weights_gradient) {
  check(student, start, target, weights, offsets, mask);
  if (student_gradient) check_written(*student_gradient, "student_gradient", student);
  TORCH_CHECK_VALUE(weights || !weights_gradient,
                    "weights_gradient: asked for without weights, allowed with them only");
  if (weights_gradient) check_written(*weights_gradient, "weights_gradient", *weights);

  // Held until the kernel has been started: a copy where the input was not contiguous.
  const Tensor s = student.contiguous(), o = start.contiguous(), t = target.contiguous();
  auto contiguous = [](const OptionalTensor& x) { return x ? x->contiguous() : Tensor(); };
  const Tensor w = contiguous(weights), f = contiguous(offsets), m = contiguous(mask);
  auto data = [](const Tensor& x) { return x.defined() ? x.const_data_ptr() : nullptr; };
  auto written = [](const OptionalTensor& x) { return x ? x->mutable_data_ptr() : nullptr; };

  Results results{at::empty({}, s.options()), at::empty({}, s.options()),
                  at::empty({}, s.options())};
  dispatch(Distance{.size = s.numel(),
                    .segments = f.defined() ? f.numel() - 1 : 0,
                    .type = type_of(s),
                    .expert = type_of(t),
                    .student = data(s),
                    .start = data(o),
                    .target = data(t),
                    .weights = data(w),
                    .offsets = static_cast<const int64_t*>(data(f)),
                    .mask = static_cast<const bool*>(data(m)),
                    .squared = squared,
                    .weighted_denominator = weighted_denominator && w.defined(),
                    .student_gradient = written(student_gradient),
                    .weights_gradient = written(weights_gradient),
                    .loss = std::get<0>(results).mutable_data_ptr(),
                    .unweighted = std::get<1>(results).mutable_data_ptr(),
                    .scale = std::get<2>(results).mutable_data_ptr()},
           s);
  return results;
}

void weights_step(const Tensor& v, const Tensor& weights, const Tensor& gradient,
                  const Tensor& exp_avg, const Tensor& exp_avg_sq, const OptionalTensor& scale,
                  int64_t step, double lr, double beta1, double beta2, double eps, double low,
                  double high, bool normalise, bool maximise) {
  check_floating(v, "v");
  check_written(v, "v", v);
  check_written(weights, "weights", v);
  check_like(gradient, "gradient", v.sizes(), v.scalar_type(), v);
  check_written(exp_avg, "exp_avg", v);
  check_written(exp_avg_sq, "exp_avg_sq", v);
  if (scale) check_like(*scale, "scale", {}, v.scalar_type(), v);
  TORCH_CHECK_VALUE(step >= 1, "step: ", step, ", allowed 1 or more");
  TORCH_CHECK_VALUE(low < high, "low: ", low, ", allowed below high, ", high);
  const Tensor g = gradient.contiguous();
  // Written behind autograd's back: let it know that what it may have saved is gone.
  for (const Tensor& x : {v, weights, exp_avg, exp_avg_sq})
    if (!x.is_inference()) x.unsafeGetTensorImpl()->bump_version();
  dispatch(Step{.size = v.numel(),
                .type = type_of(v),
                .v = v.mutable_data_ptr(),
                .weights = weights.mutable_data_ptr(),
                .exp_avg = exp_avg.mutable_data_ptr(),
                .exp_avg_sq = exp_avg_sq.mutable_data_ptr(),
                .gradient = g.const_data_ptr(),
                .scale = scale ? scale->const_data_ptr() : nullptr,
                .step_size = (maximise ? -lr : lr) / (1 - std::pow(beta1, step)),
                .root = std::sqrt(1 - std::pow(beta2, step)),
                .beta1 = beta1,
                .beta2 = beta2,
                .eps = eps,
                .low = low,
                .high = high,
                .normalise = normalise},
           v);
}

// ----------------------------------------------------------------------------------- Gradients

Results call_pass(const Tensor& student, const Tensor& start, const Tensor& target,
                  const OptionalTensor& weights, const OptionalTensor& offsets,
                  const OptionalTensor& mask, bool squared, bool weighted_denominator,
                  const OptionalTensor& student_gradient, const OptionalTensor& weights_gradient) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("iadd::distance_pass", "")
                             .typed<decltype(distance_pass)>();
  return op.call(student, start, target, weights, offsets, mask, squared, weighted_denominator,
                 student_gradient, weights_gradient);
}

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// The gradients by differentiable operators, for when they are to be differentiated again.
std::pair<Tensor, Tensor> plain_gradients(const variable_list& saved, const Tensor& upstream,
                                          bool squared, bool weighted_denominator) {
  const Tensor &student = saved[0], &weights = saved[3], &offsets = saved[4], &mask = saved[5];
  auto kept = [&](const Tensor& x) {
    return mask.defined() ? at::where(mask, x, at::zeros_like(x)) : x;
  };
  const Tensor target = saved[2].to(student.scalar_type());
  const Tensor d = kept(student - target), e = kept(saved[1].to(student.scalar_type()) - target);
  Tensor segment, w;
  if (offsets.defined()) {
    segment = at::repeat_interleave(offsets.diff(), std::optional<int64_t>(student.numel()));
    w = kept(weights.index_select(0, segment));
  } else {
    w = kept(weights.defined() ? weights : at::ones_like(student));
  }
  const Tensor power = squared ? w * w : w, energy = e * e;
  const Tensor denominator = (weighted_denominator ? power * energy : energy).sum();
  const Tensor scale = upstream * 2 / denominator;
  if (!weights.defined()) return {scale * d, Tensor()};
  Tensor residual = d * d;
  if (weighted_denominator) residual = residual - (power * residual).sum() / denominator * energy;
  Tensor weights_gradient = scale * residual * (squared ? w : kept(at::ones_like(w) / 2));
  if (offsets.defined())
    weights_gradient = at::zeros_like(weights).index_add(0, segment, weights_gradient);
  return {scale * power * d, weights_gradient};
}

struct DistanceFunction : torch::autograd::Function<DistanceFunction> {
  static variable_list forward(AutogradContext* context, const Tensor& student, const Tensor& start,
                               const Tensor& target, const OptionalTensor& weights,
                               const OptionalTensor& offsets, const OptionalTensor& mask,
                               bool squared, bool weighted_denominator) {
    const at::AutoDispatchBelowADInplaceOrView below;
    OptionalTensor student_gradient, weights_gradient;
    if (student.requires_grad())
      student_gradient = at::empty_like(student, {}, at::MemoryFormat::Contiguous);
    if (weights && weights->requires_grad())
      weights_gradient = at::empty_like(*weights, {}, at::MemoryFormat::Contiguous);
    auto [loss, unweighted, scale] =
        call_pass(student, start, target, weights, offsets, mask, squared, weighted_denominator,
                  student_gradient, weights_gradient);
    auto defined = [](const OptionalTensor& x) { return x.value_or(Tensor()); };
    context->save_for_backward({student, start, target, defined(weights), defined(offsets),
                                defined(mask), defined(student_gradient), defined(weights_gradient),
                                scale});
    context->saved_data["squared"] = squared;
    context->saved_data["weighted_denominator"] = weighted_denominator;
    context->mark_non_differentiable({unweighted});
    return {loss, unweighted};
  }

  static variable_list backward(AutogradContext* context, const variable_list& upstream) {
    variable_list gradients(8);
    if (!upstream[0].defined()) return gradients;
    variable_list saved = context->get_saved_variables();
    if (at::GradMode::is_enabled()) {
      std::tie(gradients[0], gradients[3]) =
          plain_gradients(saved, upstream[0], context->saved_data["squared"].toBool(),
                          context->saved_data["weighted_denominator"].toBool());
      return gradients;
    }
    const Tensor scale = upstream[0] * saved[8];
    // Where no second backward can come, the buffer of the forward becomes the gradient.
    const bool last = !torch::autograd::get_current_graph_task_keep_graph();
    auto scaled = [&](Tensor x) { return !x.defined() ? x : last ? x.mul_(scale) : x * scale; };
    gradients[0] = scaled(saved[6]), gradients[3] = scaled(saved[7]);
    return gradients;
  }
};

using Pair = std::tuple<Tensor, Tensor>;

Pair distance(const Tensor& student, const Tensor& start, const Tensor& target,
              const OptionalTensor& weights, const OptionalTensor& offsets,
              const OptionalTensor& mask, bool squared, bool weighted_denominator) {
  auto [loss, unweighted, scale] = call_pass(student, start, target, weights, offsets, mask,
                                             squared, weighted_denominator, {}, {});
  return {loss, unweighted};
}

Pair distance_autograd(const Tensor& student, const Tensor& start, const Tensor& target,
                       const OptionalTensor& weights, const OptionalTensor& offsets,
                       const OptionalTensor& mask, bool squared, bool weighted_denominator) {
  if (!at::GradMode::is_enabled() ||
      !(student.requires_grad() || (weights && weights->requires_grad()) || start.requires_grad() ||
        target.requires_grad())) {
    const at::AutoDispatchBelowADInplaceOrView below;
    return distance(student, start, target, weights, offsets, mask, squared, weighted_denominator);
  }
  for (const auto& [x, name] : {std::pair{&start, "start"}, std::pair{&target, "target"}})
    TORCH_CHECK_VALUE(!x->requires_grad(), name,
                      ": requires a gradient, allowed a constant only: detach it");
  auto outputs = DistanceFunction::apply(student, start, target, weights, offsets, mask, squared,
                                         weighted_denominator);
  return {outputs[0], outputs[1]};
}

// What this file was built for and what it runs: "torch=2.15.0 cuda=1 cpu=avx512".
std::string kernel_info() {
#ifdef IADD_WITH_CUDA
  const std::string cuda = "1";
#else
  const std::string cuda = "0";
#endif
  return "torch=" TORCH_VERSION " cuda=" + cuda + " cpu=" + instruction_set();
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(iadd, m) {
  m.def("kernel_info() -> str", kernel_info);
  m.def(
      "distance(Tensor student, Tensor start, Tensor target, Tensor? weights=None, "
      "Tensor? offsets=None, Tensor? mask=None, bool squared=True, "
      "bool weighted_denominator=False) -> (Tensor loss, Tensor unweighted)",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "distance_pass(Tensor student, Tensor start, Tensor target, Tensor? weights=None, "
      "Tensor? offsets=None, Tensor? mask=None, bool squared=True, "
      "bool weighted_denominator=False, Tensor(a!)? student_gradient=None, "
      "Tensor(b!)? weights_gradient=None) "
      "-> (Tensor loss, Tensor unweighted, Tensor scale)",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "weights_step(Tensor(a!) v, Tensor(b!) weights, Tensor gradient, Tensor(c!) exp_avg, "
      "Tensor(d!) exp_avg_sq, Tensor? scale, int step, float lr, float beta1, float beta2, "
      "float eps, float low, float high, bool normalise, bool maximise) -> ()",
      {at::Tag::pt2_compliant_tag});
}

TORCH_LIBRARY_IMPL(iadd, CompositeExplicitAutograd, m) { m.impl("distance", distance); }

TORCH_LIBRARY_IMPL(iadd, Autograd, m) {
  m.impl("distance", distance_autograd);
  // They have no gradient of their own and say so by having none.
  m.impl("distance_pass", torch::CppFunction::makeFallthrough());
  m.impl("weights_step", torch::CppFunction::makeFallthrough());
}

TORCH_LIBRARY_IMPL(iadd, CPU, m) {
  m.impl("distance_pass", distance_pass);
  m.impl("weights_step", weights_step);
}

#ifdef IADD_WITH_CUDA
TORCH_LIBRARY_IMPL(iadd, CUDA, m) {
  m.impl("distance_pass", distance_pass);
  m.impl("weights_step", weights_step);
}
#endif

}  // namespace iadd
