// Opens any bytes as a NumPy file.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "brick/base/error.h"
#include "brick/io/npy.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace brick::io;
  std::vector<std::byte> bytes(size);
  if (size > 0) std::memcpy(bytes.data(), data, size);
  const auto file = MappedFile::from_bytes(std::move(bytes));
  for (const bool floats : {false, true}) {
    try {
      if (floats)
        parse_npy_floats(*file);
      else
        parse_npy_ints(*file);
    } catch (const brick::Error&) {
    }
  }
  return 0;
}
