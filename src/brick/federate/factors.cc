#include "brick/federate/factors.h"

#include <algorithm>
#include <cmath>

#include "brick/base/rng.h"

namespace brick::federate {

uint64_t Place::seed_of(uint64_t use) const {
  return stream_id({seed, use, static_cast<uint64_t>(layer), static_cast<uint64_t>(proj)});
}

model::LoraPair balanced_pair(const LowRank& low_rank, int64_t rank, float scale, const Place& place) {
  const int64_t rows = low_rank.u.shape()[0], cols = low_rank.vt.shape()[1];
  model::LoraPair pair{tensor::matrix(rank, cols), tensor::matrix(rows, rank)};
  int64_t used = 0;
  for (; used < std::min(rank, low_rank.rank()); ++used) {
    const double s = low_rank.s[static_cast<size_t>(used)];
    if (s <= kNegligible * low_rank.s[0]) break;
    const double half = std::sqrt(s / static_cast<double>(scale));
    for (int64_t c = 0; c < cols; ++c) pair.a.mat()(used, c) = static_cast<float>(half * low_rank.vt.mat()(used, c));
    for (int64_t r = 0; r < rows; ++r) pair.b.mat()(r, used) = static_cast<float>(half * low_rank.u.mat()(r, used));
  }
  free_directions(pair, used, place);
  return pair;
}

void free_directions(model::LoraPair& pair, int64_t first, const Place& place) {
  const tensor::MatView a = pair.a.mat(), b = pair.b.mat();
  const double bound = 1.0 / std::sqrt(static_cast<double>(a.cols));
  for (int64_t i = first; i < a.rows; ++i) {
    Rng rng(place.seed, place.seed_of(static_cast<uint64_t>(i) + 1));
    for (int64_t c = 0; c < a.cols; ++c) a(i, c) = static_cast<float>(bound * (2.0 * rng.uniform() - 1.0));
    for (int64_t r = 0; r < b.rows; ++r) b(r, i) = 0.0f;
  }
}

model::LoraPair resized(const model::LoraPair& pair, int64_t rank, const Place& place) {
  const int64_t old_rank = pair.a.shape()[0], rows = pair.b.shape()[0], cols = pair.a.shape()[1];
  const int64_t kept = std::min(rank, old_rank);
  model::LoraPair out{tensor::matrix(rank, cols), tensor::matrix(rows, rank)};
  std::copy_n(pair.a.f32(), kept * cols, out.a.f32());
  for (int64_t r = 0; r < rows; ++r) std::copy_n(pair.b.mat().row(r), kept, out.b.mat().row(r));
  free_directions(out, kept, place);
  return out;
}

Factor factor_of(const model::LoraPair& pair, float scale) {
  return {static_cast<double>(scale), pair.b.mat(), pair.a.mat()};
}

model::LoraConfig config_at(const model::LoraConfig& config, int64_t rank) {
  model::LoraConfig out = config;
  out.masked = false;
  out.mask_hash.clear();
  if (rank == config.rank) return out;
  const double r = static_cast<double>(rank), scale = static_cast<double>(config.scale());
  out.rank = rank;
  out.alpha = scale * (config.rslora ? std::sqrt(r) : r);
  return out;
}

}  // namespace brick::federate
