// Windows of equal length over a text's ids, for perplexity and for calibration. The views that these
// functions return live as long as the ids that they were given.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace brick::data {

// The whole windows of `length` tokens from the start, the incomplete one at the end left out; with
// max_windows above 0, at most that many of them.
// Errors: kInvalidInput for length below 2 (a window predicts all but its first token), a negative
// max_windows, and for ids that do not fill one window.
std::vector<std::span<const int32_t>> consecutive_windows(std::span<const int32_t> ids, int64_t length,
                                                          int64_t max_windows = 0);

// `samples` windows of `length` tokens that share no token, in the order of the text. Without a seed the
// first ones; with a seed they begin at random places, every such choice being equally likely. Our choice:
// independent starts, as in SparseGPT's and Wanda's code, may repeat text and so waste calibration.
// Errors: kInvalidInput for length or samples below 1, and for fewer than samples * length ids.
std::vector<std::span<const int32_t>> calibration_windows(std::span<const int32_t> ids, int64_t length, int64_t samples,
                                                          std::optional<uint64_t> seed);

}  // namespace brick::data
