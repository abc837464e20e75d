// Sparse weights that keep two of every four columns in each row, laid out for products with few rows of activations.
// Our choice; made in memory, never written to disk.
//
// Two rows go through the columns side by side. What they keep of eight columns is a vector of eight weights: of the
// first four columns the two of the first row, then the two of the second; then those of the last four. So a
// permutation within fours of the eight activations meets it. A block is 128 columns, the last one shorter: for each
// of the eight lanes the places of its weights within their fours, two bits a vector, in a uint32; then the vectors,
// float32 one behind the other or bfloat16 two at a time, those of the first in the low halves of 32 bits.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "brick/tensor/sparse.h"
#include "brick/tensor/view.h"

namespace brick::kernels {

class SparsePairs {
 public:
  // Whether this machine multiplies the layout fast and such a matrix fits into it: float32 or bfloat16 values, two of
  // every four columns kept, an even number of rows, columns in sixteens.
  static bool fits(const tensor::SparseView& view) noexcept;

  explicit SparsePairs(const tensor::SparseView& view);  // made in parallel

  int64_t pairs() const { return pairs_; }
  const std::byte* pair(int64_t p) const { return memory_[static_cast<size_t>(p * vectors_)].bytes; }
  int64_t bytes() const { return std::ssize(memory_) * static_cast<int64_t>(sizeof(Vector)); }

  // y(t, r) = row r . x[t] + beta y(t, r) for the rows of pairs [begin, end); beta 0 or 1.
  void product(int64_t begin, int64_t end, tensor::ConstMatView x, float beta, tensor::MatView y) const noexcept;

 private:
  struct alignas(32) Vector {
    std::byte bytes[32];
  };
  tensor::DType dtype_;
  int64_t pairs_, vectors_;  // so many of 32 bytes a pair
  std::vector<Vector> memory_;
};

}  // namespace brick::kernels
