#include "brick/io/text_file.h"

#include <algorithm>
#include <span>

#include "brick/io/posix_file.h"

namespace brick::io {
namespace {

constexpr size_t kChunk = size_t{1} << 20;

}  // namespace

std::string read_text(const std::filesystem::path& path) {
  const Descriptor file(open_for_reading(path));
  std::string text;
  for (size_t size = 0;;) {
    text.resize(size + kChunk);
    const size_t got = read_some(file.get(), std::as_writable_bytes(std::span(text).subspan(size)), path.string());
    size += got;
    if (got == 0) {
      text.resize(size);
      refuse_git_pointer(text, path.string());
      return text;
    }
  }
}

void for_each_line_in(std::string_view text, const std::function<void(int64_t number, std::string_view line)>& line) {
  for (int64_t number = 1; !text.empty(); ++number) {
    const size_t end = text.find('\n');
    std::string_view one = text.substr(0, end);
    text.remove_prefix(std::min(text.size(), one.size() + 1));
    if (number == 1 && one.starts_with(kByteOrderMark)) one.remove_prefix(kByteOrderMark.size());
    if (one.ends_with('\r')) one.remove_suffix(1);
    line(number, one);
  }
}

}  // namespace brick::io
