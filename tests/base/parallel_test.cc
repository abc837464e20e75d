#include "brick/base/parallel.h"

#include <gtest/gtest.h>

#include <vector>

namespace brick {
namespace {

TEST(ParallelFor, VisitsEachIndexOnce) {
  for (int64_t count : {0, 1, 2, 7, 1000}) {
    std::vector<int> visits(static_cast<size_t>(count));
    parallel_for(count, [&](int64_t i) { ++visits[static_cast<size_t>(i)]; });
    EXPECT_EQ(visits, std::vector<int>(static_cast<size_t>(count), 1));
  }
}

TEST(ParallelRanges, CoversTheIndicesOnceWhateverTheThreads) {
  const int before = threads();
  for (int count_of_threads : {1, 2, 3})
    for (int64_t count : {0, 1, 5, 64, 1001})
      for (int64_t grain : {1, 8, 5000}) {
        set_threads(count_of_threads);
        std::vector<int> visits(static_cast<size_t>(count));
        parallel_ranges(count, grain, [&](int64_t begin, int64_t end) {
          for (int64_t i = begin; i < end; ++i) ++visits[static_cast<size_t>(i)];
        });
        EXPECT_EQ(visits, std::vector<int>(static_cast<size_t>(count), 1));
      }
  set_threads(before);
}

TEST(ParallelRanges, IsOnePieceInsideAParallelRegion) {
  std::vector<int> calls(4);
  parallel_for(4, [&](int64_t task) {
    if (!omp_in_parallel()) return;  // one thread: nothing to nest
    parallel_ranges(100, 1, [&](int64_t begin, int64_t end) {
      calls[static_cast<size_t>(task)] += begin == 0 && end == 100 ? 1 : 100;
    });
  });
  for (int count : calls) EXPECT_LE(count, 1);
}

TEST(SetThreads, KeepsAtLeastOne) {
  const int before = threads();
  set_threads(0);
  EXPECT_EQ(threads(), 1);
  set_threads(before);
  EXPECT_EQ(threads(), before);
}

}  // namespace
}  // namespace brick
