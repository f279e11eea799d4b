// What the native passes run in: instructions, memory that stays, threads that share tasks.
#pragma once

#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>
#include <string>

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace iadd {

// The newest that this processor has and this build has loops for: avx512, avx2 or generic.
// IADD_ISA lowers the choice, so that every one can be tested on one machine.
const std::string& instruction_set();

constexpr size_t kPage = 4096, kHugePage = size_t(2) << 20;

// Fresh memory costs a page fault every 4 KiB, which is more than much of the arithmetic: ask for
// huge pages. Only a hint, and only for whole pages inside the array.
inline void prefer_huge_pages(void* array, size_t bytes) {
#ifdef __linux__
  const auto begin = (reinterpret_cast<uintptr_t>(array) + kPage - 1) / kPage * kPage;
  const auto end = (reinterpret_cast<uintptr_t>(array) + bytes) / kPage * kPage;
  if (array && begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#endif
}

// Grows only and stays with its thread, so that a loop of steps allocates once.
class Workspace {
 public:
  template <class T>
  T* get(long count) {
    const size_t bytes = (size_t(count) * sizeof(T) + kHugePage - 1) / kHugePage * kHugePage;
    if (bytes > size_) {
      size_ = 0;
      data_.reset();
      data_.reset(std::aligned_alloc(kHugePage, bytes));
      if (!data_) throw std::bad_alloc();
      size_ = bytes;
      prefer_huge_pages(data_.get(), bytes);
    }
    return static_cast<T*>(data_.get());
  }

 private:
  struct Free {
    void operator()(void* p) const { std::free(p); }
  };
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
