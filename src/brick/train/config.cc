#include "brick/train/config.h"

#include <cmath>

#include "brick/base/error.h"

namespace brick::train {
namespace {

constexpr double kMostEpochs = 1e6;  // they are planned before the first step

void require(bool good, std::string_view field, const auto& value, std::string_view expected) {
  if (!good) fail(ErrorCode::kInvalidInput, "{} = {}: expected {}", field, value, expected);
}

}  // namespace

void TuneConfig::validate() const {
  require(rank >= 1 && rank <= 4096, "rank", rank, "1 to 4096");
  require(std::isfinite(alpha) && alpha > 0, "alpha", alpha, "a positive number");
  require(dropout >= 0 && dropout < 1, "dropout", dropout, "at least 0 and below 1");
  require(std::isfinite(lr) && lr >= 0, "lr", lr, "a number of at least 0");
  require(schedule == "constant" || schedule == "linear" || schedule == "cosine", "schedule", schedule,
          "constant, linear or cosine");
  require(warmup >= 0 && warmup <= 1, "warmup", warmup, "a share from 0 to 1");
  require(std::isfinite(weight_decay) && weight_decay >= 0, "weight_decay", weight_decay, "a number of at least 0");
  require(std::isfinite(clip) && clip >= 0, "clip", clip, "a number of at least 0");
  require(steps >= 0, "steps", steps, "0 or more");
  require(steps > 0 || (epochs > 0 && epochs <= kMostEpochs), "epochs", epochs, "a positive number of at most 1e6");
  require(batch_tokens >= 2, "batch_tokens", batch_tokens, "2 or more");
  require(batch_records >= 0, "batch_records", batch_records, "0 or more");
  require(accumulate >= 1, "accumulate", accumulate, "1 or more");
  require(length >= 2, "length", length, "2 or more");
  require(loss == "response" || loss == "all", "loss", loss, "response or all");
  require(memory == "auto" || memory == "low" || memory == "fast", "memory", memory, "auto, low or fast");
}

}  // namespace brick::train
