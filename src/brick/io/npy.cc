#include "brick/io/npy.h"

#include <charconv>
#include <cstring>
#include <string_view>
#include <utility>

#include "brick/base/checked.h"
#include "brick/base/error.h"
#include "brick/io/posix_file.h"

namespace brick::io {
namespace {

constexpr std::string_view kMagic = "\x93NUMPY";
constexpr uint64_t kLongestHeader = 10000;  // numpy's own limit for untrusted files

struct Header {
  std::string_view descr;
  bool fortran = false;
  tensor::Shape shape;
  std::span<const std::byte> data;
};

// The header is a Python dict of a string, a bool and a tuple of integers; nothing else is read.
class HeaderParser {
 public:
  HeaderParser(std::string_view text, std::string_view file) : text_(text), file_(file) {}

  Header run() {
    Header header;
    int seen = 0;
    expect('{');
    while (!accept('}')) {
      const std::string_view key = string();
      expect(':');
      int field = 0;
      if (key == "descr") {
        field = 1;
        if (peek() == '[') fail(ErrorCode::kUnsupported, "{}: structured arrays are not read", file_);
        header.descr = string();
      } else if (key == "fortran_order") {
        field = 2;
        header.fortran = boolean();
      } else if (key == "shape") {
        field = 4;
        header.shape = tuple();
      }
      if (field == 0 || (seen & field) != 0) bad();
      seen |= field;
      if (!accept(',') && peek() != '}') bad();
    }
    if (seen != 7 || peek() != '\0') bad();
    return header;
  }

 private:
  [[noreturn]] void bad() const {
    fail(ErrorCode::kCorrupt, "{}: its NumPy header is malformed at byte {}", file_, position_);
  }
  char peek() {
    while (position_ < text_.size() && (text_[position_] == ' ' || text_[position_] == '\n')) ++position_;
    return position_ < text_.size() ? text_[position_] : '\0';
  }
  bool accept(char c) {
    if (peek() != c) return false;
    ++position_;
    return true;
  }
  void expect(char c) {
    if (!accept(c)) bad();
  }
  std::string_view string() {
    const char quote = peek();
    if (quote != '\'' && quote != '"') bad();
    const size_t begin = position_ + 1, end = text_.find(quote, begin);
    if (end == std::string_view::npos) bad();
    position_ = end + 1;
    return text_.substr(begin, end - begin);
  }
  bool boolean() {
    peek();
    for (const std::string_view word : {"True", "False"})
      if (text_.substr(position_).starts_with(word)) {
        position_ += word.size();
        return word == "True";
      }
    bad();
  }
  tensor::Shape tuple() {
    tensor::Shape shape;
    expect('(');
    while (!accept(')')) {
      peek();
      int64_t value = 0;
      const auto [end, error] = std::from_chars(text_.data() + position_, text_.data() + text_.size(), value);
      if (error != std::errc() || value < 0 || shape.size() == 32) bad();
      position_ = static_cast<size_t>(end - text_.data());
      shape.push_back(value);
      if (!accept(',') && peek() != ')') bad();
    }
    return shape;
  }

