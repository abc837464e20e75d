// Counter-based random numbers (Philox4x32-10, Salmon et al. 2011): the n-th number of a stream is a pure
// function of (seed, stream, n), so a checkpoint stores three integers and any order of use repeats.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <utility>

namespace brick {

class Rng {
 public:
  // `stream` separates uses of one seed (shuffling, dropout, initial weights, ...).
  explicit Rng(uint64_t seed, uint64_t stream = 0, uint64_t position = 0)
      : seed_(seed), stream_(stream), position_(position) {}

  uint32_t next_u32();
  uint64_t next_u64();
  double uniform();                // [0, 1), 53 bits
  double normal();                 // standard normal, Box-Muller, two draws a value
  uint64_t below(uint64_t bound);  // unbiased in [0, bound); bound > 0

  uint64_t seed() const { return seed_; }
  uint64_t stream() const { return stream_; }
  uint64_t position() const { return position_; }  // draws of 32 bits so far

 private:
  uint64_t seed_, stream_, position_;
  std::array<uint32_t, 4> block_{};
  uint64_t block_index_ = ~uint64_t{0};
};

// The `index`-th block of four 32-bit numbers of a stream.
std::array<uint32_t, 4> philox(uint64_t seed, uint64_t stream, uint64_t index);

// Fisher-Yates.
template <class T>
void shuffle(std::span<T> items, Rng& rng) {
  for (size_t i = items.size(); i > 1; --i) std::swap(items[i - 1], items[rng.below(i)]);
}

// A stream id from words, so that ("dropout", layer, step) never collides by arithmetic.
uint64_t stream_id(std::initializer_list<uint64_t> words);

}  // namespace brick
