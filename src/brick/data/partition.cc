#include "brick/data/partition.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <string_view>

#include "brick/base/error.h"
#include "brick/base/rng.h"

namespace brick::data {
namespace {

constexpr uint64_t kPartitionStream = 0x706172746974;  // "partit"
constexpr int kMostDraws = 1000;

// Natural logarithm of a Gamma(shape, 1) variate (Marsaglia and Tsang 2000). For shape below 1 it is that of
// shape + 1 times U^(1/shape); the logarithm keeps small shapes from underflowing to 0.
double log_gamma_variate(double shape, Rng& rng) {
  if (shape < 1) {
    const double log_uniform = std::log1p(-rng.uniform());
    return log_gamma_variate(shape + 1, rng) + log_uniform / shape;
  }
  const double d = shape - 1.0 / 3.0, c = 1 / std::sqrt(9 * d);
  for (;;) {
    const double x = rng.normal(), root = 1 + c * x;
    if (root <= 0) continue;
    const double v = root * root * root;
    if (std::log1p(-rng.uniform()) < 0.5 * x * x + d * (1 - v + std::log(v))) return std::log(d * v);
  }
}

// Dirichlet(alpha) over the clients with `open`, 0 for the others.
std::vector<double> shares(const std::vector<bool>& open, double alpha, Rng& rng) {
  std::vector<double> logs(open.size(), -std::numeric_limits<double>::infinity());
  for (size_t k = 0; k < open.size(); ++k)
    if (const double log = log_gamma_variate(alpha, rng); open[k]) logs[k] = log;
  const double largest = *std::max_element(logs.begin(), logs.end());
  std::vector<double> share(open.size());
  for (size_t k = 0; k < open.size(); ++k) share[k] = std::exp(logs[k] - largest);
  const double sum = std::accumulate(share.begin(), share.end(), 0.0);
  for (double& s : share) s /= sum;
  return share;
}

Partition draw(const std::map<std::string_view, std::vector<int64_t>>& categories, int64_t records, int64_t clients,
               double alpha, Rng& rng) {
  Partition partition(clients);
  for (const auto& category : categories) {
    std::vector<int64_t> members = category.second;
    shuffle(std::span(members), rng);
    std::vector<bool> open(clients);
    for (int64_t k = 0; k < clients; ++k) open[k] = static_cast<int64_t>(partition[k].size()) * clients < records;
    const std::vector<double> share = shares(open, alpha, rng);
    double cumulated = 0;
    size_t begin = 0;
    for (int64_t k = 0; k < clients; ++k) {
      cumulated += share[k];
      const auto end =
          std::min(members.size(), static_cast<size_t>(std::llround(cumulated * static_cast<double>(members.size()))));
      partition[k].insert(partition[k].end(), members.begin() + begin, members.begin() + end);
      begin = end;
    }
    BRICK_ASSERT(begin == members.size());
  }
  for (auto& indices : partition) std::sort(indices.begin(), indices.end());
  return partition;
}

void check_clients(int64_t records, int64_t clients) {
  if (clients < 1) fail(ErrorCode::kInvalidInput, "number of clients is {}; it must be at least 1", clients);
  if (clients > records)
    fail(ErrorCode::kInvalidInput, "{} records cannot be dealt to {} clients; lower the number of clients", records,
         clients);
}

}  // namespace

Partition iid_partition(int64_t records, int64_t clients, uint64_t seed) {
  check_clients(records, clients);
  std::vector<int64_t> order(records);
  std::iota(order.begin(), order.end(), int64_t{0});
  Rng rng(seed, stream_id({kPartitionStream, 0}));
  shuffle(std::span(order), rng);
  Partition partition(clients);
  for (int64_t i = 0; i < records; ++i) partition[i % clients].push_back(order[i]);
  for (auto& indices : partition) std::sort(indices.begin(), indices.end());
  return partition;
}

Partition dirichlet_partition(std::span<const Record> records, int64_t clients, double alpha, uint64_t seed,
                              int64_t min_records) {
  const auto count = static_cast<int64_t>(records.size());
  check_clients(count, clients);
  if (!(alpha > 0) || !std::isfinite(alpha))
    fail(ErrorCode::kInvalidInput, "Dirichlet alpha is {}; it must be above 0 and finite", alpha);
  if (min_records < 0)
    fail(ErrorCode::kInvalidInput, "least records a client is {}; it must be 0 or more", min_records);

  std::map<std::string_view, std::vector<int64_t>> categories;
  for (int64_t i = 0; i < count; ++i) categories[records[i].category].push_back(i);
  Rng rng(seed, stream_id({kPartitionStream, 1}));
  for (int attempt = 0; attempt < kMostDraws && min_records <= count / clients; ++attempt) {
    Partition partition = draw(categories, count, clients, alpha, rng);
    if (std::all_of(partition.begin(), partition.end(), [&](const std::vector<int64_t>& indices) {
          return static_cast<int64_t>(indices.size()) >= min_records;
        }))
      return partition;
  }
  fail(ErrorCode::kInvalidInput,
       "{} records in {} categories could not be dealt to {} clients with at least {} each at Dirichlet "
       "alpha {}; "
       "lower the number of clients or the minimum, or raise alpha",
       count, categories.size(), clients, min_records, alpha);
}

}  // namespace brick::data
