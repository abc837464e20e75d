// The table that chooses the kernel of a sparse weight (kernels/kernel_table.h) as a JSON file that one machine
// measured: `brick bench MODEL --calibrate FILE` writes it, the environment variable BRICK_KERNEL_TABLE=FILE makes
// every command use it. Nothing is looked up unasked: results depend on the table in their last bits.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>

#include "brick/base/log.h"
#include "brick/kernels/kernel_table.h"
#include "brick/model/model.h"

namespace brick::pipeline {

// Times both kernels of each choice on the shapes of the model's first layer, bfloat16 values kept at random; the
// machine should be doing nothing else. For an arithmetic that it lacks, the built-in rows remain.
kernels::KernelTable calibrate_kernels(const model::Model& model, ProgressSink& sink);

// {"f32": [{"tokens", "product", "gradient"}, ...], "bf16"}: what the table says, not where it was measured.
nlohmann::json table_rows(const kernels::KernelTable& table);
// With "format", "cpu", "isa" and "threads".
nlohmann::json to_json(const kernels::KernelTable& table);
// Error(kCorrupt) naming the key that is wrong; kMismatch where it was measured for another instruction set.
kernels::KernelTable kernel_table_from_json(const nlohmann::json& json);

// Uses the file that BRICK_KERNEL_TABLE names, if it does. The errors of the above, naming the file.
void use_kernel_table_of_environment();

}  // namespace brick::pipeline
