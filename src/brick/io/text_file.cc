#include "brick/io/text_file.h"

#include <algorithm>
#include <span>

#include "brick/io/posix_file.h"

namespace brick::io {
namespace {

constexpr size_t kChunk = size_t{1} << 20;
constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

// Feeds text in pieces and calls back with whole lines.
class LineSplitter {
 public:
  explicit LineSplitter(const LineFunction& line) : line_(line) {}

  // The complete lines at the start of `text`, of which the first `searched` bytes hold no newline. Returns
  // how many bytes were used.
  size_t feed(std::string_view text, size_t searched) {
    size_t begin = 0;
    for (size_t end; (end = text.find('\n', std::max(begin, searched))) != std::string_view::npos; begin = end + 1)
      emit(text.substr(begin, end - begin));
    return begin;
  }

  void finish(std::string_view rest) {
    if (!rest.empty()) emit(rest);
  }

 private:
  void emit(std::string_view line) {
    if (number_++ == 0 && line.starts_with(kByteOrderMark)) line.remove_prefix(kByteOrderMark.size());
    if (line.ends_with('\r')) line.remove_suffix(1);
    line_(number_, line);
  }

  const LineFunction& line_;
  int64_t number_ = 0;
};

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
      return text;
    }
  }
}

void for_each_line_in(std::string_view text, const LineFunction& line) {
  LineSplitter splitter(line);
  splitter.finish(text.substr(splitter.feed(text, 0)));
}

void for_each_line(const std::filesystem::path& path, const LineFunction& line) {
  const Descriptor file(open_for_reading(path));
  LineSplitter splitter(line);
  std::string pending;
  for (;;) {
    const size_t searched = pending.size();
    pending.resize(searched + kChunk);
    const size_t got =
        read_some(file.get(), std::as_writable_bytes(std::span(pending).subspan(searched)), path.string());
    pending.resize(searched + got);
    if (got == 0) return splitter.finish(pending);
    pending.erase(0, splitter.feed(pending, searched));
  }
}

}  // namespace brick::io
