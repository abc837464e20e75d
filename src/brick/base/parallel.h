// One thread pool in the process: OpenMP's, which oneDNN uses too. Work is split in a fixed way, so that
// results depend on the number of threads but never on timing.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <vector>

namespace brick {

inline int threads() { return omp_get_max_threads(); }
inline void set_threads(int count) { omp_set_num_threads(std::max(1, count)); }

// Calls body(i) for each i in [0, count), each once, in parallel. Body must not throw.
template <class Body>
void parallel_for(int64_t count, Body&& body) {
#pragma omp parallel for schedule(dynamic, 1) if (count > 1)
  for (int64_t i = 0; i < count; ++i) body(i);
}

// As parallel_for, for a body that may throw: all are called, then the error of the lowest i is thrown.
template <class Body>
void parallel_try(int64_t count, Body&& body) {
  std::vector<std::exception_ptr> errors(static_cast<size_t>(count));
  parallel_for(count, [&](int64_t i) {
    try {
      body(i);
    } catch (...) {
      errors[static_cast<size_t>(i)] = std::current_exception();
    }
  });
  for (const std::exception_ptr& error : errors)
    if (error) std::rethrow_exception(error);
}

// Calls body(begin, end) on contiguous pieces of [0, count) of at least `grain`, one piece a thread.
template <class Body>
void parallel_ranges(int64_t count, int64_t grain, Body&& body) {
  const int64_t pieces = std::clamp<int64_t>(count / std::max<int64_t>(grain, 1), 1, threads());
  if (pieces == 1 || omp_in_parallel()) return body(int64_t{0}, count);
  const int team = static_cast<int>(pieces);
#pragma omp parallel for schedule(static, 1) num_threads(team)
  for (int64_t p = 0; p < pieces; ++p) body(count * p / pieces, count * (p + 1) / pieces);
}

}  // namespace brick
