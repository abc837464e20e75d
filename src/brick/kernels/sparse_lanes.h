// Sparse weights with 4-bit values (tensor::SparseCoding::kQ4) in a layout without a mask, for products with few rows
// of activations. Our choice; made in memory, never written to disk.
//
// A group is the up to 32 kept values of a row that share a scale and a minimum. Eight groups, of any rows, make a
// track and go through the columns side by side. A track's step is 16 bytes, two for each group: up to two of its
// values in a window of 15 columns, each a byte with the value in the high four bits and its place in the window, from
// 1, in the low ones; 0 is no value. So one byte shuffle fetches the activations of a step. The next window begins at
// the first column that a group still lacks; groups that begin and end at like columns share a track, as every step
// pads all to two. Two tracks of about as many steps make a tile, a step of which has both's.
//
// A tile's head: for each group its scale, then for each its minimum, float16, then its row in the panel, uint16, the
// tracks' groups by turns in fours; each track's first column, uint16; for each step one byte, how far the first
// track's window moves behind it (low four bits) and the second's.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "brick/tensor/sparse.h"
#include "brick/tensor/view.h"

namespace brick::kernels {

// A row of activations as x = scale (128 high + low), |high| <= 63, -64 <= low <= 63: 14 bits. Both are readable
// kSplitSlack values past the last one.
struct SplitRow {
  const int8_t* high;
  const int8_t* low;
  float scale;
};
inline constexpr int64_t kSplitSlack = 16;

// Memory for a SplitRow of n activations, in floats, and its making there.
inline int64_t split_floats(int64_t n) { return (n + kSplitSlack + 1) / 2; }
SplitRow split_row(const float* x, int64_t n, float* memory) noexcept;

class SparseLanes {
 public:
  struct alignas(32) Step {
    std::byte entries[32];
  };
  // Tiles of the same number of steps, one behind the other.
  struct Run {
    int64_t steps, tiles;
  };
  // Rows [begin, end), with tiles of their own, so that panels can be multiplied at the same time.
  struct Panel {
    int64_t begin, end;
    std::vector<Run> runs;
    std::vector<std::byte> heads;
    std::vector<Step> steps;
  };

  // Whether this machine multiplies the layout fast and such a matrix fits into it.
  static bool fits(const tensor::SparseView& view) noexcept;

  // Made in parallel, with as many panels as threads, of about as many values each.
  explicit SparseLanes(const tensor::SparseView& view);

  int64_t panels() const { return std::ssize(panels_); }
  const Panel& panel(int64_t i) const { return panels_[static_cast<size_t>(i)]; }
  int64_t bytes() const;

  // y(t, r) = row r . x[t] + beta y(t, r) for the panel's rows r; beta 0 or 1. The products of integers are exact
  // within a group. `memory` of product_floats().
  int64_t product_floats() const { return most_rows_; }
  void product(int64_t panel, std::span<const SplitRow> x, float beta, tensor::MatView y, float* memory) const noexcept;

 private:
  std::vector<Panel> panels_;
  int64_t most_rows_ = 0;
};

}  // namespace brick::kernels
