// How the kept weights of a pruned matrix are written.
#pragma once

#include <string>

#include "brick/model/model.h"

namespace brick::prune {

struct Storage {
  tensor::SparseCoding coding = tensor::SparseCoding::kValues;
  tensor::DType dtype = tensor::DType::kF32;
};

// "f32", "bf16"; "q4": Q4_1 blocks of the kept values; "keep": as the parent has them, exactly its numbers
// when it is quantised. `keeps_values`: the method leaves kept weights as they are. Error(kInvalidInput) for
// other words, Error(kUnsupported), naming the weight, for "keep" where the parent's integers would change or
// are packed already.
Storage choose_storage(const std::string& values, const tensor::Matrix& parent, bool keeps_values,
                       const std::string& name);

// Of a dense matrix whose rows get `cols` values, made from `parent`. Error as choose_storage() for values that change,
// and, naming the weight, where such rows are no whole blocks.
tensor::DType dense_dtype(const std::string& values, const tensor::Matrix& parent, int64_t cols,
                          const std::string& name);

// Error of dense_dtype() for any weight of a model whose residual stream gets `width` channels.
void check_width(const model::Model& parent, int64_t width, const std::string& values);

// The kept entries of `dense`, encoded. `parent` is what `dense` was pruned from.
tensor::Matrix store_pruned(const Storage& storage, const tensor::Matrix& parent, tensor::ConstMatView dense,
                            tensor::MaskView mask);

}  // namespace brick::prune
