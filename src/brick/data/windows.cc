#include "brick/data/windows.h"

#include <algorithm>
#include <set>

#include "brick/base/checked.h"
#include "brick/base/error.h"
#include "brick/base/rng.h"

namespace brick::data {
namespace {

constexpr uint64_t kWindowStream = 0x77696e646f77;  // "window"

// `count` distinct numbers of [0, bound), ascending (Floyd's algorithm: every set equally likely).
std::set<int64_t> random_subset(int64_t bound, int64_t count, Rng& rng) {
  std::set<int64_t> chosen;
  for (int64_t last = bound - count; last < bound; ++last) {
    const auto draw = static_cast<int64_t>(rng.below(static_cast<uint64_t>(last) + 1));
    if (!chosen.insert(draw).second) chosen.insert(last);
  }
  return chosen;
}

}  // namespace

std::vector<std::span<const int32_t>> consecutive_windows(std::span<const int32_t> ids, int64_t length,
                                                          int64_t max_windows) {
  if (length < 2) fail(ErrorCode::kInvalidInput, "window length is {}; it must be at least 2", length);
  if (max_windows < 0)
    fail(ErrorCode::kInvalidInput, "number of windows is {}; it must be 0 (all) or more", max_windows);
  const auto tokens = static_cast<int64_t>(ids.size());
  int64_t count = tokens / length;
  if (count == 0)
    fail(ErrorCode::kInvalidInput,
         "the text has {} tokens, too few for a window of {}; lower --length or give a longer text", tokens, length);
  if (max_windows > 0) count = std::min(count, max_windows);
  std::vector<std::span<const int32_t>> windows;
  for (int64_t i = 0; i < count; ++i) windows.push_back(ids.subspan(i * length, length));
  return windows;
}

std::vector<std::span<const int32_t>> calibration_windows(std::span<const int32_t> ids, int64_t length, int64_t samples,
                                                          std::optional<uint64_t> seed) {
  if (length < 1) fail(ErrorCode::kInvalidInput, "calibration length is {}; it must be at least 1", length);
  if (samples < 1) fail(ErrorCode::kInvalidInput, "calibration samples is {}; it must be at least 1", samples);
  const auto tokens = static_cast<int64_t>(ids.size());
  const int64_t needed = checked_mul(samples, length, "calibration samples x length");
  if (tokens < needed)
    fail(ErrorCode::kInvalidInput,
         "the calibration text has {} tokens; {} samples of {} need {}: {}lower --length, or give a longer "
         "text",
         tokens, samples, length, needed,
         tokens < length ? "" : fmt::format("lower --samples to {}, ", tokens / length));

  std::vector<std::span<const int32_t>> windows;
  if (!seed) {
    for (int64_t i = 0; i < samples; ++i) windows.push_back(ids.subspan(i * length, length));
    return windows;
  }
  Rng rng(*seed, stream_id({kWindowStream}));
  // Disjoint windows in order are a choice of `samples` among the starts that remain when each window is
  // shrunk to one token; growing them back shifts the i-th by i * (length - 1).
  int64_t shift = 0;
  for (const int64_t start : random_subset(tokens - samples * (length - 1), samples, rng)) {
    windows.push_back(ids.subspan(start + shift, length));
    shift += length - 1;
  }
  return windows;
}

}  // namespace brick::data
