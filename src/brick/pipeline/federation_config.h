// A federation as its TOML file describes it (docs/federation.md). Unknown keys are errors; paths are relative to the
// file.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "brick/federate/rules.h"
#include "brick/prune/prune.h"
#include "brick/train/config.h"

namespace brick::pipeline {

struct FederationConfig {
  struct Blocks {
    std::filesystem::path calibration;
    int64_t samples = 32, length = 512;
    std::optional<uint64_t> calibration_seed;
    prune::PruneConfig prune;
  };
  struct Client {
    std::string name;
    std::filesystem::path data, test, block;  // block empty: cut at `sparsity`
    std::string method;                       // of that; empty: [blocks]'
    double sparsity = 0;
    int64_t limit = 0;  // first N records; 0: all
    double participation = 1, dropout = 0;
    train::TuneConfig tune;  // [tune], overridden by the client's own keys
  };
  struct Evaluate {
    std::filesystem::path text;
    int64_t every = 1, length = 512, samples = 0;
    std::vector<std::string> arms;
  };

  std::filesystem::path model;
  std::string title;
  int64_t rounds = 3;
  uint64_t seed = 0;
  Blocks blocks;
  train::TuneConfig tune;
  federate::AggregateConfig aggregate;
  std::string tau = "0.1";
  std::filesystem::path validation;
  std::vector<Client> clients;
  Evaluate evaluate;
  std::string text;  // the file as it was read, `seed` as it is
};

// `seed`, if any, takes the place of the file's. Error(kInvalidInput) naming file, line and key.
FederationConfig load_federation(const std::filesystem::path& path, std::optional<uint64_t> seed = std::nullopt);

// Error(kInvalidInput): the rule averages factors of one shape, which `what` of the client, e.g. its block, has not.
[[noreturn]] void refuse_structured(const federate::Rule& rule, const std::string& client, const std::string& what);

}  // namespace brick::pipeline
