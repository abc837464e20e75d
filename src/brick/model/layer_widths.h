// What a layer's shape means for its activations.
#pragma once

#include "brick/kernels/attention.h"
#include "brick/model/cut.h"

namespace brick::model {

inline int64_t query_width(const LayerShape& shape) { return shape.heads * shape.head_dim; }
inline int64_t key_width(const LayerShape& shape) { return shape.kv_heads * shape.head_dim; }
inline kernels::AttentionShape attention_shape(const LayerShape& shape) {
  return {shape.heads, shape.kv_heads, shape.head_dim};
}

}  // namespace brick::model
