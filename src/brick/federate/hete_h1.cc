// HeteAgg in weight space (H1 of docs/method.md; FedSpaLLM's l0-norm aggregation for adapters):
//   T = P_g + sum_k w_k M_k (P_k - P_g) / sum_k w_k M_k entry-wise, P_g where no client has the entry;   G =
//   SVD_r(T).
#include "brick/federate/masked_mean.h"

namespace brick::federate {

model::Adapter hete_h1(const model::Adapter* global, std::span<const ClientUpdate> updates,
                       const AggregateConfig& config, uint64_t seed) {
  return solve_each(global, updates, config, seed, [](const MatrixRound& round, int64_t rank, uint64_t svd_seed) {
    if (round.all_dense()) return average_svd(round, rank, svd_seed);
    tensor::Tensor t = tensor::matrix(round.rows, round.cols), covered = tensor::matrix(round.rows, round.cols);
    if (!masked_mean(round, {}, t.mat(), covered.mat())) return average_svd(round, rank, svd_seed);
    return truncated_svd(t.mat(), rank, svd_seed);
  });
}

}  // namespace brick::federate
