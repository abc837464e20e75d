// Opens any bytes as GGUF and touches all that the file claims to hold.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "brick/base/error.h"
#include "brick/io/gguf.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace brick::io;
  std::vector<std::byte> bytes(size);
  if (size > 0) std::memcpy(bytes.data(), data, size);
  try {
    const GgufFile file = GgufFile::parse(MappedFile::from_bytes(std::move(bytes)));
    volatile size_t sum = 0;
    for (const auto& [key, value] : file.metadata()) {
      sum = sum + type_name(value).size();
      if (const auto* words = std::get_if<std::vector<std::string_view>>(&value))
        for (const std::string_view word : *words)
          for (const char c : word) sum = sum + static_cast<unsigned char>(c);
    }
    for (const GgufTensorInfo& info : file.tensors())
      if (find_ggml_type(info.ggml_type) != nullptr)
        for (const std::byte b : file.raw(info)) sum = sum + static_cast<size_t>(b);
  } catch (const brick::Error&) {
  }
  return 0;
}
