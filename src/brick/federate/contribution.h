// One matrix of a round, as the rules in weight space see it.
#pragma once

#include <functional>
#include <list>
#include <optional>
#include <span>
#include <vector>

#include "brick/federate/product_sum.h"
#include "brick/federate/rules.h"

namespace brick::federate {

// D_k = P_k - P_g = c_k B_k A_k - P_g^(k), with the mask of the client's block.
struct Contribution {
  double weight = 0;  // w_k
  const ClientUpdate* update = nullptr;
  std::optional<Factor> sent;      // P_g^(k); none: zero
  std::optional<PlacedMask> mask;  // none: dense, or a mask that keeps everything
};

struct MatrixRound {
  int64_t layer = 0;
  model::Proj proj{};
  int64_t rows = 0, cols = 0;
  std::optional<Factor> global;  // P_g; none: zero
  std::vector<Contribution> clients;
  std::list<model::LoraPair> parts;  // of P_g, that structured blocks were sent

  bool all_dense() const;
  int64_t stacked_rank() const;  // of P_g and all that the clients were sent and returned
};

// Looks at the updates; reads no client's factors. `shape`: of the model's weight.
MatrixRound matrix_round(const model::Adapter* global, std::span<const ClientUpdate> updates,
                         std::span<const double> weights, int64_t layer, model::Proj proj, MatrixShape shape);

// Equal scale and equal bits of both factors.
bool same_bits(const Factor& a, const Factor& b);

int64_t largest_rank(std::span<const ClientUpdate> updates);  // 0 of none

// Rank and configuration of the result (rules.h).
int64_t result_rank(const model::Adapter* global, std::span<const ClientUpdate> updates, const AggregateConfig& config);
model::LoraConfig result_config(const model::Adapter* global, std::span<const ClientUpdate> updates, int64_t rank);

// sum += x P_g + sum_k w_k D_k over these clients of the round. What a client was sent and returned with the
// same bits, and P_g where it cancels what they were sent, add no term: an exact zero.
void add_moves(const MatrixRound& round, std::span<const Contribution* const> clients, double x, ProductSum& sum);

// SVD_r(P_g + sum_k w_k D_k).
LowRank average_svd(const MatrixRound& round, int64_t rank, uint64_t seed);

// body(layer, proj, rows, cols) for each matrix that `like` targets: small ones each on one thread, several at a
// time; large ones one after another, with all threads. An error of a body is thrown, the first in their order.
using MatrixBody = std::function<void(int64_t layer, model::Proj proj, int64_t rows, int64_t cols)>;
void for_each_matrix(const ClientUpdate& like, const MatrixBody& body);

// `solve` for each matrix that the clients target, split evenly into factors.
using Solve = std::function<LowRank(const MatrixRound& round, int64_t rank, uint64_t seed)>;
model::Adapter solve_each(const model::Adapter* global, std::span<const ClientUpdate> updates,
                          const AggregateConfig& config, uint64_t seed, const Solve& solve);

}  // namespace brick::federate
