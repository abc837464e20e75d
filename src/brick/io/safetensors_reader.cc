#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <mutex>
#include <optional>

#include "brick/base/error.h"
#include "brick/io/json_text.h"
#include "brick/io/posix_file.h"
#include "brick/io/safetensors.h"

static_assert(std::endian::native == std::endian::little, "safetensors are read in place");

namespace brick::io {
namespace {

using tensor::DType;

constexpr uint64_t kLongestHeader = 100'000'000;  // as in the reference implementation
constexpr size_t kMaxDimensions = 32;

struct DTypeEntry {
  std::string_view name;
  uint64_t bytes;
  std::optional<DType> dtype;
};
constexpr std::array<DTypeEntry, 16> kDTypes{{
    {"F32", 4, DType::kF32},
    {"F16", 2, DType::kF16},
    {"BF16", 2, DType::kBF16},
    {"U8", 1, DType::kU8},
    {"I32", 4, DType::kI32},
    {"I64", 8, DType::kI64},
    {"F64", 8, std::nullopt},
    {"I8", 1, std::nullopt},
    {"I16", 2, std::nullopt},
    {"U16", 2, std::nullopt},
    {"U32", 4, std::nullopt},
    {"U64", 8, std::nullopt},
    {"BOOL", 1, std::nullopt},
    {"F8_E4M3", 1, std::nullopt},
    {"F8_E5M2", 1, std::nullopt},
    {"F8_E8M0", 1, std::nullopt},
}};

const DTypeEntry* find_entry(std::string_view name) {
  const auto* entry = std::find_if(kDTypes.begin(), kDTypes.end(), [&](const DTypeEntry& e) { return e.name == name; });
  return entry == kDTypes.end() ? nullptr : entry;
}

// Takes exactly the form of a header, so that nothing else costs memory:
// {"__metadata__": {string: string}, name: {"dtype": string, "shape": [n...], "data_offsets": [begin, end]}}
class HeaderEvents : public JsonEvents {
 public:
  using JsonEvents::JsonEvents;

  std::map<std::string, std::string> metadata;
  std::vector<SafetensorInfo> tensors;  // offset and bytes: begin and end, from the start of the data

  bool null() override { unexpected("null"); }
  bool boolean(bool /*value*/) override { unexpected("a boolean"); }
  bool number_integer(number_integer_t /*value*/) override { unexpected("a negative number"); }
  bool number_float(number_float_t /*value*/, const string_t& /*text*/) override { unexpected("a fraction"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (state_ == kShape) {
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) ||
          tensors.back().shape.size() == kMaxDimensions)
        unexpected("a shape too large");
      tensors.back().shape.push_back(static_cast<int64_t>(value));
    } else if (state_ == kOffsets && offsets_ < 2) {
      (offsets_++ == 0 ? tensors.back().offset : tensors.back().bytes) = value;
    } else {
      unexpected("a number");
    }
    return true;
  }

  bool string(string_t& value) override {
    if (state_ == kMetadata)
      metadata[key_] = std::move(value);
    else if (state_ == kTensor && field_ == kDType)
      tensors.back().dtype = std::move(value);
    else
      unexpected("a string");
    return true;
  }

  bool start_object(std::size_t /*count*/) override {
    if (state_ == kStart)
      state_ = kTop;
    else if (state_ == kTop)
      state_ = in_metadata_ ? kMetadata : kTensor;
    else
      unexpected("an object");
    return true;
  }

  bool end_object() override {
    if (state_ == kTensor && fields_ != (kDType | kShapeField | kOffsetsField))
      malformed(fmt::format("tensor {} lacks dtype, shape or data_offsets", shown(tensors.back().name)));
    state_ = state_ == kTop ? kDone : kTop;
    return true;
  }

  bool start_array(std::size_t /*count*/) override {
    if (state_ != kTensor || field_ == kDType) unexpected("an array");
    state_ = field_ == kShapeField ? kShape : kOffsets;
    offsets_ = 0;
    return true;
  }

  bool end_array() override {
    if (state_ == kOffsets && offsets_ != 2)
      malformed(fmt::format("tensor {} has {} data_offsets, not 2", shown(tensors.back().name), offsets_));
    state_ = kTensor;
    return true;
  }

  bool key(string_t& value) override {
    if (state_ == kTop) {
      in_metadata_ = value == "__metadata__";
      if (in_metadata_ ? std::exchange(seen_metadata_, true) : !names_.emplace(value, true).second)
        malformed(fmt::format("{} stands there twice", shown(value)));
      if (!in_metadata_) tensors.push_back({std::move(value), {}, {}, 0, 0});
      fields_ = 0;
    } else if (state_ == kMetadata) {
      if (metadata.contains(value)) malformed(fmt::format("metadata {} stands there twice", shown(value)));
      key_ = std::move(value);
    } else {
      field_ = value == "dtype" ? kDType : value == "shape" ? kShapeField : value == "data_offsets" ? kOffsetsField : 0;
      if (field_ == 0 || (fields_ & field_) != 0)
        malformed(fmt::format("unknown or repeated key {} in tensor {}", shown(value), shown(tensors.back().name)));
      fields_ |= field_;
    }
    return true;
  }

 private:
  enum State { kStart, kTop, kMetadata, kTensor, kShape, kOffsets, kDone };
  static constexpr int kDType = 1, kShapeField = 2, kOffsetsField = 4;

  [[noreturn]] void unexpected(std::string_view what) const {
    malformed(fmt::format("{} where the header's form has none", what));
  }

