// Helpers of io's tests: files as bytes, and errors with their words.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/temp_folder.h"
#include "brick/base/error.h"
#include "brick/io/mapped_file.h"

namespace brick::io::test {

using Bytes = std::vector<std::byte>;

inline std::string slurp(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void spill(const std::filesystem::path& path, std::string_view text) {
  std::ofstream(path, std::ios::binary).write(text.data(), static_cast<std::streamsize>(text.size()));
}

inline std::shared_ptr<const MappedFile> in_memory(std::string_view text) {
  Bytes bytes(text.size());
  if (!text.empty()) std::memcpy(bytes.data(), text.data(), text.size());
  return MappedFile::from_bytes(std::move(bytes));
}

// Expects brick::Error with `code` and a message that has `words`.
inline void expect_error(ErrorCode code, std::string_view words, const std::function<void()>& action) {
  try {
    action();
    ADD_FAILURE() << "no error; expected one with \"" << words << "\"";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_NE(std::string_view(error.what()).find(words), std::string_view::npos) << error.what();
  }
}

// True if `action` succeeds, false if it throws brick::Error; anything else fails the test.
inline bool survives(const std::function<void()>& action) {
  try {
    action();
    return true;
  } catch (const Error&) {
    return false;
  } catch (const std::exception& error) {
    ADD_FAILURE() << "not a brick::Error: " << error.what();
    return false;
  }
}

// Largest single allocation since the last reset (allocation_watch.cc; 0 under sanitizers).
void reset_largest_allocation();
size_t largest_allocation();

using Parse = std::function<void(std::string_view)>;

// Damages a good file in every way and expects `parse` to throw brick::Error or succeed, without allocating
// out of proportion: cut at every byte (below `needed` it must throw), extreme numbers at every byte of the
// first `header` bytes, and random flips.
void expect_robust(std::string_view good, size_t header, size_t needed, const Parse& parse);

}  // namespace brick::io::test
