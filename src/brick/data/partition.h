// Records dealt to the clients of a simulated federation.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "brick/data/records.h"

namespace brick::data {

// Each client's records, as ascending indices; every record belongs to exactly one client.
using Partition = std::vector<std::vector<int64_t>>;

// Sizes differ by one at most. Errors: kInvalidInput for clients below 1 or more clients than records.
Partition iid_partition(int64_t records, int64_t clients, uint64_t seed);

// Skewed by Record::category: each category is dealt in proportions drawn from Dirichlet(alpha), where a
// client that already has its equal share of all records gets no more; drawn again until each client has
// min_records. The rule, alpha and minimum are those of FederatedGPT-Shepherd's client_data_allocation.py
// (Zhang et al. 2023), which take categories in alphabetical order too.
// alpha > 0: the smaller, the more a client's records are of few categories.
// Errors: kInvalidInput for clients below 1, alpha not above 0, a negative minimum, and where no draw of
// 1,000 gave each client its minimum.
Partition dirichlet_partition(std::span<const Record> records, int64_t clients, double alpha = 0.5, uint64_t seed = 0,
                              int64_t min_records = 40);

}  // namespace brick::data
