// Choosing the lowest scores. Scores are not negative, so that their bits order as they do; ties go to the
// lower index.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "brick/prune/pattern.h"
#include "brick/tensor/mask.h"
#include "brick/tensor/view.h"

namespace brick::prune {

// The k-th smallest, counting from 0; k < scores.size().
float kth_smallest(std::span<const float> scores, int64_t k);

// int(count * share), as Python counts: the index of a threshold, the number of weights to drop.
int64_t share_of(int64_t count, double share);

tensor::Mask all_kept(int64_t rows, int64_t cols);

// Drops what is not above the threshold; the scores are those of columns `first`, `first` + 1, ... of a row.
void drop_up_to(std::span<const float> scores, float threshold, int64_t row, int64_t first, tensor::Mask& mask);

// Drops the `count` lowest of a row's scores.
void drop_lowest(std::span<const float> scores, int64_t count, int64_t row, tensor::Mask& mask);

// Drops the pattern's lowest of each whole group of a row's scores.
void drop_lowest_of_groups(std::span<const float> scores, const Pattern& pattern, int64_t row, tensor::Mask& mask);

// |x|, row after row.
std::vector<float> magnitudes(tensor::ConstMatView x);

// The mask of a whole matrix from its scores [rows, cols]: drops the `dropped` lowest of all and what equals the
// highest of these, or each group's lowest for n:m.
tensor::Mask keep_highest(std::span<const float> scores, int64_t rows, int64_t cols, const Pattern& pattern,
                          int64_t dropped);

// Row by row: drops each one's lowest share_of(cols, sparsity). `score_row` fills in a row's [cols]; called by
// several threads at once.
tensor::Mask keep_highest_of_rows(int64_t rows, int64_t cols, const Pattern& pattern, double sparsity,
                                  const std::function<void(int64_t row, std::span<float> scores)>& score_row);

// True for the `drop` lowest of one group.
uint64_t lowest_of_group(const float* scores, const Pattern& pattern);

}  // namespace brick::prune
