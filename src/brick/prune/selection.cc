#include "brick/prune/selection.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <vector>

#include "brick/base/error.h"
#include "brick/base/parallel.h"

namespace brick::prune {
namespace {

constexpr int kDigitBits = 16;
constexpr int64_t kRowGrain = 16;

uint32_t key_of(float score) { return std::bit_cast<uint32_t>(score) & 0x7fffffffu; }  // -0 counts as 0

}  // namespace

float kth_smallest(std::span<const float> scores, int64_t k) {
  BRICK_ASSERT(k >= 0 && k < static_cast<int64_t>(scores.size()));
  // A histogram of the upper halves finds the few that share the answer's.
  std::vector<int64_t> counts(size_t{1} << kDigitBits);
  for (const float score : scores) ++counts[key_of(score) >> kDigitBits];
  uint32_t digit = 0;
  for (; k >= counts[digit]; ++digit) k -= counts[digit];
  std::vector<uint32_t> candidates;
  candidates.reserve(static_cast<size_t>(counts[digit]));
  for (const float score : scores)
    if (key_of(score) >> kDigitBits == digit) candidates.push_back(key_of(score));
  std::nth_element(candidates.begin(), candidates.begin() + k, candidates.end());
  return std::bit_cast<float>(candidates[static_cast<size_t>(k)]);
}

int64_t share_of(int64_t count, double share) { return static_cast<int64_t>(static_cast<double>(count) * share); }

tensor::Mask all_kept(int64_t rows, int64_t cols) {
  tensor::Mask mask(rows, cols);
  const int64_t words = tensor::mask_words(cols), tail = cols % 64;
  for (int64_t i = 0; i < rows * words; ++i)
    mask.words()[static_cast<size_t>(i)] =
        tail != 0 && i % words == words - 1 ? (uint64_t{1} << tail) - 1 : ~uint64_t{0};
  return mask;
}

void drop_up_to(std::span<const float> scores, float threshold, int64_t row, int64_t first, tensor::Mask& mask) {
  uint64_t* words = mask.words().data() + row * tensor::mask_words(mask.cols());
  const auto count = static_cast<int64_t>(scores.size());
  uint64_t dropped = 0;  // of the word at hand: no branch on the scores, which no processor could guess
  for (int64_t i = 0; i < count; ++i) {
    const int64_t col = first + i, bit = col % 64;
    dropped |= uint64_t{scores[static_cast<size_t>(i)] <= threshold} << bit;
    if (bit != 63 && i + 1 != count) continue;
    words[col / 64] &= ~dropped;
    dropped = 0;
  }
}

void drop_lowest(std::span<const float> scores, int64_t count, int64_t row, tensor::Mask& mask) {
  if (count <= 0) return;
  std::vector<uint64_t> keys(scores.size());
  for (size_t c = 0; c < keys.size(); ++c) keys[c] = uint64_t{key_of(scores[c])} << 32 | c;
  std::nth_element(keys.begin(), keys.begin() + (count - 1), keys.end());
  for (int64_t i = 0; i < count; ++i)
    mask.set(row, static_cast<int64_t>(keys[static_cast<size_t>(i)] & 0xffffffffu), false);
}

uint64_t lowest_of_group(const float* scores, const Pattern& pattern) {
  uint64_t dropped = 0;
  for (int64_t n = 0; n < pattern.drop; ++n) {
    int64_t lowest = -1;
    for (int64_t c = 0; c < pattern.group; ++c)
      if ((dropped >> c & 1u) == 0 && (lowest < 0 || key_of(scores[c]) < key_of(scores[lowest]))) lowest = c;
    dropped |= uint64_t{1} << lowest;
  }
  return dropped;
}

void drop_lowest_of_groups(std::span<const float> scores, const Pattern& pattern, int64_t row, tensor::Mask& mask) {
  for (int64_t begin = 0; begin < static_cast<int64_t>(scores.size()); begin += pattern.group) {
    const uint64_t dropped = lowest_of_group(scores.data() + begin, pattern);
    for (int64_t c = 0; c < pattern.group; ++c)
      if ((dropped >> c & 1u) != 0) mask.set(row, begin + c, false);
  }
}

std::vector<float> magnitudes(tensor::ConstMatView x) {
  std::vector<float> out(static_cast<size_t>(x.rows * x.cols));
  parallel_ranges(x.rows, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      for (int64_t c = 0; c < x.cols; ++c) out[static_cast<size_t>(r * x.cols + c)] = std::fabs(x(r, c));
  });
  return out;
}

tensor::Mask keep_highest(std::span<const float> scores, int64_t rows, int64_t cols, const Pattern& pattern,
                          int64_t dropped) {
  tensor::Mask mask = all_kept(rows, cols);
  const bool whole = pattern.unstructured();
  if (whole && dropped == 0) return mask;
  const float threshold = whole ? kth_smallest(scores, dropped - 1) : 0.0f;
  parallel_ranges(rows, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const auto row = scores.subspan(static_cast<size_t>(r * cols), static_cast<size_t>(cols));
      if (whole)
        drop_up_to(row, threshold, r, 0, mask);
      else
        drop_lowest_of_groups(row, pattern, r, mask);
    }
  });
  return mask;
}

tensor::Mask keep_highest_of_rows(int64_t rows, int64_t cols, const Pattern& pattern, double sparsity,
                                  const std::function<void(int64_t row, std::span<float> scores)>& score_row) {
  tensor::Mask mask = all_kept(rows, cols);
  const int64_t dropped = share_of(cols, sparsity);
  parallel_ranges(rows, kRowGrain, [&](int64_t begin, int64_t end) {
    std::vector<float> scores(static_cast<size_t>(cols));
    for (int64_t r = begin; r < end; ++r) {
      score_row(r, scores);
      if (pattern.unstructured())
        drop_lowest(scores, dropped, r, mask);
      else
        drop_lowest_of_groups(scores, pattern, r, mask);
    }
  });
  return mask;
}

}  // namespace brick::prune
