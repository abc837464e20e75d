#include <concepts>

#include "brick/base/error.h"
#include "brick/io/atomic_output.h"
#include "brick/io/gguf.h"
#include "brick/io/posix_file.h"

namespace brick::io {
namespace {

constexpr uint64_t kAlignment = 32;
constexpr uint32_t kArray = 9;

template <class T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

void put_string(std::string& out, std::string_view text) {
  put(out, uint64_t{text.size()});
  out += text;
}

template <class T>
void put_value(std::string& out, const T& value) {
  if constexpr (std::same_as<T, std::string> || std::same_as<T, std::string_view>)
    put_string(out, value);
  else if constexpr (std::same_as<T, bool>)
    put(out, static_cast<uint8_t>(value));
  else
    put(out, value);
}

// The variant's alternatives are in the order of GGUF's type ids, without the array type.
uint32_t scalar_type(size_t index) { return static_cast<uint32_t>(index < kArray ? index : index + 1); }
constexpr size_t kScalars = std::variant_size_v<GgufValue> / 2;

uint64_t padding(uint64_t size) { return (kAlignment - size % kAlignment) % kAlignment; }

}  // namespace

void GgufWriter::add(std::string_view key, const GgufValue& value) {
  if (key == "general.alignment" && value != GgufValue(static_cast<uint32_t>(kAlignment)))
    fail(ErrorCode::kInvalidInput, "GGUF files are written with alignment {}", kAlignment);
  if (!keys_.emplace(key, true).second) fail(ErrorCode::kInvalidInput, "metadata key {} is added twice", shown(key));
  put_string(metadata_, key);
  std::visit(
      [&]<class V>(const V& typed) {
        if constexpr (requires { typename V::allocator_type; } && !std::same_as<V, std::string>) {
          put(metadata_, kArray);
          put(metadata_, scalar_type(value.index() - kScalars));
          put(metadata_, uint64_t{typed.size()});
          for (const typename V::value_type item : typed) put_value(metadata_, item);
        } else {
          put(metadata_, scalar_type(value.index()));
          put_value(metadata_, typed);
        }
      },
      value);
}

void GgufWriter::add(std::string_view key, const std::vector<std::string>& value) {
  add(key, GgufValue(std::vector<std::string_view>(value.begin(), value.end())));
}

void GgufWriter::add_tensor(std::string name, tensor::DType dtype, tensor::Shape shape, TensorSource source) {
  const GgmlType* type = find_ggml_type(dtype);
  if (type == nullptr)
    fail(ErrorCode::kInvalidInput, "tensor {}: {} cannot be written to GGUF", shown(name), tensor::name(dtype));
  add_ggml_tensor(std::move(name), type->id, std::move(shape), std::move(source));
}

void GgufWriter::add_tensor(std::string name, const tensor::TensorView& view) {
  add_tensor(std::move(name), view.dtype, view.shape, source_of(view.bytes));
}

void GgufWriter::add_ggml_tensor(std::string name, uint32_t ggml_type, tensor::Shape shape, TensorSource source) {
  const GgmlType* type = find_ggml_type(ggml_type);
  if (type == nullptr) fail(ErrorCode::kInvalidInput, "tensor {}: unknown ggml type {}", shown(name), ggml_type);
  if (shape.size() > 4)
    fail(ErrorCode::kInvalidInput, "tensor {}: {} dimensions, GGUF has at most 4", shown(name), shape.size());
  if (!names_.emplace(name, true).second) fail(ErrorCode::kInvalidInput, "tensor {} is added twice", shown(name));
  const int64_t columns = shape.empty() ? 1 : shape.back();
  if (columns % type->block_values != 0)
    fail(ErrorCode::kInvalidInput, "tensor {}: rows of {} values are no whole number of {} blocks of {}", shown(name),
         columns, type->name, type->block_values);
  const int64_t blocks = tensor::element_count(shape) / type->block_values;
  const auto bytes = static_cast<uint64_t>(blocks) * static_cast<uint64_t>(type->block_bytes);
  tensors_.push_back({std::move(name), ggml_type, std::move(shape), bytes, std::move(source)});
}

void GgufWriter::write(const std::filesystem::path& path, bool force) {
  std::string header = "GGUF";
  put(header, uint32_t{3});
  put(header, uint64_t{tensors_.size()});
  put(header, uint64_t{keys_.size()});
  header += metadata_;
  uint64_t offset = 0;
  for (const Entry& entry : tensors_) {
    put_string(header, entry.name);
    put(header, static_cast<uint32_t>(entry.shape.size()));
    for (size_t i = entry.shape.size(); i-- > 0;) put(header, static_cast<uint64_t>(entry.shape[i]));
    put(header, entry.ggml_type);
    put(header, offset);
    offset += entry.bytes + padding(entry.bytes);
  }
  header.append(padding(header.size()), '\0');

  AtomicFile out(path, force);
  out.write(header);
  for (const Entry& entry : tensors_) {
    stream_tensor(out, entry.name, entry.bytes, entry.source);
    out.write(std::string(padding(entry.bytes), '\0'));
  }
  out.commit();
}

}  // namespace brick::io
