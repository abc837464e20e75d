#include "brick/federate/ledger.h"

namespace brick::federate {

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
      for_each_target(update, [&](int64_t layer, model::Proj proj, int64_t, int64_t) {
        for (bool is_b : {false, true})
          entry.bytes_up += tensor::byte_count(tensor::DType::kF32, update.outline(layer, proj, is_b).shape);
      });
    }
    if (update.sent != nullptr) entry.bytes_down = adapter_bytes(*update.sent);
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
