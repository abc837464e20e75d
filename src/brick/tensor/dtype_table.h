// The table behind dtype.h's info(), for what is compiled for one type and needs its sizes as constants.
#pragma once

#include <array>
#include <cstddef>

#include "brick/tensor/dtype.h"

namespace brick::tensor {

inline constexpr std::array<DTypeInfo, 14> kDTypes{{{"f32", 1, 4},
                                                    {"f16", 1, 2},
                                                    {"bf16", 1, 2},
                                                    {"q8_0", kQuantBlock, 34},
                                                    {"q4_0", kQuantBlock, 18},
                                                    {"q4_1", kQuantBlock, 20},
                                                    {"u8", 1, 1},
                                                    {"i32", 1, 4},
                                                    {"i64", 1, 8},
                                                    {"q5_0", kQuantBlock, 22},
                                                    {"q5_1", kQuantBlock, 24},
                                                    {"q4_k", kSuperBlock, 144},
                                                    {"q5_k", kSuperBlock, 176},
                                                    {"q6_k", kSuperBlock, 210}}};

template <DType kType>
inline constexpr int kBlockBytes = kDTypes[static_cast<size_t>(kType)].block_bytes;
template <DType kType>
inline constexpr int kBlockValues = kDTypes[static_cast<size_t>(kType)].block_values;

}  // namespace brick::tensor
