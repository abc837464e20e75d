// What makes a block: how it was cut from its parent. Stored beside the weights and checked on loading.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "brick/model/cut.h"

namespace brick::model {

struct BlockSpec {
  std::string method;      // "sparsegpt"; empty for a model that nothing was cut from
  std::string pattern;     // "unstructured" or "2:4"
  double sparsity = 0;     // share of the layers' linear weights that was asked to be removed
  std::string values;      // how kept values are stored: "f32", "bf16", "q4", "keep"
  std::string parent;      // fingerprint of the model that it was cut from
  std::string mask_hash;   // of all masks; empty where nothing is masked
  std::optional<Cut> cut;  // of a structured block: which parts of its parent it has
  std::string provenance;  // compact JSON: tool version, configuration, seed, hash of the calibration

  bool is_block() const { return !method.empty(); }
};

}  // namespace brick::model
