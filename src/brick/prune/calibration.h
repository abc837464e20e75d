// Calibration text, cut into pieces that go through a layer at a time.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "brick/model/transformer.h"

namespace brick::prune {

class Calibration {
 public:
  // Whole windows are packed into pieces of at most about `piece_tokens`; empty windows are left out.
  Calibration(std::span<const std::span<const int32_t>> windows, int64_t piece_tokens);

  struct Piece {
    int64_t begin = 0, end = 0;    // rows
    std::vector<int64_t> offsets;  // of the sequences, from 0
  };

  const std::vector<Piece>& pieces() const { return pieces_; }
  int64_t tokens() const { return static_cast<int64_t>(ids_.size()); }
  int64_t largest_piece() const;
  std::string hash() const { return hash_; }  // SHA-256 of the windows' lengths and ids

  // Every window as a piece of its own.
  std::vector<Piece> sequences() const;
  int64_t longest_sequence() const;
  std::span<const int32_t> ids(const Piece& piece) const;

  // x [tokens, D] = embeddings.
  void embed(const model::Transformer& transformer, tensor::MatView x) const;

 private:
  std::vector<int32_t> ids_;
  std::vector<Piece> pieces_;
  std::string hash_;
};

}  // namespace brick::prune