  std::string_view text_, file_;
  size_t position_ = 0;
};

Header parse_header(const MappedFile& file) {
  const std::string& name = file.name();
  const std::string_view all(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  if (all.size() < 10 || !all.starts_with(kMagic))
    fail(ErrorCode::kCorrupt, "{}: is no NumPy file (it does not begin with \\x93NUMPY)", name);
  const int major = static_cast<unsigned char>(all[6]);
  if (major < 1 || major > 3) fail(ErrorCode::kUnsupported, "{}: NumPy format version {} is not known", name, major);
  const size_t width = major == 1 ? 2 : 4;
  if (all.size() < 8 + width) fail(ErrorCode::kCorrupt, "{}: truncated in its header", name);
  uint32_t length = 0;
  std::memcpy(&length, all.data() + 8, width);
  if (length > kLongestHeader || length > all.size() - 8 - width)
    fail(ErrorCode::kCorrupt, "{}: claims a header of {} bytes in a file of {}", name, length, all.size());
  Header header = HeaderParser(all.substr(8 + width, length), name).run();
  if (header.fortran) fail(ErrorCode::kUnsupported, "{}: is in Fortran order; save it with np.ascontiguousarray", name);
  header.data = file.bytes().subspan(8 + width + length);
  return header;
}

// Checks the size of the data and gives the number of values.
size_t count_values(const Header& header, size_t width, const std::string& name) {
  const int64_t count = tensor::element_count(header.shape);
  if (checked_mul(count, static_cast<int64_t>(width), "NumPy array") != static_cast<int64_t>(header.data.size()))
    fail(ErrorCode::kCorrupt, "{}: shape ({}) of {} does not fit its {} bytes of data", name,
         fmt::join(header.shape, ", "), header.descr, header.data.size());
  return static_cast<size_t>(count);
}

template <class T>
std::vector<int64_t> widen(const Header& header, const std::string& name) {
  const size_t count = count_values(header, sizeof(T), name);
  std::vector<int64_t> values(count);
  for (size_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, header.data.data() + i * sizeof(T), sizeof(T));
    if (!std::in_range<int64_t>(value)) fail(ErrorCode::kUnsupported, "{}: holds {}, which is no int64", name, value);
    values[i] = static_cast<int64_t>(value);
  }
  return values;
}

}  // namespace

NpyInts parse_npy_ints(const MappedFile& file) {
  const std::string& name = file.name();
  const Header header = parse_header(file);
  if (header.shape.empty() || header.shape.size() > 2)
    fail(ErrorCode::kUnsupported, "{}: has {} dimensions, expected ids of shape [L] or [N, L]", name,
         header.shape.size());
  if (header.descr == "<i8") return {header.shape, widen<int64_t>(header, name)};
  if (header.descr == "<i4") return {header.shape, widen<int32_t>(header, name)};
  if (header.descr == "<i2") return {header.shape, widen<int16_t>(header, name)};
  if (header.descr == "<u8") return {header.shape, widen<uint64_t>(header, name)};
  if (header.descr == "<u4") return {header.shape, widen<uint32_t>(header, name)};
  if (header.descr == "<u2") return {header.shape, widen<uint16_t>(header, name)};
  fail(ErrorCode::kUnsupported, "{}: holds {}, expected little-endian integers such as <i4 or <i8", name,
       shown(header.descr));
}

NpyInts read_npy_ints(const std::filesystem::path& path) { return parse_npy_ints(*map_file(path)); }

NpyFloats parse_npy_floats(const MappedFile& file) {
  const Header header = parse_header(file);
  if (header.descr != "<f4")
    fail(ErrorCode::kUnsupported, "{}: holds {}, expected <f4", file.name(), shown(header.descr));
  NpyFloats result{header.shape, std::vector<float>(count_values(header, sizeof(float), file.name()))};
  if (!header.data.empty()) std::memcpy(result.values.data(), header.data.data(), header.data.size());
  return result;
}

NpyFloats read_npy_floats(const std::filesystem::path& path) { return parse_npy_floats(*map_file(path)); }

NpyWriter::NpyWriter(const std::filesystem::path& path, int64_t rows, int64_t cols, bool force)
    : out_(path, force), rows_(rows), cols_(cols) {
  checked_mul(checked_mul(rows, cols, "NumPy array"), int64_t{sizeof(float)}, "NumPy array");
  std::string header = fmt::format("{{'descr': '<f4', 'fortran_order': False, 'shape': ({}, {}), }}", rows, cols);
  // Magic, version and length take 10 bytes; the data begins at a multiple of 64.
  header.append((64 - (10 + header.size() + 1) % 64) % 64, ' ');
  header += '\n';
  const auto length = static_cast<uint16_t>(header.size());
  out_.write(kMagic);
  out_.write(std::string_view("\x01\x00", 2));
  out_.write(std::as_bytes(std::span(&length, 1)));
  out_.write(header);
}

void NpyWriter::append(std::span<const float> values) {
  const auto count = static_cast<int64_t>(values.size());
  if (count > rows_ * cols_ - values_)
    fail(ErrorCode::kInvalidInput, "NumPy array: more values than its shape ({}, {}) has", rows_, cols_);
  out_.write(std::as_bytes(values));
  values_ += count;
}

void NpyWriter::commit() {
  if (values_ != rows_ * cols_)
    fail(ErrorCode::kInvalidInput, "NumPy array: {} values of its shape ({}, {})", values_, rows_, cols_);
  out_.commit();
}

}  // namespace brick::io
