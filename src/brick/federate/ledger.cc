#include "brick/federate/ledger.h"

#include "brick/federate/placement.h"

namespace brick::federate {
namespace {

int64_t bytes_returned(const ClientUpdate& update) {
  int64_t bytes = 0;
  for (int64_t layer = 0; layer < update.own_layers(); ++layer)
    for (model::Proj proj : model::kProjs)
      for (bool is_b : {false, true})
        if (const tensor::Shape shape = update.own_outline(layer, proj, is_b).shape; !shape.empty())
          bytes += tensor::byte_count(tensor::DType::kF32, shape);
  return bytes;
}

int64_t bytes_sent(const ClientUpdate& update) {
  if (update.placement == nullptr) return adapter_bytes(*update.sent);
  int64_t bytes = 0;
  model::for_each_pair(*update.sent, [&](int64_t layer, model::Proj proj, const model::LoraPair&) {
    const MatrixShape own = update.placement->own_shape(layer, proj);
    bytes += tensor::byte_count(tensor::DType::kF32, {own.rows + own.cols, update.sent->config.rank});
  });
  return bytes;
}

}  // namespace

void RoundLedger::record(int64_t round, std::span<const ClientUpdate> updates, const Review& review) {
  for (size_t k = 0; k < updates.size(); ++k) {
    const ClientUpdate& update = updates[k];
    LedgerEntry entry;
    entry.round = round;
    entry.client = update.name;
    entry.records = update.records;
    entry.reason = review.reasons[k].value_or("");
    entry.accepted = !review.reasons[k];
    entry.update_norm = review.norms[k];
    if (update.returned()) {
      entry.rank = update.config().rank;
      entry.bytes_up = bytes_returned(update);
    }
    if (update.sent != nullptr) entry.bytes_down = bytes_sent(update);
    if (entry.accepted) entry.sparsity = sparsity(update);
    entries.push_back(std::move(entry));
  }
}

int64_t RoundLedger::bytes_up() const {
  int64_t total = 0;
  for (const LedgerEntry& entry : entries) total += entry.bytes_up;
  return total;
}

int64_t RoundLedger::bytes_down() const {
  int64_t total = 0;
  for (const LedgerEntry& entry : entries) total += entry.bytes_down;
  return total;
}

int64_t adapter_bytes(const model::Adapter& adapter) {
  int64_t bytes = 0;
  model::for_each_pair(adapter, [&](int64_t, model::Proj, const model::LoraPair& pair) {
    bytes += static_cast<int64_t>(pair.a.bytes().size() + pair.b.bytes().size());
  });
  return bytes;
}

}  // namespace brick::federate
