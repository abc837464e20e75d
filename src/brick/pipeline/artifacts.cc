#include "brick/pipeline/artifacts.h"

#include "brick/io/atomic_output.h"
#include "brick/model/save.h"

namespace brick::pipeline {

std::filesystem::path other_than(const std::filesystem::path& out, const std::filesystem::path& input) {
  std::error_code error;
  return std::filesystem::equivalent(out, input, error) ? std::filesystem::path() : input;
}

void write_block(const model::Model& block, const std::filesystem::path& folder, bool force) {
  io::AtomicFolder output(folder, force);
  model::save_block(block, output.path().string());
  output.commit();
}

void write_adapter(const model::Adapter& adapter, const std::string& base, const std::filesystem::path& folder,
                   bool force) {
  io::AtomicFolder output(folder, force);
  model::save_adapter(adapter, base, output.path().string());
  output.commit();
}

int64_t bytes_on_disk(const std::filesystem::path& path) {
  if (!std::filesystem::is_directory(path)) return static_cast<int64_t>(std::filesystem::file_size(path));
  int64_t total = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path))
    if (entry.is_regular_file()) total += static_cast<int64_t>(entry.file_size());
  return total;
}

}  // namespace brick::pipeline
