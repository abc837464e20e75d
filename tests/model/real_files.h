// Where the real model and the shared data are, if they are.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

namespace brick::model {

// The SmolLM2-135M-Instruct GGUF (environment BRICK_MODEL); empty where it is absent.
inline std::string real_gguf() {
  const char* path = std::getenv("BRICK_MODEL");
  return path != nullptr && std::filesystem::is_regular_file(path) ? path : "";
}

// A file or folder of the shared data (environment BRICK_DATA, by default ../shared/data beside the
// repository); empty where it is absent.
inline std::string shared_data(const std::string& name) {
  const char* root = std::getenv("BRICK_DATA");
  const std::filesystem::path path =
      root != nullptr ? std::filesystem::path(root) / name
                      : std::filesystem::path(BRICK_TEST_SOURCE_DIR).parent_path().parent_path() / "shared/data" / name;
  return std::filesystem::exists(path) ? path.string() : "";
}

}  // namespace brick::model

#define BRICK_SKIP_WITHOUT(path, what) \
  if ((path).empty()) GTEST_SKIP() << what
