#include <algorithm>

#include "brick/base/error.h"
#include "brick/io/atomic_output.h"
#include "brick/io/json_file.h"
#include "brick/io/posix_file.h"
#include "brick/io/safetensors.h"

namespace brick::io {
namespace {

using tensor::DType;

// Empty for the block formats, which safetensors do not have.
std::string_view file_name_of(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "F32";
    case DType::kF16:
      return "F16";
    case DType::kBF16:
      return "BF16";
    case DType::kU8:
      return "U8";
    case DType::kI32:
      return "I32";
    case DType::kI64:
      return "I64";
    default:
      return {};
  }
}

}  // namespace

void SafetensorsWriter::set_metadata(std::string key, std::string value) {
  metadata_.insert_or_assign(std::move(key), std::move(value));
}

void SafetensorsWriter::add_tensor(std::string name, DType dtype, tensor::Shape shape, TensorSource source) {
  if (file_name_of(dtype).empty())
    fail(ErrorCode::kInvalidInput, "tensor {}: {} cannot be written to safetensors", shown(name), tensor::name(dtype));
  if (name == "__metadata__" || !names_.emplace(name, true).second)
    fail(ErrorCode::kInvalidInput, "tensor {} is added twice or has a reserved name", shown(name));
  const auto bytes = static_cast<uint64_t>(tensor::byte_count(dtype, shape));
  tensors_.push_back({std::move(name), dtype, std::move(shape), bytes, std::move(source)});
}

void SafetensorsWriter::add_tensor(std::string name, const tensor::TensorView& view) {
  add_tensor(std::move(name), view.dtype, view.shape, source_of(view.bytes));
}

void SafetensorsWriter::write(const std::filesystem::path& path, bool force) {
  std::vector<const Entry*> order;
  for (const Entry& entry : tensors_) order.push_back(&entry);
  std::stable_sort(order.begin(), order.end(), [](const Entry* a, const Entry* b) {
    return tensor::info(a->dtype).block_bytes > tensor::info(b->dtype).block_bytes;
  });

  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata_.empty()) header["__metadata__"] = metadata_;
  uint64_t offset = 0;
  for (const Entry* entry : order) {
    header.emplace(entry->name, nlohmann::ordered_json{{"dtype", file_name_of(entry->dtype)},
                                                       {"shape", entry->shape},
                                                       {"data_offsets", {offset, offset + entry->bytes}}});
    offset += entry->bytes;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::exception&) {
    fail(ErrorCode::kInvalidInput, "{}: a tensor's name or metadata is no valid UTF-8", path.string());
  }
  text.append((8 - text.size() % 8) % 8, ' ');

  AtomicFile out(path, force);
  const uint64_t length = text.size();
  out.write(std::as_bytes(std::span(&length, 1)));
  out.write(text);
  for (const Entry* entry : order) stream_tensor(out, entry->name, entry->bytes, entry->source);
  out.commit();
}

}  // namespace brick::io
