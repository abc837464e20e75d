// What sparse_lanes.cc takes from an instruction set.
#pragma once

#include "brick/kernels/sparse_lanes.h"

namespace brick::kernels {

inline constexpr int64_t kTileGroups = 8;
inline constexpr int64_t kStepBytes = 16;
inline constexpr int64_t kMovesAt = 50;  // in a head, of kMovesAt + step_pairs bytes

// sums[r] += row r of the panel . x / x.scale, for all tiles.
using AddTiles = void (*)(const SparseLanes::Panel& panel, SplitRow x, float* sums) noexcept;
extern const AddTiles kAddTilesScalar, kAddTilesAvx2;

}  // namespace brick::kernels
