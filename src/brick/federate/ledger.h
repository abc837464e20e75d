// What happened in a run's rounds, client by client: plain data for reports.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "brick/federate/check_update.h"

namespace brick::federate {

struct LedgerEntry {
  int64_t round = 0;
  std::string client;
  double records = 0;
  int64_t rank = 0;
  double sparsity = 0;     // of its block's targeted matrices
  int64_t bytes_down = 0;  // of the adapter it was sent, float32
  int64_t bytes_up = 0;    // of the adapter it returned
  double update_norm = 0;  // ||c B A - what it was sent||_F over all matrices; 0 where it was not computed
  bool accepted = false;
  std::string reason;  // why not
};

struct RoundLedger {
  std::vector<LedgerEntry> entries;

  // One entry a client, in the order of `updates`.
  void record(int64_t round, std::span<const ClientUpdate> updates, const Review& review);
  int64_t bytes_up() const;
  int64_t bytes_down() const;
};

// Of the factors in float32.
int64_t adapter_bytes(const model::Adapter& adapter);

}  // namespace brick::federate
