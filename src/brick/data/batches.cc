#include "brick/data/batches.h"

#include <algorithm>
#include <numeric>

#include "brick/base/error.h"
#include "brick/base/rng.h"

namespace brick::data {
namespace {

using Plan = std::vector<std::vector<int64_t>>;

constexpr uint64_t kBatchStream = 0x6261746368;  // "batch"
constexpr int64_t kWindowBatches = 8;

struct Bin {
  std::vector<int64_t> records;
  int64_t tokens = 0;
};

// First-fit decreasing. Ties keep their shuffled order, so that equal lengths are still mixed.
std::vector<Bin> pack(std::vector<int64_t> window, std::span<const int64_t> lengths, int64_t limit) {
  std::stable_sort(window.begin(), window.end(), [&](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
  std::vector<Bin> bins;
  for (const int64_t record : window) {
    auto bin =
        std::find_if(bins.begin(), bins.end(), [&](const Bin& b) { return b.tokens + lengths[record] <= limit; });
    if (bin == bins.end()) bin = bins.emplace(bins.end());
    bin->records.push_back(record);
    bin->tokens += lengths[record];
  }
  return bins;
}

Plan packed_in_windows(std::span<const int64_t> order, std::span<const int64_t> lengths, int64_t limit, Rng& rng) {
  Plan plan;
  std::vector<int64_t> window;
  size_t next = 0;
  while (next < order.size() || !window.empty()) {
    // Counted in batches: `limit` times eight may overflow.
    double filled = 0;
    const auto share = [&](int64_t record) {
      return std::min(1.0, static_cast<double>(lengths[record]) / static_cast<double>(limit));
    };
    for (const int64_t record : window) filled += share(record);
    while (next < order.size() && filled < static_cast<double>(kWindowBatches)) {
      filled += share(order[next]);
      window.push_back(order[next++]);
    }
    std::vector<Bin> bins = pack(std::move(window), lengths, limit);
    window.clear();
    if (next < order.size() && bins.size() > 1) {
      const auto emptiest =
          std::min_element(bins.begin(), bins.end(), [](const Bin& a, const Bin& b) { return a.tokens < b.tokens; });
      window = std::move(emptiest->records);
      bins.erase(emptiest);
    }
    shuffle(std::span(bins), rng);
    for (Bin& bin : bins) plan.push_back(std::move(bin.records));
  }
  return plan;
}

Plan packed_in_order(std::span<const int64_t> order, std::span<const int64_t> lengths, int64_t limit) {
  Plan plan;
  int64_t tokens = 0;
  for (const int64_t record : order) {
    if (plan.empty() || lengths[record] > limit - tokens) {
      plan.emplace_back();
      tokens = 0;
    }
    plan.back().push_back(record);
    tokens += lengths[record];
  }
  return plan;
}

Plan counted(std::span<const int64_t> order, int64_t records) {
  Plan plan;
  for (size_t begin = 0; begin < order.size();) {
    const size_t count = std::min(order.size() - begin, static_cast<size_t>(records));
    const auto batch = order.subspan(begin, count);
    plan.emplace_back(batch.begin(), batch.end());
    begin += count;
  }
  return plan;
}

}  // namespace

std::vector<std::vector<int64_t>> plan_epoch(std::span<const int64_t> lengths, const BatchOptions& options,
                                             int64_t epoch) {
  if (options.batch_records < 0)
    fail(ErrorCode::kInvalidInput, "batch records is {}; it must be 0 (count tokens) or more", options.batch_records);
  if (options.batch_records == 0 && options.batch_tokens < 1)
    fail(ErrorCode::kInvalidInput, "batch tokens is {}; it must be at least 1", options.batch_tokens);
  BRICK_ASSERT(std::all_of(lengths.begin(), lengths.end(), [](int64_t length) { return length > 0; }));

  std::vector<int64_t> order(lengths.size());
  std::iota(order.begin(), order.end(), int64_t{0});
  Rng rng(options.seed, stream_id({kBatchStream, static_cast<uint64_t>(epoch)}));
  if (options.shuffle) shuffle(std::span(order), rng);

  if (options.batch_records > 0) return counted(order, options.batch_records);
  if (options.shuffle) return packed_in_windows(order, lengths, options.batch_tokens, rng);
  return packed_in_order(order, lengths, options.batch_tokens);
}

Plan split_batch(std::span<const int64_t> batch, std::span<const int64_t> lengths, int64_t part_tokens) {
  Plan parts;
  for (Bin& bin : pack({batch.begin(), batch.end()}, lengths, part_tokens)) parts.push_back(std::move(bin.records));
  return parts;
}

Batch make_batch(std::span<const TokenSequence> sequences, std::span<const int64_t> indices, Batch batch) {
  batch.ids.clear();
  batch.supervised.clear();
  batch.offsets.assign(1, 0);
  for (const int64_t index : indices) {
    BRICK_ASSERT(index >= 0 && index < static_cast<int64_t>(sequences.size()));
    const TokenSequence& sequence = sequences[index];
    BRICK_ASSERT(sequence.supervised.size() == sequence.ids.size());
    batch.ids.insert(batch.ids.end(), sequence.ids.begin(), sequence.ids.end());
    batch.supervised.insert(batch.supervised.end(), sequence.supervised.begin(), sequence.supervised.end());
    batch.offsets.push_back(batch.tokens());
  }
  batch.sequence.assign(indices.begin(), indices.end());
  return batch;
}

}  // namespace brick::data
