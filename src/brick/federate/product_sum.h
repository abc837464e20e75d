// A weighted sum of low-rank products whose memory does not grow with their number.
#pragma once

#include "brick/federate/svd.h"

namespace brick::federate {

// sum_i x_i c_i B_i A_i of one matrix. The factors are stacked while their ranks sum to no more than
// max(1024, min(rows, cols) / 2); what comes beyond is added up in one float32 array [rows, cols].
class ProductSum {
 public:
  // `most`: what the ranks to come sum to at most; the stack is no larger.
  ProductSum(int64_t rows, int64_t cols, int64_t most);

  void add(double coefficient, const Factor& factor);  // copies
  bool empty() const { return terms_ == 0; }
  tensor::ConstMatView dense();  // the whole sum; valid until the next call
  void clear();

  // Its first singular triples: from the factors where they are few (thin_enough, or a single product), else by
  // subspace iteration (truncated_svd) on the stacked factors or, where that is cheaper, on the sum. A sum of nothing
  // has one triple, of zeros.
  LowRank svd(int64_t rank, uint64_t seed);

 private:
  void flush();

  int64_t rows_, cols_, used_ = 0, terms_ = 0;
  tensor::Tensor left_, right_;  // [rows, capacity], [capacity, cols]
  tensor::Tensor sum_;
  bool summed_ = false;  // sum_ holds something
};

}  // namespace brick::federate
