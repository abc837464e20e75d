#include "brick/kernels/sparse_lanes.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>

#include "brick/base/cpu.h"
#include "brick/base/parallel.h"
#include "brick/kernels/sparse_lanes_impl.h"
#include "brick/kernels/sparse_row.h"
#include "brick/tensor/dtype_table.h"
#include "brick/tensor/pack.h"

namespace brick::kernels {
namespace {

using tensor::kQuantBlock;
using tensor::SparseView;

constexpr int kWindow = 15;  // columns; places are counted from 1 in four bits
constexpr int kLargestMove = 15;
constexpr int kSplit = 128;
constexpr int kLargestSplit = 63 * kSplit + 63;

struct Head {
  uint16_t scales[kTileGroups], minima[kTileGroups], rows[kTileGroups], first_columns[kTracks];
};
static_assert(sizeof(Head) == kMovesAt);

// Where a head has group g of a track: as the groups' sums come out of unpacking.
int64_t place_in_head(int64_t track, int64_t g) { return g / 4 * 8 + track * 4 + g % 4; }

// The kept values of a panel: columns and 4-bit values of all groups, one behind the other.
struct Group {
  uint32_t first, count;  // of the columns and values
  uint16_t scale, minimum, row;
};
struct Groups {
  std::vector<uint16_t> columns;
  std::vector<uint8_t> values;
  std::vector<Group> groups;
};

Groups groups_of(const SparseView& view, int64_t begin, int64_t end) {
  Groups out;
  int64_t kept = 0;
  for (int64_t r = begin; r < end; ++r) kept += view.mask.count_row(r);
  out.columns.resize(static_cast<size_t>(kept));
  out.values.resize(static_cast<size_t>(kept + kQuantBlock));
  out.groups.reserve(static_cast<size_t>(kept / kQuantBlock + end - begin));
  uint16_t* column = out.columns.data();
  for (int64_t r = begin; r < end; ++r) {
    auto first = static_cast<size_t>(column - out.columns.data());
    view.mask.for_each_kept(r, [&](int64_t c) { *column++ = static_cast<uint16_t>(c); });
    const auto last = static_cast<size_t>(column - out.columns.data());
    const std::byte* block = view.values + view.row_offset[r];
    for (; first < last; first += kQuantBlock, block += tensor::kBlockBytes<tensor::DType::kQ4_1>) {
      const size_t count = std::min<size_t>(kQuantBlock, last - first);
      Group group{static_cast<uint32_t>(first), static_cast<uint32_t>(count), 0, 0, static_cast<uint16_t>(r - begin)};
      std::memcpy(&group.scale, block, 2);
      std::memcpy(&group.minimum, block + 2, 2);
      out.groups.push_back(group);
      for (size_t i = 0; i < 16; ++i) {
        const auto pair = static_cast<uint8_t>(block[4 + i]);
        out.values[first + i] = pair & 15;
        out.values[first + 16 + i] = pair >> 4;
      }
    }
  }
  return out;
}

// Roughly by the steps they need and the columns they cover, so that those which could share a track are near.
std::vector<uint32_t> sorted_groups(const Groups& all) {
  constexpr unsigned kFullPairs = kQuantBlock / 2, kFirstNear = 24, kLastNear = 8;  // columns
  std::vector<std::pair<uint64_t, uint32_t>> keys;
  keys.reserve(all.groups.size());
  for (const Group& group : all.groups) {
    const uint16_t* columns = all.columns.data() + group.first;
    const uint64_t missing = kFullPairs - (group.count + 1) / 2, first = columns[0] / kFirstNear,
                   last = columns[group.count - 1] / kLastNear, middle = columns[group.count / 2];
    keys.emplace_back(missing << 48 | first << 32 | last << 16 | middle, static_cast<uint32_t>(keys.size()));
  }
  std::sort(keys.begin(), keys.end());
  std::vector<uint32_t> order;
  order.reserve(keys.size());
  for (const auto& key : keys) order.push_back(key.second);
  return order;
}

// Some columns of a group, evenly spread over its values.
using Path = std::array<uint16_t, 8>;

Path path_of(const Groups& all, const Group& group) {
  constexpr uint32_t kEvery = kQuantBlock / std::tuple_size_v<Path>;
  Path path;
  for (uint32_t i = 0; i < path.size(); ++i)
    path[i] = all.columns[group.first + std::min(i * kEvery + kEvery - 1, group.count - 1)];
  return path;
}

uint32_t distance(const Path& a, const Path& b) {
  uint32_t total = 0;
  for (size_t i = 0; i < a.size(); ++i) total += static_cast<uint32_t>(std::abs(a[i] - b[i]));
  return total;
}

// The groups, those of a track one behind the other: the first that is left and, of the next ones, the nearest to it.
std::vector<uint32_t> track_order(const Groups& all) {
  constexpr uint32_t kCandidates = 64, kTaken = std::numeric_limits<uint32_t>::max();
  const std::vector<uint32_t> sorted = sorted_groups(all);
  std::vector<uint32_t> order;
  order.reserve(sorted.size());
  std::vector<std::pair<uint32_t, Path>> candidates;
  std::array<uint32_t, kCandidates> keys;  // distance and place
  for (size_t next = 0; order.size() < sorted.size();) {
    for (; candidates.size() < kCandidates && next < sorted.size(); ++next)
      candidates.emplace_back(sorted[next], path_of(all, all.groups[sorted[next]]));
    const size_t count = candidates.size();
    for (size_t i = 0; i < count; ++i)
      keys[i] = distance(candidates[0].second, candidates[i].second) * kCandidates + static_cast<uint32_t>(i);
    // Passes without branches: a selection's could not be foreseen.
    for (size_t taken = 0; taken < std::min<size_t>(kTrackGroups, count); ++taken) {
      uint32_t least = kTaken;
      for (size_t i = 0; i < count; ++i) least = std::min(least, keys[i]);
      keys[least % kCandidates] = kTaken;
      order.push_back(candidates[least % kCandidates].first);
    }
    size_t left = 0;
    for (size_t i = 0; i < count; ++i)
      if (keys[i] != kTaken) candidates[left++] = candidates[i];
    candidates.resize(left);
  }
  return order;
}

// One step of a track, and how far the window moves behind it.
struct TrackStep {
  std::byte entries[kTrackBytes];
  uint8_t move;
};

struct Track {
  std::span<const uint32_t> members;
  uint16_t column;       // where its first window begins
  int64_t first, steps;  // of all steps
};

// Appends the steps of the track of up to kTrackGroups groups.
Track append_track(const Groups& all, std::span<const uint32_t> members, std::vector<TrackStep>& steps) {
  constexpr int kNone = std::numeric_limits<int>::max();
  std::array<const uint16_t*, kTrackGroups> next{}, end{};
  int column = kNone;  // where the window begins
  for (size_t g = 0; g < members.size(); ++g) {
    const Group& group = all.groups[members[g]];
    next[g] = all.columns.data() + group.first;
    end[g] = next[g] + group.count;
    column = std::min<int>(column, *next[g]);
  }
  const auto first_column = static_cast<uint16_t>(column);
  const int64_t first = std::ssize(steps);
  while (column != kNone) {
    TrackStep step{};
    int following = kNone;
    for (size_t g = 0; g < members.size(); ++g) {
      for (size_t slot = 0; slot < 2 && next[g] != end[g] && *next[g] < column + kWindow; ++slot, ++next[g]) {
        const uint8_t value = all.values[static_cast<size_t>(next[g] - all.columns.data())];
        step.entries[2 * g + slot] = static_cast<std::byte>(value << 4 | (*next[g] - column + 1));
      }
      if (next[g] != end[g]) following = std::min<int>(following, *next[g]);
    }
    // What is farther away than a move reaches takes steps without values.
    step.move = static_cast<uint8_t>(following == kNone ? 0 : std::min(following - column, kLargestMove));
    column = following == kNone ? kNone : column + step.move;
    steps.push_back(step);
  }
  return {members, first_column, first, std::ssize(steps) - first};
}

// The tile of one or two tracks, appended to the panel; its steps are those of the last one.
void append_tile(const Groups& all, std::span<const Track> tracks, const std::vector<TrackStep>& steps,
                 SparseLanes::Panel& panel) {
  Head head{};
  std::vector<std::byte> moves(static_cast<size_t>(tracks.back().steps));
  const size_t first = panel.steps.size();
  panel.steps.resize(first + moves.size());
  for (size_t i = 0; i < tracks.size(); ++i) {
    const auto [members, column, track_first, count] = tracks[i];
    for (size_t g = 0; g < members.size(); ++g) {
      const Group& group = all.groups[members[g]];
      const int64_t at = place_in_head(static_cast<int64_t>(i), static_cast<int64_t>(g));
      head.scales[at] = group.scale;
      head.minima[at] = group.minimum;
      head.rows[at] = group.row;
    }
    head.first_columns[i] = column;
    for (size_t s = 0; s < static_cast<size_t>(count); ++s) {
      const TrackStep& step = steps[static_cast<size_t>(track_first) + s];
      std::copy_n(step.entries, kTrackBytes, panel.steps[first + s].entries + i * kTrackBytes);
      moves[s] |= static_cast<std::byte>(step.move << (4 * i));
    }
  }
  const auto* bytes = reinterpret_cast<const std::byte*>(&head);
  panel.heads.insert(panel.heads.end(), bytes, bytes + kMovesAt);
  panel.heads.insert(panel.heads.end(), moves.begin(), moves.end());
}

SparseLanes::Panel panel_of(const SparseView& view, int64_t begin, int64_t end) {
  const Groups all = groups_of(view, begin, end);
  const std::vector<uint32_t> order = track_order(all);
  std::vector<Track> tracks;
  std::vector<TrackStep> steps;
  for (size_t g = 0; g < order.size(); g += kTrackGroups)
    tracks.push_back(
        append_track(all, std::span(order).subspan(g, std::min<size_t>(kTrackGroups, order.size() - g)), steps));

  // Those of as many steps together: no track waits for the other of its tile, and the loop over steps ends where the
  // processor expects it.
  std::stable_sort(tracks.begin(), tracks.end(), [](const Track& a, const Track& b) { return a.steps < b.steps; });
  SparseLanes::Panel panel{begin, end, {}, {}, {}};
  panel.steps.reserve(steps.size() / kTracks + steps.size() / 64);
  for (size_t t = 0; t < tracks.size(); t += kTracks) {
    const auto tile = std::span(tracks).subspan(t, std::min<size_t>(kTracks, tracks.size() - t));
    append_tile(all, tile, steps, panel);
    if (panel.runs.empty() || panel.runs.back().steps != tile.back().steps)
      panel.runs.push_back({tile.back().steps, 0});
    ++panel.runs.back().tiles;
  }
  panel.heads.shrink_to_fit();
  panel.steps.shrink_to_fit();
  return panel;
}

void add_tiles_scalar(const SparseLanes::Panel& panel, SplitRow x, float* out) noexcept {
  const std::byte* at = panel.heads.data();
  const SparseLanes::Step* steps = panel.steps.data();
  for (const auto [count, tiles] : panel.runs)
    for (int64_t i = 0; i < tiles; ++i, at += kMovesAt + count, steps += count) {
      Head head;
      std::memcpy(&head, at, sizeof(head));
      for (int64_t track = 0; track < kTracks; ++track) {
        int32_t products[kTrackGroups] = {}, sums[kTrackGroups] = {};
        int64_t column = head.first_columns[track];
        for (int64_t s = 0; s < count; ++s) {
          for (int64_t b = 0; b < kTrackBytes; ++b) {
            const int entry = static_cast<uint8_t>(steps[s].entries[track * kTrackBytes + b]);
            if (entry == 0) continue;
            const int64_t c = column + (entry & 15) - 1;
            const int32_t q = kSplit * x.high[c] + x.low[c];
            products[b / 2] += (entry >> 4) * q;
            sums[b / 2] += q;
          }
          column += static_cast<uint8_t>(at[kMovesAt + s]) >> (4 * track) & 15;
        }
        for (int64_t g = 0; g < kTrackGroups; ++g) {
          const int64_t place = place_in_head(track, g);
          out[head.rows[place]] += tensor::f16_to_f32(head.scales[place]) * static_cast<float>(products[g]) +
                                   tensor::f16_to_f32(head.minima[place]) * static_cast<float>(sums[g]);
        }
      }
    }
}

}  // namespace

const AddTiles kAddTilesScalar = add_tiles_scalar;

SplitRow split_row(const float* x, int64_t n, float* memory) noexcept {
  auto* high = reinterpret_cast<int8_t*>(memory);
  int8_t* low = high + n + kSplitSlack;
  const float largest = largest_magnitude(x, n);
  const float inverse = largest > 0 ? static_cast<float>(kLargestSplit) / largest : 0.0f;
  for (int64_t i = 0; i < n; ++i) {
    // Half away from zero: the conversion cuts.
    const auto q = static_cast<int32_t>(x[i] * inverse + std::copysign(0.5f, x[i]));
    const int32_t rest = ((q + kSplit / 2) & (kSplit - 1)) - kSplit / 2;
    high[i] = static_cast<int8_t>((q - rest) / kSplit);
    low[i] = static_cast<int8_t>(rest);
  }
  std::memset(high + n, 0, kSplitSlack);
  std::memset(low + n, 0, kSplitSlack);
  return {high, low, largest / static_cast<float>(kLargestSplit)};
}

bool SparseLanes::fits(const SparseView& view) noexcept {
  constexpr int64_t kMost = std::numeric_limits<uint16_t>::max();
  static const bool fast = active_isa() >= Isa::kAvx2;
  return fast && view.coding == tensor::SparseCoding::kQ4 && view.rows() <= kMost && view.cols() <= kMost;
}

SparseLanes::SparseLanes(const SparseView& view) : panels_(static_cast<size_t>(threads())) {
  // Panels of about as many values, which are their work.
  const uint64_t *first = view.row_offset, *last = first + view.rows();
  const auto count = static_cast<uint64_t>(panels());
  const auto row_at = [&](uint64_t p) {
    return p == count ? view.rows() : std::lower_bound(first, last, *last * p / count) - first;
  };
  parallel_try(panels(), [&](int64_t p) {
    panels_[static_cast<size_t>(p)] =
        panel_of(view, row_at(static_cast<uint64_t>(p)), row_at(static_cast<uint64_t>(p) + 1));
  });
  for (const Panel& panel : panels_) most_rows_ = std::max(most_rows_, panel.end - panel.begin);
}

int64_t SparseLanes::bytes() const {
  int64_t total = 0;
  for (const Panel& panel : panels_)
    total += std::ssize(panel.heads) + std::ssize(panel.steps) * static_cast<int64_t>(sizeof(Step));
  return total;
}

void SparseLanes::product(int64_t panel, std::span<const SplitRow> x, float beta, tensor::MatView y,
                          float* memory) const noexcept {
  const Panel& part = panels_[static_cast<size_t>(panel)];
  const int64_t rows = part.end - part.begin;
  for (size_t t = 0; t < x.size(); ++t) {
    std::fill_n(memory, rows, 0.0f);
    (active_isa() >= Isa::kAvx2 ? kAddTilesAvx2 : kAddTilesScalar)(part, x[t], memory);
    float* out = y.row(static_cast<int64_t>(t)) + part.begin;
    for (int64_t r = 0; r < rows; ++r) out[r] = x[t].scale * memory[r] + (beta != 0.0f ? out[r] : 0.0f);
  }
}

}  // namespace brick::kernels
