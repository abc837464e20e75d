// Opens any bytes as safetensors and reads every tensor that it can.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "brick/base/error.h"
#include "brick/io/safetensors.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace brick::io;
  std::vector<std::byte> bytes(size);
  if (size > 0) std::memcpy(bytes.data(), data, size);
  try {
    const SafetensorsFile file = SafetensorsFile::parse(MappedFile::from_bytes(std::move(bytes)));
    volatile size_t sum = 0;
    for (const SafetensorInfo& info : file.tensors()) {
      try {
        for (const std::byte b : file.tensor(info).bytes) sum = sum + static_cast<size_t>(b);
      } catch (const brick::Error&) {  // a dtype that is not read
      }
    }
  } catch (const brick::Error&) {
  }
  return 0;
}
