// Products of at most kFewRows rows of activations with weights held in any form: one pass over the weights, decoded in
// registers, each row of them meeting every row of x while it is in cache.
#pragma once

#include <memory>
#include <span>
#include <variant>
#include <vector>

#include "brick/kernels/linear.h"
#include "brick/kernels/sparse_lanes.h"
#include "brick/kernels/sparse_pairs.h"

namespace brick::kernels {

constexpr int64_t kFewRows = 4;  // up to here one pass over the weights beats their expansion

// y = x W^T + beta y for each product, as linear().
void linear_few_rows(Context& context, std::span<const Product> products, tensor::ConstMatView x);
void linear_few_rows(Context& context, const RowSource& weight, tensor::ConstMatView x, float beta, tensor::MatView y);

using RowLayout = std::variant<SparseLanes, SparsePairs>;

// Weights laid out anew where linear_few_rows() multiplies another form faster than the stored one: 4-bit values, if it
// may round activations (sparse_lanes.h); others, two of every four kept (sparse_pairs.h); in either arithmetic. While
// one of these lives, all such products in the process with these weights use that form.
class PreparedWeights {
 public:
  PreparedWeights() = default;
  PreparedWeights(const Context& context, std::span<const tensor::Matrix* const> weights);

  bool empty() const { return held_.empty(); }
  int64_t extra_bytes() const;  // in memory, less those of the stored forms, which these products don't touch

 private:
  struct Held {
    tensor::Matrix weight;  // so that no other one takes its address
    std::shared_ptr<const RowLayout> layout;
  };
  std::vector<Held> held_;
};

}  // namespace brick::kernels
