// safetensors files: one file, or a folder's set of shards. Knows no model.
// Format: https://github.com/huggingface/safetensors#format
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "brick/io/mapped_file.h"
#include "brick/io/tensor_source.h"
#include "brick/tensor/tensor.h"

namespace brick::io {

struct SafetensorInfo {
  std::string name;
  std::string dtype;  // as in the file: "F32", "BF16", ...
  tensor::Shape shape;
  uint64_t offset;  // from the start of the file
  uint64_t bytes;
};

class SafetensorsFile {
 public:
  // Reads and checks the header only. Error(kCorrupt) if it is malformed: more than 100 MB, no JSON of the
  // right form, a name twice, offsets outside the file or overlapping, a size unlike dtype x shape.
  static SafetensorsFile open(const std::filesystem::path& path);
  static SafetensorsFile parse(std::shared_ptr<const MappedFile> file);

  SafetensorsFile(SafetensorsFile&&) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) noexcept;
  ~SafetensorsFile();

  const std::string& name() const { return file_->name(); }
  const std::shared_ptr<const MappedFile>& file() const { return file_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  // By offset in the file.
  const std::vector<SafetensorInfo>& tensors() const { return tensors_; }
  const SafetensorInfo* find_tensor(std::string_view name) const;  // nullptr if absent

  // The view lives as long as this SafetensorsFile, and is aligned to its element even where the file is not
  // (then it looks at a copy made on first access; calls may come from several threads). Error(kNotFound) if
  // absent, kUnsupported naming the dtype if it is not F32 F16 BF16 U8 I32 I64.
  tensor::TensorView tensor(std::string_view name) const;
  tensor::TensorView tensor(const SafetensorInfo& info) const;

 private:
  struct AlignedCopies;
  SafetensorsFile();

  std::shared_ptr<const MappedFile> file_;
  std::map<std::string, std::string> metadata_;
  std::vector<SafetensorInfo> tensors_;
  std::map<std::string, size_t, std::less<>> index_;
  std::unique_ptr<AlignedCopies> copies_;
};

// The tensors of a Hugging Face folder: model.safetensors, or the shards of model.safetensors.index.json.
class SafetensorsSet {
 public:
  // Error(kNotFound) if the folder has neither, or a shard is missing; kCorrupt if the index is malformed,
  // names a file outside the folder, or places a tensor in a shard that lacks it.
  static SafetensorsSet open(const std::filesystem::path& folder);

  const std::string& name() const { return name_; }
  const std::vector<SafetensorsFile>& files() const { return files_; }
  // Of the first file that has the key; nullptr if none has.
  const std::string* find_metadata(std::string_view key) const;

  std::vector<std::string> names() const;                          // sorted
  const SafetensorInfo* find_tensor(std::string_view name) const;  // nullptr if absent
  // As SafetensorsFile::tensor; the view lives as long as this set.
  tensor::TensorView tensor(std::string_view name) const;
  void drop_pages() const noexcept;  // of all its files (mapped_file.h)

 private:
  std::string name_;
  std::vector<SafetensorsFile> files_;
  std::map<std::string, size_t, std::less<>> file_of_;
};

// Writes one safetensors file. Same calls, same bytes: `__metadata__` sorted and first, tensors in the order
// of calls except that wider elements precede narrower ones (so that each is aligned).
class SafetensorsWriter {
 public:
  void set_metadata(std::string key, std::string value);  // a second call with the same key replaces

  // F32 F16 BF16 U8 I32 I64; others, and a name added twice, are an Error(kInvalidInput).
  void add_tensor(std::string name, tensor::DType dtype, tensor::Shape shape, TensorSource source);
  // The bytes of `view` must live until write().
  void add_tensor(std::string name, const tensor::TensorView& view);

  // Atomic: the path holds the old file or the whole new one. An existing file without `force` is an
  // Error(kExists). A source that gives too few or too many bytes is an Error(kInvalidInput).
  void write(const std::filesystem::path& path, bool force = false);

 private:
  struct Entry {
    std::string name;
    tensor::DType dtype;
    tensor::Shape shape;
    uint64_t bytes;
    TensorSource source;
  };
  std::map<std::string, std::string> metadata_;
  std::map<std::string, bool, std::less<>> names_;
  std::vector<Entry> tensors_;
};

}  // namespace brick::io
