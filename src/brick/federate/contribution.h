// One matrix of a round, as the rules in weight space see it.
#pragma once

#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "brick/federate/rules.h"
#include "brick/federate/svd.h"

namespace brick::federate {

// D_k = P_k - P_g = c_k B_k A_k - P_g^(k), with the mask of the client's block.
struct Contribution {
  double weight = 0;                     // w_k
  Factor trained;                        // c_k B_k A_k
  std::optional<Factor> sent;            // P_g^(k); none: zero
  std::optional<tensor::MaskView> mask;  // none: dense, or a mask that keeps everything
  bool unchanged = false;                // both have the same bits: D_k = 0
};

struct MatrixRound {
  int64_t rows = 0, cols = 0;
  std::optional<Factor> global;  // P_g; none: zero
  std::vector<Contribution> clients;

  bool all_dense() const;
  bool unchanged() const;  // every client returned what it was sent
};

// Looks at the adapters.
MatrixRound matrix_round(const model::Adapter* global, std::span<const ClientUpdate> updates,
                         std::span<const double> weights, int64_t layer, model::Proj proj);

// Equal scale and equal bits of both factors.
bool same_bits(const Factor& a, const Factor& b);

// Rank and configuration of the result (rules.h).
int64_t result_rank(const model::Adapter* global, std::span<const ClientUpdate> updates, const AggregateConfig& config);
model::LoraConfig result_config(const model::Adapter* global, std::span<const ClientUpdate> updates, int64_t rank);

// SVD_r(P_g + sum_k w_k D_k): thin factors where they are thin enough, else the sum in float32.
LowRank average_svd(const MatrixRound& round, int64_t rank, uint64_t seed);

// `solve` for each matrix that the clients target, split evenly into factors.
using Solve = std::function<LowRank(const MatrixRound& round, int64_t rank, uint64_t seed)>;
model::Adapter solve_each(const model::Adapter* global, std::span<const ClientUpdate> updates,
                          const AggregateConfig& config, uint64_t seed, const Solve& solve);

}  // namespace brick::federate
