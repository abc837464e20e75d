#include <algorithm>
#include <bit>
#include <concepts>
#include <cstring>
#include <limits>
#include <numeric>

#include "brick/base/error.h"
#include "brick/io/gguf.h"
#include "brick/io/posix_file.h"

static_assert(std::endian::native == std::endian::little, "GGUF is read in place");

namespace brick::io {
namespace {

constexpr uint64_t kLongestName = 65535;  // GGUF's limit on keys; used for tensor names too
constexpr uint32_t kMaxDimensions = 4;    // GGML_MAX_DIMS
constexpr uint64_t kMaxAlignment = uint64_t{1} << 20;

}  // namespace

class GgufParser {
 public:
  explicit GgufParser(std::shared_ptr<const MappedFile> file) : bytes_(file->bytes()) { gguf_.file_ = std::move(file); }

  GgufFile run() {
    if (take(4, "the magic") != std::string_view("GGUF")) bad("is no GGUF file (it does not begin with GGUF)");
    gguf_.version_ = read<uint32_t>("the version");
    if (gguf_.version_ == 1) unsupported("GGUF version 1 is not read; convert it again with a current llama.cpp");
    if (gguf_.version_ != 2 && gguf_.version_ != 3) {
      const uint32_t swapped = __builtin_bswap32(gguf_.version_);
      if (swapped >= 1 && swapped <= 3)
        unsupported("big-endian GGUF is not read; convert it with gguf_convert_endian.py");
      unsupported(fmt::format("GGUF version {} is not known (2 and 3 are)", gguf_.version_));
    }
    // The shortest tensor entry has 8 + 4 + 4 + 8 bytes, the shortest metadata entry 8 + 4 + 1.
    const auto tensors = read<uint64_t>("the number of tensors"), keys = read<uint64_t>("the number of keys");
    if (tensors > left() / 24) bad(fmt::format("claims {} tensors, more than fit the file", tensors));
    if (keys > left() / 13) bad(fmt::format("claims {} metadata keys, more than fit the file", keys));
    for (uint64_t i = 0; i < keys; ++i) metadata();
    alignment();
    gguf_.tensors_.reserve(tensors);
    for (uint64_t i = 0; i < tensors; ++i) tensor_entry();
    place();
    return std::move(gguf_);
  }

 private:
  [[noreturn]] void bad(const std::string& what) const { fail(ErrorCode::kCorrupt, "{}: {}", gguf_.name(), what); }
  [[noreturn]] void unsupported(const std::string& what) const {
    fail(ErrorCode::kUnsupported, "{}: {}", gguf_.name(), what);
  }

  uint64_t left() const { return bytes_.size() - position_; }

  std::string_view take(uint64_t count, std::string_view what) {
    if (count > left())
      bad(fmt::format("truncated at byte {} in {}: {} bytes expected, {} left (an incomplete download?)", position_,
                      what, count, left()));
    const std::string_view piece(reinterpret_cast<const char*>(bytes_.data()) + position_, count);
    position_ += count;
    return piece;
  }

  template <class T>
  T read(std::string_view what) {
    T value;
    std::memcpy(&value, take(sizeof(T), what).data(), sizeof(T));
    return value;
  }

  std::string_view string(std::string_view what) { return take(read<uint64_t>(what), what); }

  std::string_view name(std::string_view what) {
    const auto length = read<uint64_t>(what);
    if (length > kLongestName) bad(fmt::format("{} has {} bytes, at most 65535 are allowed", what, length));
    return take(length, what);
  }

  bool boolean(std::string_view what) {
    const auto byte = read<uint8_t>(what);
    if (byte > 1) bad(fmt::format("a bool in {} is {}", what, byte));
    return byte == 1;
  }

  template <class T>
  std::vector<T> array(uint64_t count, std::string_view what) {
    constexpr uint64_t kLeast = std::same_as<T, bool> ? 1 : std::same_as<T, std::string_view> ? 8 : sizeof(T);
    if (count > left() / kLeast)
      bad(fmt::format("the array of {} claims {} values, more than fit the file", what, count));
    std::vector<T> values;
    if constexpr (std::same_as<T, std::string_view>) {
      values.reserve(count);
      for (uint64_t i = 0; i < count; ++i) values.push_back(string(what));
    } else if constexpr (std::same_as<T, bool>) {
      values.reserve(count);
      for (uint64_t i = 0; i < count; ++i) values.push_back(boolean(what));
    } else {
      values.resize(count);
      if (count > 0) std::memcpy(values.data(), take(count * sizeof(T), what).data(), count * sizeof(T));
    }
    return values;
  }

