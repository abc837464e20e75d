// What every loader must stand; used by the tests of each.
#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <new>

#include "brick/base/rng.h"
#include "io/temp_files.h"

namespace {
std::atomic<size_t> g_largest{0};
}  // namespace

#ifndef BRICK_SANITIZED
void* operator new(size_t size) {
  for (size_t seen = g_largest; size > seen && !g_largest.compare_exchange_weak(seen, size);) {
  }
  if (void* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
// GCC takes new and free for a mismatch where it inlines only one of the two.
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, size_t) noexcept { std::free(memory); }
#endif

namespace brick::io::test {

void reset_largest_allocation() { g_largest = 0; }
size_t largest_allocation() { return g_largest; }

namespace {

// Bookkeeping in memory may be larger than its form in the file (a name of one byte is a map node), but only
// by a constant factor.
constexpr size_t kAllocationFactor = 16, kAllocationFloor = size_t{1} << 16;

bool parse_watched(const std::string& text, const Parse& parse) {
  reset_largest_allocation();
  const bool fine = survives([&] { parse(text); });
  EXPECT_LE(largest_allocation(), kAllocationFloor + kAllocationFactor * text.size());
  return fine;
}

}  // namespace

void expect_robust(std::string_view good, size_t header, size_t needed, const Parse& parse) {
  ASSERT_TRUE(survives([&] { parse(good); }));
  for (size_t size = 0; size < good.size(); ++size)
    EXPECT_TRUE(!parse_watched(std::string(good.substr(0, size)), parse) || size >= needed) << "cut at " << size;

  constexpr uint64_t kExtremes[] = {0,
                                    1,
                                    255,
                                    65535,
                                    uint64_t{1} << 31,
                                    (uint64_t{1} << 32) - 1,
                                    uint64_t{1} << 32,
                                    uint64_t{1} << 62,
                                    uint64_t{1} << 63,
                                    ~uint64_t{0},
                                    ~uint64_t{0} - 31};
  for (size_t at = 0; at < header; ++at)
    for (const uint64_t value : kExtremes)
      for (const size_t width : {4, 8}) {
        std::string damaged(good);
        std::memcpy(damaged.data() + at, &value, std::min(width, damaged.size() - at));
        parse_watched(damaged, parse);
      }

  Rng rng(7);
  constexpr int kFlips = 4000;
  for (int i = 0; i < kFlips; ++i) {
    std::string damaged(good);
    const uint64_t count = 1 + rng.below(4);
    for (uint64_t flip = 0; flip < count; ++flip)
      damaged[rng.below(flip % 2 == 0 ? header : damaged.size())] = static_cast<char>(rng.below(256));
    parse_watched(damaged, parse);
  }
}

TEST(Robustness, NoticesALoaderThatBelievesTheFile) {  // negative control of expect_robust itself
  EXPECT_FALSE(survives([] { fail(ErrorCode::kCorrupt, "as it should"); }));
#ifndef BRICK_SANITIZED
  reset_largest_allocation();
  { const std::vector<char> trusting(size_t{1} << 20); }
  EXPECT_GE(largest_allocation(), size_t{1} << 20);
#endif
}

}  // namespace brick::io::test
