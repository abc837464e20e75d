// Which weights of a matrix are kept: one bit each, rows padded to whole 64-bit words.
#pragma once

#include <bit>
#include <cstdint>
#include <span>
#include <vector>

namespace brick::tensor {

inline int64_t mask_words(int64_t cols) { return (cols + 63) / 64; }

// Calls visit(column) for each kept column of a row, in order.
template <class Visit>
void for_each_kept(const uint64_t* row, int64_t cols, Visit&& visit) {
  for (int64_t w = 0; w < mask_words(cols); ++w)
    for (uint64_t bits = row[w]; bits != 0; bits &= bits - 1) visit(w * 64 + std::countr_zero(bits));
}

// Looks at mask words owned elsewhere. Bit c % 64 of word c / 64 of a row is column c; 1 = kept.
// Padding bits are zero.
struct MaskView {
  const uint64_t* words = nullptr;
  int64_t rows = 0, cols = 0;

  const uint64_t* row(int64_t r) const { return words + r * mask_words(cols); }
  bool kept(int64_t r, int64_t c) const { return (row(r)[c / 64] >> (c % 64) & 1u) != 0; }
  template <class Visit>
  void for_each_kept(int64_t r, Visit&& visit) const {
    tensor::for_each_kept(row(r), cols, visit);
  }
  int64_t count_row(int64_t r) const {
    int64_t count = 0;
    for (int64_t w = 0; w < mask_words(cols); ++w) count += std::popcount(row(r)[w]);
    return count;
  }
  int64_t count() const {
    int64_t total = 0;
    for (int64_t r = 0; r < rows; ++r) total += count_row(r);
    return total;
  }
  std::span<const std::byte> bytes() const {
    return std::as_bytes(std::span(words, static_cast<size_t>(rows * mask_words(cols))));
  }
};

class Mask {
 public:
  Mask() = default;
  Mask(int64_t rows, int64_t cols)  // nothing kept
      : rows_(rows), cols_(cols), words_(static_cast<size_t>(rows * mask_words(cols))) {}

  int64_t rows() const { return rows_; }
  int64_t cols() const { return cols_; }
  bool kept(int64_t r, int64_t c) const { return view().kept(r, c); }
  void set(int64_t r, int64_t c, bool keep) {
    uint64_t& word = words_[static_cast<size_t>(r * mask_words(cols_) + c / 64)];
    const uint64_t bit = uint64_t{1} << (c % 64);
    word = keep ? word | bit : word & ~bit;
  }
  std::span<uint64_t> words() { return words_; }
  MaskView view() const { return {words_.data(), rows_, cols_}; }  // as long as this Mask

 private:
  int64_t rows_ = 0, cols_ = 0;
  std::vector<uint64_t> words_;
};

}  // namespace brick::tensor