  // `what` is the key as it may stand in a message.
  GgufValue value(std::string_view what) {
    const auto type = read<uint32_t>(what);
    if (type != 9) return scalar(type, what);
    const auto element = read<uint32_t>(what);
    const auto count = read<uint64_t>(what);
    return array_of(element, count, what);
  }

  GgufValue scalar(uint32_t type, std::string_view what) {
    switch (type) {
      case 0:
        return read<uint8_t>(what);
      case 1:
        return read<int8_t>(what);
      case 2:
        return read<uint16_t>(what);
      case 3:
        return read<int16_t>(what);
      case 4:
        return read<uint32_t>(what);
      case 5:
        return read<int32_t>(what);
      case 6:
        return read<float>(what);
      case 7:
        return boolean(what);
      case 8:
        return std::string(string(what));
      case 10:
        return read<uint64_t>(what);
      case 11:
        return read<int64_t>(what);
      case 12:
        return read<double>(what);
      default:
        bad(fmt::format("{} has the unknown type {}", what, type));
    }
  }

  GgufValue array_of(uint32_t element, uint64_t count, std::string_view what) {
    switch (element) {
      case 0:
        return array<uint8_t>(count, what);
      case 1:
        return array<int8_t>(count, what);
      case 2:
        return array<uint16_t>(count, what);
      case 3:
        return array<int16_t>(count, what);
      case 4:
        return array<uint32_t>(count, what);
      case 5:
        return array<int32_t>(count, what);
      case 6:
        return array<float>(count, what);
      case 7:
        return array<bool>(count, what);
      case 8:
        return array<std::string_view>(count, what);
      case 9:
        unsupported(fmt::format("{} is an array of arrays, which is not read", what));
      case 10:
        return array<uint64_t>(count, what);
      case 11:
        return array<int64_t>(count, what);
      case 12:
        return array<double>(count, what);
      default:
        bad(fmt::format("{} is an array of the unknown type {}", what, element));
    }
  }

  void metadata() {
    std::string key(name("a metadata key"));
    if (!gguf_.metadata_index_.emplace(key, gguf_.metadata_.size()).second)
      bad(fmt::format("metadata key {} stands there twice", shown(key)));
    GgufValue read_value = value("metadata " + shown(key));
    gguf_.metadata_.emplace_back(std::move(key), std::move(read_value));
  }

  void alignment() {
    gguf_.alignment_ = gguf_.u32_or("general.alignment", 32);
    if (!std::has_single_bit(gguf_.alignment_) || gguf_.alignment_ < 8 || gguf_.alignment_ > kMaxAlignment)
      bad(fmt::format("general.alignment is {}, expected a power of two from 8 on", gguf_.alignment_));
  }

  void tensor_entry() {
    GgufTensorInfo info;
    info.name = name("a tensor name");
    if (!gguf_.tensor_index_.emplace(info.name, gguf_.tensors_.size()).second)
      bad(fmt::format("tensor {} stands there twice", shown(info.name)));
    const auto dimensions = read<uint32_t>("a tensor's dimensions");
    if (dimensions > kMaxDimensions)
      bad(fmt::format("tensor {} has {} dimensions, at most 4 are allowed", shown(info.name), dimensions));
    info.shape.resize(dimensions);
    for (uint32_t i = dimensions; i-- > 0;) info.shape[i] = dimension(info.name);  // innermost first in the file
    info.ggml_type = read<uint32_t>("a tensor's type");
    info.offset = read<uint64_t>("a tensor's offset");
    info.bytes = size_of(info);
    gguf_.tensors_.push_back(std::move(info));
  }

  int64_t dimension(const std::string& tensor) {
    const auto value = read<uint64_t>("a tensor's shape");
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      bad(fmt::format("tensor {} has a dimension of {}", shown(tensor), value));
    return static_cast<int64_t>(value);
  }

