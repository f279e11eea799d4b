#include "cpu_convnet_batch.h"

#include <cstring>
#include <string>
#include <vector>

#include "workspace.h"

namespace iadd {

const std::string& instruction_set() {
  static const std::string found = []() -> std::string {
#if defined(__x86_64__)
    const char* wanted = std::getenv("IADD_ISA");
    const std::string limit = wanted ? wanted : "avx512";
    if (limit == "avx512" && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw"))
      return "avx512";
    if (limit != "generic" && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
      return "avx2";
#endif
    return "generic";
  }();
  return found;
}

namespace convnet {
namespace {

// Multiplications of one image's forward pass, roughly.
double image_work(const Network& net) {
  double work = double(net.features) * net.classes;
  for (long i = 0; i < net.depth; ++i) {
    const Layer& l = net.layers[i];
    const double filters = double(l.in) * l.out;
    work += filters * (i == 0 ? 9.0 * l.pixels : double(kFrequencies) * l.tiles) +
            30.0 * l.out * l.pixels;
  }
  return work;
}

// Whether all threads work on one micro-batch, stage by stage: who is held up then delays the
// others by a unit, not by a micro-batch. Stages of less work are not worth the meetings: small
// networks have a micro-batch a thread.
bool shared(const Network& net) { return image_work(net) > 4e6; }

// Images a micro-batch at most: enough rows for the products, few enough for cache and memory.
// Tiles of six and twelve images divide by the rows of every register block. The wider the
// registers, the more a wide network waits for memory.
long micro_batch(const Network& net) { return shared(net) && net.lanes >= 16 ? 6 : 12; }

// How a batch is cut: a function of the shapes alone, never of the number of threads. A slot has a
// partial gradient of its own.
struct Partition {
  long batch, pieces, slots;

  Partition(const Network& net, long batch) : batch(batch) {
    const long most = micro_batch(net);
    pieces = (batch + most - 1) / most;
    if (shared(net)) {
      slots = 1;
      return;
    }
    // The maps of small networks have few tiles an image, so that whole micro-batches cost less
    // than equal pieces; where there are many, threads do not wait long for the last.
    if (pieces >= kMostSlots)
      size = most;
    else if (worth_threads(net, batch))
      pieces = std::min(batch, (pieces + 1) / 2 * 2);
    slots = std::min(pieces, kMostSlots);
  }
  long begin(long piece) const {
    return size ? std::min(batch, piece * size) : batch * piece / pieces;
  }
  long first_piece(long slot) const { return pieces * slot / slots; }
  long largest() const { return size ? size : (batch + pieces - 1) / pieces; }

 private:
  static constexpr long kMostSlots = 8;
  long size = 0;  // images a piece, 0: equal pieces
};

template <class T>
class Batch {
 public:
  Batch(const Network& net, const Request<T>& request, bool parallel)
      : net_(net),
        request_(request),
        parts_(net, request.batch),
        parallel_(parallel && !at::in_parallel_region()),
        shared_(shared(net)),
        kernels_(kernels<T>()) {
    lay_out();
  }

  void run() {
    const bool tangent = request_.direction;
    const long units = net_.pack_units;
    spread(tangent ? 2 * units : units, parallel_, [&](long i, int) {
      if (i < units)
        kernels_.pack(net_, request_.parameters, weights_, i);
      else
        kernels_.pack(net_, request_.direction, direction_, i - units);
    });
    spread(parts_.slots, parallel_ && !shared_, [&](long slot, int thread) {
      for (long p = parts_.first_piece(slot); p < parts_.first_piece(slot + 1); ++p)
        kernels_.run(job(slot, p, thread));
    });
    if (request_.gradient)
      spread(net_.collect_units, parallel_, [&](long i, int) {
        kernels_.collect(net_, partials_, parts_.slots, partial_, request_.base, request_.rate,
                         request_.gradient, i);
      });
    if (request_.loss) *request_.loss = sum(losses_);
    if (request_.slope) *request_.slope = sum(slopes_);
  }

 private:
  void lay_out() {
    static thread_local Workspace workspace;
    const bool tangent = request_.direction;
    const auto even = [](long size) { return (size + 63) / 64 * 64; };
    packed_ = even(net_.packed_size);
    const long threads = parallel_ ? at::get_num_threads() : 1;
    const long arenas = shared_ ? 1 : std::min(threads, parts_.slots);
    arena_ = even(kernels_.arena(net_, parts_.largest(), tangent, shared_ ? threads : 1));
    partial_ = request_.gradient ? even(net_.gradient_size) : 0;
    weights_ = workspace.get<T>((tangent ? 2 : 1) * packed_ + arenas * arena_ +
                                parts_.slots * partial_ + 64 * parts_.pieces);
    direction_ = tangent ? weights_ + packed_ : nullptr;
    arenas_ = weights_ + (tangent ? 2 : 1) * packed_;
    partials_ = arenas_ + arenas * arena_;
    losses_ = reinterpret_cast<double*>(partials_ + parts_.slots * partial_);
    slopes_ = losses_ + parts_.pieces;
  }

  Job<T> job(long slot, long piece, int thread) const {
    const long begin = parts_.begin(piece);
    const long pixels = net_.channels * net_.height * net_.width;
    const long seed = request_.kind == Seed::features ? net_.features : net_.classes;
    const auto move = [begin](auto*& p, long stride) {
      if (p) p += begin * stride;
    };
    Job<T> job{request_};
    move(job.images, pixels);
    move(job.seed, seed);
    move(job.image_gradient, pixels);
    move(job.target_gradient, net_.classes);
    move(job.logits, net_.classes);
    move(job.features, net_.features);
    job.loss = losses_ + piece;
    job.slope = slopes_ + piece;
    job.network = &net_;
    job.weights = weights_;
    job.direction = direction_;
    job.count = parts_.begin(piece + 1) - begin;
    job.mean = T(1) / T(request_.batch);
    job.arena = arenas_ + thread * arena_;
    if (shared_ && parallel_)
      job.spread = [](long count, void* context, Task task) {
        spread(count, true, [&](long i, int thread) { task(context, i, thread); });
      };
    job.gradient = request_.gradient ? partials_ + slot * partial_ : nullptr;
    job.accumulate = piece > parts_.first_piece(slot);
    return job;
  }

  double sum(const double* pieces) const {
    double total = 0;
    for (long i = 0; i < parts_.pieces; ++i) total += pieces[i];
    return total;
  }

  const Network& net_;
  const Request<T>& request_;
  const Partition parts_;
  const bool parallel_, shared_;
  const Kernels<T>& kernels_;
  long packed_, arena_, partial_;
  T *weights_, *direction_, *arenas_, *partials_;
  double *losses_, *slopes_;
};

}  // namespace

template <class T>
const Kernels<T>& kernels() {
  static const Kernels<T> found = [] {
#if defined(__x86_64__)
    if (instruction_set() == "avx512") return avx512::kernels<T>();
    if (instruction_set() == "avx2") return avx2::kernels<T>();
#endif
    return generic::kernels<T>();
  }();
  return found;
}

bool worth_threads(const Network& net, long batch) {
  return batch > 1 && image_work(net) * batch > 4e5;
}

template <class T>
void execute(const Network& net, const Request<T>& request, bool parallel) {
  Batch<T>(net, request, parallel).run();
}

template const Kernels<float>& kernels<float>();
template const Kernels<double>& kernels<double>();
template void execute<float>(const Network&, const Request<float>&, bool);
template void execute<double>(const Network&, const Request<double>&, bool);

}  // namespace convnet
}  // namespace iadd
