// Blocks and adapters as the jobs leave them on disk: whole or not at all (io/atomic_output.h).
#pragma once

#include <filesystem>
#include <string>

#include "brick/model/adapter.h"
#include "brick/model/model.h"

namespace brick::pipeline {

// `input`, or nothing where it is the output itself: an adapter may be continued in its place.
std::filesystem::path other_than(const std::filesystem::path& out, const std::filesystem::path& input);

// Into a new folder, or with `force` in the place of what is there; else Error(kExists).
void write_block(const model::Model& block, const std::filesystem::path& folder, bool force);

// Likewise. `base` is the model that the adapter's own files name.
void write_adapter(const model::Adapter& adapter, const std::string& base, const std::filesystem::path& folder,
                   bool force);

// Of a file, or of all files in a folder.
int64_t bytes_on_disk(const std::filesystem::path& path);

}  // namespace brick::pipeline
