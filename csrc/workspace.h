// What the native passes run in: memory that stays, and threads that share a list of tasks.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace iadd {

// Grows only and stays with its thread, so that a loop of steps allocates once.
class Workspace {
 public:
  template <class T>
  T* get(long count) {
    const size_t bytes = (size_t(count) * sizeof(T) + kAlign - 1) / kAlign * kAlign;
    if (bytes > size_) grow(bytes);
    return static_cast<T*>(data_.get());
  }

 private:
  static constexpr size_t kAlign = 4096;
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };

  void grow(size_t bytes) {
    data_.reset();
    size_ = 0;
    const size_t align = bytes >= (size_t(4) << 20) ? size_t(2) << 20 : kAlign;
    data_.reset(std::aligned_alloc(align, (bytes + align - 1) / align * align));
    if (!data_) throw std::bad_alloc();
    size_ = bytes;
#if defined(MADV_HUGEPAGE)
    if (align > kAlign) madvise(data_.get(), bytes, MADV_HUGEPAGE);
#endif
  }

  std::unique_ptr<void, Free> data_;
  size_t size_ = 0;
};

// task(index, thread) for every index below `count`; who is free takes the next.
template <class Body>
void spread(long count, bool parallel, const Body& task) {
  const long threads = parallel ? std::min<long>(count, at::get_num_threads()) : 1;
  std::atomic<long> next{0};
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) {
    for (long i = next++; i < count; i = next++) task(i, threads > 1 ? at::get_thread_num() : 0);
  });
}

}  // namespace iadd
