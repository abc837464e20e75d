// GGUF files (versions 2 and 3, little-endian): metadata and tensors by name. Knows no model.
// Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "brick/io/mapped_file.h"
#include "brick/io/tensor_source.h"
#include "brick/tensor/tensor.h"

namespace brick::io {

// A metadata value: the 12 scalar types of GGUF, and arrays of them. Arrays of strings are views: of the file
// in a GgufFile (valid as long as it), of the caller's strings in GgufWriter::add (copied at once).
using GgufValue =
    std::variant<uint8_t, int8_t, uint16_t, int16_t, uint32_t, int32_t, float, bool, std::string, uint64_t, int64_t,
                 double, std::vector<uint8_t>, std::vector<int8_t>, std::vector<uint16_t>, std::vector<int16_t>,
                 std::vector<uint32_t>, std::vector<int32_t>, std::vector<float>, std::vector<bool>,
                 std::vector<std::string_view>, std::vector<uint64_t>, std::vector<int64_t>, std::vector<double>>;

// "u32", "string", "array of f32", ... for messages.
std::string type_name(const GgufValue& value);

// What ggml calls a tensor's type. Sizes are those of ggml's blocks.
struct GgmlType {
  uint32_t id;
  std::string_view name;  // as ggml prints it, e.g. "Q6_K"
  int block_values;
  int block_bytes;
};

const GgmlType* find_ggml_type(uint32_t id);              // nullptr if unknown
const GgmlType* find_ggml_type(tensor::DType dtype);      // nullptr for u8
std::optional<tensor::DType> dtype_of_ggml(uint32_t id);  // those that Brickwork computes with
std::string ggml_type_name(uint32_t id);                  // "Q6_K", or "type 99"

struct GgufTensorInfo {
  std::string name;
  uint32_t ggml_type;
  tensor::Shape shape;  // outermost first: a [out, in] matrix has shape {out, in}
  uint64_t offset;      // from the start of the file
  uint64_t bytes;       // 0 where ggml_type is unknown
};

// An opened GGUF. Cheap to copy is not a goal; move it. Everything that it hands out lives as long as it
// does.
class GgufFile {
 public:
  // Reads and checks the header only; no tensor byte is touched. Error(kCorrupt) for a truncated or
  // inconsistent file, kUnsupported for big-endian files, version 1 and nested arrays.
  static GgufFile open(const std::filesystem::path& path);
  static GgufFile parse(std::shared_ptr<const MappedFile> file);

  GgufFile(GgufFile&&) = default;
  GgufFile& operator=(GgufFile&&) = default;

  const std::string& name() const { return file_->name(); }
  uint32_t version() const { return version_; }
  uint64_t alignment() const { return alignment_; }
  const std::shared_ptr<const MappedFile>& file() const { return file_; }

  // In the file's order.
  const std::vector<std::pair<std::string, GgufValue>>& metadata() const { return metadata_; }
  const GgufValue* find(std::string_view key) const;  // nullptr if absent

  // Absent: nullopt (get_*), Error(kNotFound) (require_*) or the default (*_or). Present but of another type
  // or out of range: Error(kInvalidInput) naming key, found and wanted type. Integers of any width that fit
  // are taken; f32 takes f64 too.
  std::optional<uint32_t> get_u32(std::string_view key) const;
  std::optional<uint64_t> get_u64(std::string_view key) const;
  std::optional<int64_t> get_i64(std::string_view key) const;
  std::optional<float> get_f32(std::string_view key) const;
  std::optional<bool> get_bool(std::string_view key) const;
  std::optional<std::string> get_str(std::string_view key) const;

  uint32_t require_u32(std::string_view key) const;
  uint64_t require_u64(std::string_view key) const;
  int64_t require_i64(std::string_view key) const;
  float require_f32(std::string_view key) const;
  bool require_bool(std::string_view key) const;
  std::string require_str(std::string_view key) const;

  uint32_t u32_or(std::string_view key, uint32_t fallback) const { return get_u32(key).value_or(fallback); }
  uint64_t u64_or(std::string_view key, uint64_t fallback) const { return get_u64(key).value_or(fallback); }
  int64_t i64_or(std::string_view key, int64_t fallback) const { return get_i64(key).value_or(fallback); }
  float f32_or(std::string_view key, float fallback) const { return get_f32(key).value_or(fallback); }
  bool bool_or(std::string_view key, bool fallback) const { return get_bool(key).value_or(fallback); }
  std::string str_or(std::string_view key, std::string_view fallback) const;

  // Arrays: nullptr if absent, Error(kInvalidInput) if the value is no such array. Integers of any width are
  // widened by get_ints.
  const std::vector<std::string_view>* find_strings(std::string_view key) const;
  const std::vector<float>* find_floats(std::string_view key) const;
  std::optional<std::vector<int64_t>> get_ints(std::string_view key) const;
  const std::vector<std::string_view>& require_strings(std::string_view key) const;
  const std::vector<float>& require_floats(std::string_view key) const;
  std::vector<int64_t> require_ints(std::string_view key) const;

  // In the file's order.
  const std::vector<GgufTensorInfo>& tensors() const { return tensors_; }
  const GgufTensorInfo* find_tensor(std::string_view name) const;  // nullptr if absent

  // The view lives as long as this GgufFile (or a copy of file()). Error(kNotFound) if absent, kUnsupported
  // naming the ggml type if Brickwork cannot compute with it.
  tensor::TensorView tensor(std::string_view name) const;
  tensor::TensorView tensor(const GgufTensorInfo& info) const;
  // Encoded bytes of any known ggml type. Lives as long as tensor().
  std::span<const std::byte> raw(const GgufTensorInfo& info) const;

 private:
  GgufFile() = default;
  friend class GgufParser;

  std::shared_ptr<const MappedFile> file_;
  uint32_t version_ = 0;
  uint64_t alignment_ = 32;
  std::vector<std::pair<std::string, GgufValue>> metadata_;
  std::vector<GgufTensorInfo> tensors_;
  std::map<std::string, size_t, std::less<>> metadata_index_, tensor_index_;
};

// Writes GGUF version 3, alignment 32. Same calls, same bytes. Memory holds the metadata and what one
// TensorSource holds.
class GgufWriter {
 public:
  // Metadata in order of calls; strings are copied. Error(kInvalidInput) for a key added twice.
  void add(std::string_view key, const GgufValue& value);
  void add(std::string_view key, const std::vector<std::string>& value);

  // Shape outermost first, at most 4 dimensions. A name added twice or a dtype without ggml type (u8) is an
  // Error(kInvalidInput).
  void add_tensor(std::string name, tensor::DType dtype, tensor::Shape shape, TensorSource source);
  // The bytes of `view` must live until write().
  void add_tensor(std::string name, const tensor::TensorView& view);
  // Any ggml type, in ggml's encoding (for exports that Brickwork itself does not read).
  void add_ggml_tensor(std::string name, uint32_t ggml_type, tensor::Shape shape, TensorSource source);

  // Atomic: the path holds the old file or the whole new one. An existing file without `force` is an
  // Error(kExists). A source that gives too few or too many bytes is an Error(kInvalidInput).
  void write(const std::filesystem::path& path, bool force = false);

 private:
  struct Entry {
    std::string name;
    uint32_t ggml_type;
    tensor::Shape shape;
    uint64_t bytes;
    TensorSource source;
  };

  std::string metadata_;  // encoded
  std::map<std::string, bool, std::less<>> keys_, names_;
  std::vector<Entry> tensors_;
};

}  // namespace brick::io
