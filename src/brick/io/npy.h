// NumPy .npy files: ids in, logits out. Format: numpy.lib.format (versions 1 to 3), C order, little-endian.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "brick/io/atomic_output.h"
#include "brick/io/mapped_file.h"
#include "brick/tensor/tensor.h"

namespace brick::io {

struct NpyInts {
  tensor::Shape shape;  // 1 or 2 dimensions
  std::vector<int64_t> values;
};

struct NpyFloats {
  tensor::Shape shape;  // any number of dimensions
  std::vector<float> values;
};

// Integers of 2, 4 or 8 bytes, signed or not, e.g. token ids [N, L]. Error(kUnsupported) for Fortran order,
// another dtype, byte order or number of dimensions; kCorrupt for a malformed header or a size unlike it.
NpyInts read_npy_ints(const std::filesystem::path& path);
NpyInts parse_npy_ints(const MappedFile& file);

// Float32 ("<f4"); errors as above.
NpyFloats read_npy_floats(const std::filesystem::path& path);
NpyFloats parse_npy_floats(const MappedFile& file);

// Writes float32 [rows, cols] a few rows at a time, e.g. logits [T, V]. Atomic, as AtomicFile.
class NpyWriter {
 public:
  NpyWriter(const std::filesystem::path& path, int64_t rows, int64_t cols, bool force = false);
  void append(std::span<const float> values);  // whole rows
  void commit();                               // Error(kInvalidInput) unless exactly `rows` rows came

 private:
  AtomicFile out_;
  int64_t rows_, cols_, values_ = 0;
};

}  // namespace brick::io
