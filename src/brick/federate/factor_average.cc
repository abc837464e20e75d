#include "brick/federate/factor_average.h"

#include <algorithm>

#include "brick/federate/contribution.h"

namespace brick::federate {
namespace {

// to += weight * from on the leading part.
void add(double weight, tensor::ConstMatView from, std::vector<double>& to, int64_t stride) {
  for (int64_t r = 0; r < from.rows; ++r)
    for (int64_t c = 0; c < from.cols; ++c) to[static_cast<size_t>(r * stride + c)] += weight * from(r, c);
}

tensor::Tensor to_tensor(const std::vector<double>& values, int64_t rows, int64_t cols) {
  tensor::Tensor out = tensor::matrix(rows, cols);
  std::transform(values.begin(), values.end(), out.f32(), [](double x) { return static_cast<float>(x); });
  return out;
}

}  // namespace

model::Adapter average_factors(const model::Adapter* global, std::span<const ClientUpdate> updates) {
  const std::vector<double> weights = client_weights(updates);
  const int64_t rank = largest_rank(updates);
  model::Adapter out;
  out.config = result_config(global, updates, rank);
  out.layers.resize(static_cast<size_t>(updates[0].layers()));
  const double scale = out.config.scale();
  for_each_matrix(updates[0], [&](int64_t layer, model::Proj proj, int64_t rows, int64_t cols) {
    std::vector<double> a(static_cast<size_t>(rank * cols)), b(static_cast<size_t>(rows * rank));
    for (size_t k = 0; k < updates.size(); ++k) {
      const model::LoraPair pair = updates[k].pair(layer, proj);
      add(weights[k], pair.a.mat(), a, cols);
      add(weights[k] * (updates[k].config().scale() / scale), pair.b.mat(), b, rank);
    }
    out.at(layer, proj) = {to_tensor(a, rank, cols), to_tensor(b, rows, rank)};
  });
  return out;
}

bool equal_ranks(const model::Adapter* global, std::span<const ClientUpdate> updates) {
  const int64_t rank = global != nullptr ? global->config.rank : updates[0].config().rank;
  return std::all_of(updates.begin(), updates.end(),
                     [&](const ClientUpdate& update) { return update.config().rank == rank; });
}

}  // namespace brick::federate
