#include "brick/federate/redistribute.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>

#include "brick/base/error.h"
#include "brick/federate/factors.h"

namespace brick::federate {
namespace {

using model::Adapter;
using model::LoraPair;

// Rounding to float32 leaves cosines of 1e-7 between columns that were orthogonal in double.
constexpr double kOrthogonal = 1e-5;
constexpr double kDescending = 1e-4;

bool is_zero(const tensor::Tensor& tensor) {
  return std::all_of(tensor.f32(), tensor.f32() + tensor.size(), [](float x) { return x == 0.0f; });
}

double row_product(tensor::ConstMatView a, int64_t i, int64_t j) {
  double sum = 0;
  for (int64_t c = 0; c < a.cols; ++c) sum += static_cast<double>(a(i, c)) * a(j, c);
  return sum;
}

double column_product(tensor::ConstMatView b, int64_t i, int64_t j) {
  double sum = 0;
  for (int64_t r = 0; r < b.rows; ++r) sum += static_cast<double>(b(r, i)) * b(r, j);
  return sum;
}

// Orthogonal directions of equal share in A and B, the strongest first, free ones last.
bool in_singular_form(const LoraPair& pair) {
  const tensor::ConstMatView a = pair.a.mat(), b = pair.b.mat();
  double last = std::numeric_limits<double>::infinity();
  int64_t used = 0;
  for (; used < a.rows; ++used) {
    const double of_b = column_product(b, used, used);
    if (of_b == 0) break;
    const double of_a = row_product(a, used, used), s = std::sqrt(of_a * of_b);
    if (s > last * (1 + kDescending) || std::abs(of_a - of_b) > kDescending * of_b) return false;
    last = s;
    for (int64_t j = 0; j < used; ++j) {
      const double norm_a = std::sqrt(of_a * row_product(a, j, j)), norm_b = std::sqrt(of_b * column_product(b, j, j));
      if (std::abs(row_product(a, used, j)) > kOrthogonal * norm_a) return false;
      if (std::abs(column_product(b, used, j)) > kOrthogonal * norm_b) return false;
    }
  }
  for (int64_t i = used; i < a.rows; ++i)
    if (column_product(b, i, i) != 0) return false;
  return true;
}

Adapter with_layers(const Adapter& like, int64_t rank) {
  Adapter out;
  out.config = config_at(like.config, rank);
  out.layers.resize(like.layers.size());
  return out;
}

Adapter resized_adapter(const Adapter& adapter, int64_t rank, uint64_t seed) {
  Adapter out = with_layers(adapter, rank);
  model::for_each_pair(adapter, [&](int64_t layer, model::Proj proj, const LoraPair& pair) {
    out.at(layer, proj) = resized(pair, rank, {layer, proj, seed});
  });
  return out;
}

}  // namespace

Adapter canonical(const Adapter& global, uint64_t seed) {
  const int64_t rank = global.config.rank;
  const float scale = global.config.scale();
  Adapter out = with_layers(global, rank);
  model::for_each_pair(global, [&](int64_t layer, model::Proj proj, const LoraPair& pair) {
    LoraPair& to = out.at(layer, proj);
    if (is_zero(pair.b) || in_singular_form(pair)) {
      to = {pair.a.clone(), pair.b.clone()};
      return;
    }
    const Factor factor = factor_of(pair, scale);
    to = balanced_pair(thin_svd({&factor, 1}, rank), rank, scale, {layer, proj, seed});
  });
  return out;
}

Adapter truncate(const Adapter& global, int64_t rank, uint64_t seed) {
  if (rank < 1) fail(ErrorCode::kInvalidInput, "an adapter needs a rank of at least 1, not {}", rank);
  if (rank >= global.config.rank) return resized_adapter(global, rank, seed);
  return resized_adapter(canonical(global, seed), rank, seed);
}

std::vector<Adapter> redistribute(const Adapter& global, std::span<const int64_t> ranks, uint64_t seed) {
  const bool smaller = std::any_of(ranks.begin(), ranks.end(), [&](int64_t r) { return r < global.config.rank; });
  std::optional<Adapter> form;
  if (smaller) form = canonical(global, seed);
  std::vector<Adapter> out;
  out.reserve(ranks.size());
  for (int64_t rank : ranks) out.push_back(truncate(form ? *form : global, rank, seed));
  return out;
}

}  // namespace brick::federate