  State state_ = kStart;
  bool in_metadata_ = false, seen_metadata_ = false;
  int field_ = 0, fields_ = 0, offsets_ = 0;
  std::string key_;
  std::map<std::string, bool> names_;
};

// Turns [begin, end) in the data into offset and size in the file.
void place(SafetensorInfo& info, uint64_t data_start, uint64_t data_size, const std::string& file) {
  const uint64_t begin = info.offset, end = info.bytes;
  if (begin > end || end > data_size)
    fail(ErrorCode::kCorrupt, "{}: tensor {} lies at [{}, {}) of {} data bytes (an incomplete download?)", file,
         shown(info.name), begin, end, data_size);
  info.offset = data_start + begin;
  info.bytes = end - begin;
  const DTypeEntry* entry = find_entry(info.dtype);
  if (entry == nullptr) return;  // refused when it is read
  uint64_t expected = entry->bytes;
  bool overflow = false;
  for (const int64_t dimension : info.shape)
    overflow = __builtin_mul_overflow(expected, static_cast<uint64_t>(dimension), &expected) || overflow;
  if (overflow || expected != info.bytes)
    fail(ErrorCode::kCorrupt, "{}: tensor {} has {} bytes, but {} of shape [{}] takes {}", file, shown(info.name),
         info.bytes, info.dtype, fmt::join(info.shape, ", "),
         overflow ? std::string("more than any memory") : std::to_string(expected));
}

void refuse_overlap(const std::vector<SafetensorInfo>& sorted, const std::string& file) {
  const SafetensorInfo* last = nullptr;
  for (const SafetensorInfo& info : sorted) {
    if (info.bytes == 0) continue;
    if (last != nullptr && info.offset < last->offset + last->bytes)
      fail(ErrorCode::kCorrupt, "{}: tensors {} and {} overlap", file, shown(last->name), shown(info.name));
    last = &info;
  }
}

}  // namespace

struct SafetensorsFile::AlignedCopies {
  std::mutex mutex;
  std::map<uint64_t, tensor::Tensor> by_offset;
};

SafetensorsFile::SafetensorsFile() : copies_(std::make_unique<AlignedCopies>()) {}
SafetensorsFile::SafetensorsFile(SafetensorsFile&&) noexcept = default;
SafetensorsFile& SafetensorsFile::operator=(SafetensorsFile&&) noexcept = default;
SafetensorsFile::~SafetensorsFile() = default;

SafetensorsFile SafetensorsFile::open(const std::filesystem::path& path) { return parse(map_file(path)); }

SafetensorsFile SafetensorsFile::parse(std::shared_ptr<const MappedFile> file) {
  const std::span<const std::byte> bytes = file->bytes();
  const std::string& name = file->name();
  uint64_t length = 0;
  if (bytes.size() < sizeof(length))
    fail(ErrorCode::kCorrupt, "{}: has {} bytes, too few for safetensors", name, bytes.size());
  std::memcpy(&length, bytes.data(), sizeof(length));
  if (length > kLongestHeader)
    fail(ErrorCode::kCorrupt, "{}: claims a header of {} bytes; is it a safetensors file?", name, length);
  if (length > bytes.size() - sizeof(length))
    fail(ErrorCode::kCorrupt, "{}: truncated in its header of {} bytes (an incomplete download?)", name, length);

  const char* const text = reinterpret_cast<const char*>(bytes.data()) + sizeof(length);
  if (length == 0 || *text != '{')
    fail(ErrorCode::kCorrupt, "{}: its header does not begin with {{; is it a safetensors file?", name);
  const std::string what = name + ": header";
  JsonCursor cursor{text, text, text + length, what};
  HeaderEvents events(cursor);
  parse_events(cursor, events);

  const uint64_t start = sizeof(length) + length;
  for (SafetensorInfo& info : events.tensors) place(info, start, bytes.size() - start, name);
  std::sort(events.tensors.begin(), events.tensors.end(), [](const SafetensorInfo& a, const SafetensorInfo& b) {
    return a.offset != b.offset ? a.offset < b.offset : a.name < b.name;
  });
  refuse_overlap(events.tensors, name);

  SafetensorsFile result;
  result.metadata_ = std::move(events.metadata);
  result.tensors_ = std::move(events.tensors);
  for (size_t i = 0; i < result.tensors_.size(); ++i) result.index_.emplace(result.tensors_[i].name, i);
  result.file_ = std::move(file);
  return result;
}

const SafetensorInfo* SafetensorsFile::find_tensor(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &tensors_[found->second];
}

tensor::TensorView SafetensorsFile::tensor(std::string_view name) const {
  const SafetensorInfo* info = find_tensor(name);
  if (info == nullptr) fail(ErrorCode::kNotFound, "{}: has no tensor {}", this->name(), shown(name));
  return tensor(*info);
}

tensor::TensorView SafetensorsFile::tensor(const SafetensorInfo& info) const {
  const DTypeEntry* entry = find_entry(info.dtype);
  if (entry == nullptr || !entry->dtype)
    fail(ErrorCode::kUnsupported, "{}: tensor {} is {}; supported are F32, F16, BF16, U8, I32 and I64", name(),
         shown(info.name), shown(info.dtype));
  const std::span<const std::byte> bytes = file_->bytes().subspan(info.offset, info.bytes);
  if (reinterpret_cast<uintptr_t>(bytes.data()) % entry->bytes == 0) return {*entry->dtype, info.shape, bytes};
  const std::lock_guard lock(copies_->mutex);
  const auto [copy, added] = copies_->by_offset.try_emplace(info.offset);
  if (added) {
    copy->second = tensor::Tensor(*entry->dtype, info.shape);
    if (!bytes.empty()) std::memcpy(copy->second.bytes().data(), bytes.data(), bytes.size());
  }
  return copy->second.view();
}

}  // namespace brick::io