  uint64_t size_of(const GgufTensorInfo& info) const {
    const GgmlType* type = find_ggml_type(info.ggml_type);
    if (type == nullptr) return 0;
    const int64_t columns = info.shape.empty() ? 1 : info.shape.back();
    if (columns % type->block_values != 0)
      bad(fmt::format("tensor {} has rows of {} values, no whole number of {} blocks of {}", shown(info.name), columns,
                      type->name, type->block_values));
    int64_t bytes = columns / type->block_values;
    bool overflow = __builtin_mul_overflow(bytes, int64_t{type->block_bytes}, &bytes);
    for (size_t i = 0; i + 1 < info.shape.size(); ++i)
      overflow = __builtin_mul_overflow(bytes, info.shape[i], &bytes) || overflow;
    if (overflow)
      bad(fmt::format("tensor {} of shape [{}] is larger than any memory", shown(info.name),
                      fmt::join(info.shape, ", ")));
    return static_cast<uint64_t>(bytes);
  }

  // From offsets in the data to offsets in the file, checked.
  void place() {
    const uint64_t start = (position_ + gguf_.alignment_ - 1) / gguf_.alignment_ * gguf_.alignment_;
    const uint64_t room = start < bytes_.size() ? bytes_.size() - start : 0;
    for (GgufTensorInfo& info : gguf_.tensors_) {
      if (info.offset % gguf_.alignment_ != 0)
        bad(fmt::format("tensor {} begins at {}, no multiple of the alignment {}", shown(info.name), info.offset,
                        gguf_.alignment_));
      if (info.offset > room || info.bytes > room - info.offset)
        bad(fmt::format("tensor {} ends at byte {} of a file of {} (an incomplete download?)", shown(info.name),
                        fmt::format("{}+{}+{}", start, info.offset, info.bytes), bytes_.size()));
      info.offset += start;
    }
    std::vector<const GgufTensorInfo*> order;
    for (const GgufTensorInfo& info : gguf_.tensors_)
      if (info.bytes > 0) order.push_back(&info);
    std::sort(order.begin(), order.end(), [](const auto* a, const auto* b) { return a->offset < b->offset; });
    for (size_t i = 1; i < order.size(); ++i)
      if (order[i]->offset < order[i - 1]->offset + order[i - 1]->bytes)
        bad(fmt::format("tensors {} and {} overlap", shown(order[i - 1]->name), shown(order[i]->name)));
  }

  GgufFile gguf_;
  std::span<const std::byte> bytes_;
  uint64_t position_ = 0;
};

GgufFile GgufFile::open(const std::filesystem::path& path) { return parse(map_file(path)); }

GgufFile GgufFile::parse(std::shared_ptr<const MappedFile> file) { return GgufParser(std::move(file)).run(); }

const GgufTensorInfo* GgufFile::find_tensor(std::string_view name) const {
  const auto found = tensor_index_.find(name);
  return found == tensor_index_.end() ? nullptr : &tensors_[found->second];
}

tensor::TensorView GgufFile::tensor(std::string_view name) const {
  const GgufTensorInfo* info = find_tensor(name);
  if (info == nullptr) fail(ErrorCode::kNotFound, "{}: has no tensor {}", this->name(), shown(name));
  return tensor(*info);
}

tensor::TensorView GgufFile::tensor(const GgufTensorInfo& info) const {
  const auto dtype = dtype_of_ggml(info.ggml_type);
  if (!dtype)
    fail(ErrorCode::kUnsupported,
         "{}: tensor {} is {}; supported are f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1, q4_k, q5_k and q6_k "
         "(requantise the model to one)",
         name(), shown(info.name), ggml_type_name(info.ggml_type));
  return {*dtype, info.shape, raw(info)};
}

std::span<const std::byte> GgufFile::raw(const GgufTensorInfo& info) const {
  if (find_ggml_type(info.ggml_type) == nullptr)
    fail(ErrorCode::kUnsupported, "{}: tensor {} is of the unknown ggml {}", name(), shown(info.name),
         ggml_type_name(info.ggml_type));
  if (info.bytes == 0) return {};  // may stand behind the end of a file without data
  return file_->bytes().subspan(info.offset, info.bytes);
}

}  // namespace brick::io
