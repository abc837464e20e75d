// What sparse_lanes.cc takes from an instruction set.
#pragma once

#include "brick/kernels/sparse_lanes.h"

namespace brick::kernels {

inline constexpr int64_t kTracks = 2;
inline constexpr int64_t kTrackGroups = 8;
inline constexpr int64_t kTileGroups = kTracks * kTrackGroups;
inline constexpr int64_t kTrackBytes = 16;  // of a step
inline constexpr int64_t kMovesAt = 100;    // in a head, of kMovesAt + steps bytes

// sums[r] += row r of the panel . x / x.scale, for all tiles.
using AddTiles = void (*)(const SparseLanes::Panel& panel, SplitRow x, float* sums) noexcept;
extern const AddTiles kAddTilesScalar, kAddTilesAvx2;

}  // namespace brick::kernels
