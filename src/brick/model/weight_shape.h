#pragma once

#include <array>
#include <cstdint>

#include "brick/model/cut.h"

namespace brick::model {

// [rows, columns] of a layer's weight in a model of width `hidden`.
inline std::array<int64_t, 2> weight_shape(const LayerShape& layer, int64_t hidden, Proj proj) {
  const int64_t q = layer.heads * layer.head_dim, kv = layer.kv_heads * layer.head_dim, ffn = layer.ffn;
  const std::array<std::array<int64_t, 2>, kProjCount> shapes{
      {{q, hidden}, {kv, hidden}, {kv, hidden}, {hidden, q}, {ffn, hidden}, {ffn, hidden}, {hidden, ffn}}};
  return shapes[static_cast<size_t>(proj)];
}

}  // namespace brick::model
