#include "brick/prune/calibration.h"

#include <algorithm>

#include "brick/base/sha256.h"

namespace brick::prune {

Calibration::Calibration(std::span<const std::span<const int32_t>> windows, int64_t piece_tokens) {
  Sha256 hash;
  for (const std::span<const int32_t> window : windows) {
    if (window.empty()) continue;
    const auto length = static_cast<int64_t>(window.size());
    hash.update(std::as_bytes(std::span(&length, 1))).update(std::as_bytes(window));
    if (pieces_.empty() || pieces_.back().end - pieces_.back().begin + length > piece_tokens)
      pieces_.push_back({tokens(), tokens(), {0}});
    Piece& piece = pieces_.back();
    piece.end += length;
    piece.offsets.push_back(piece.end - piece.begin);
    ids_.insert(ids_.end(), window.begin(), window.end());
  }
  hash_ = hash.hex();
}

int64_t Calibration::largest_piece() const {
  int64_t largest = 0;
  for (const Piece& piece : pieces_) largest = std::max(largest, piece.end - piece.begin);
  return largest;
}

int64_t Calibration::longest_sequence() const {
  int64_t longest = 0;
  for (const Piece& sequence : sequences()) longest = std::max(longest, sequence.end - sequence.begin);
  return longest;
}

std::vector<Calibration::Piece> Calibration::sequences() const {
  std::vector<Piece> out;
  for (const Piece& piece : pieces_)
    for (size_t s = 0; s + 1 < piece.offsets.size(); ++s)
      out.push_back({piece.begin + piece.offsets[s],
                     piece.begin + piece.offsets[s + 1],
                     {0, piece.offsets[s + 1] - piece.offsets[s]}});
  return out;
}

std::span<const int32_t> Calibration::ids(const Piece& piece) const {
  return std::span(ids_).subspan(static_cast<size_t>(piece.begin), static_cast<size_t>(piece.end - piece.begin));
}

void Calibration::embed(const model::Transformer& transformer, tensor::MatView x) const { transformer.embed(ids_, x); }

}  // namespace brick::prune
