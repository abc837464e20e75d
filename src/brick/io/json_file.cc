#include "brick/io/json_file.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "brick/base/error.h"
#include "brick/io/atomic_output.h"
#include "brick/io/json_text.h"
#include "brick/io/posix_file.h"
#include "brick/io/text_file.h"

namespace brick::io {
namespace {

using nlohmann::json;

// Builds the value from the parser's events, so that depth and keys are checked before memory is spent.
class Builder : public JsonEvents {
 public:
  Builder(const JsonCursor& cursor, const JsonLimits& limits) : JsonEvents(cursor), limits_(limits) {}
  json take() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t& /*text*/) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool start_object(std::size_t /*count*/) override { return open(json::object()); }
  bool start_array(std::size_t /*count*/) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& value) override {
    if (limits_.refuse_duplicates && parents_.back()->contains(value))
      malformed(fmt::format("key {} stands there twice", shown(value)));
    slot_ = &(*parents_.back())[std::move(value)];
    return true;
  }

 private:
  json* place(json value) {
    if (parents_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    if (parents_.back()->is_array()) {
      parents_.back()->push_back(std::move(value));
      return &parents_.back()->back();
    }
    *slot_ = std::move(value);
    return slot_;
  }
  bool add(json value) {
    place(std::move(value));
    return true;
  }
  bool open(json value) {
    if (static_cast<int>(parents_.size()) >= limits_.depth)
      malformed(fmt::format("nests deeper than {} levels", limits_.depth));
    parents_.push_back(place(std::move(value)));
    return true;
  }
  bool close() {
    parents_.pop_back();
    return true;
  }

  const JsonLimits& limits_;
  json root_;
  std::vector<json*> parents_;
  json* slot_ = nullptr;
};

}  // namespace

void JsonEvents::malformed(const std::string& problem) const {
  const std::string_view read(cursor_.begin, cursor_.next);
  fail(ErrorCode::kCorrupt, "{}: line {}, byte {}: {}", cursor_.what, 1 + std::count(read.begin(), read.end(), '\n'),
       read.size(), problem);
}

bool JsonEvents::parse_error(std::size_t /*position*/, const std::string& /*token*/,
                             const nlohmann::detail::exception& error) {
  // "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error ...": keep the last part.
  std::string_view text = error.what();
  if (const size_t kind = text.find("] "); text.starts_with('[') && kind != std::string_view::npos)
    text.remove_prefix(kind + 2);
  if (const size_t column = text.find("column "); column != std::string_view::npos)
    if (const size_t colon = text.find(": ", column); colon != std::string_view::npos) text.remove_prefix(colon + 2);
  constexpr size_t kLongest = 160;
  std::string problem(text.substr(0, kLongest));
  std::replace_if(
      problem.begin(), problem.end(), [](char c) { return c < 0x20 || c >= 0x7F; }, '?');
  malformed("is not valid JSON: " + problem);
}

void parse_events(JsonCursor& cursor, JsonEvents& events) {
  json::sax_parse(CursorIterator(&cursor), CursorIterator(), &events);
}

json parse_json(std::string_view text, std::string_view what, const JsonLimits& limits) {
  JsonCursor cursor{text.data(), text.data(), text.data() + text.size(), what};
  Builder builder(cursor, limits);
  parse_events(cursor, builder);
  return builder.take();
}

json read_json_file(const std::filesystem::path& path, const JsonLimits& limits) {
  return parse_json(read_text(path), path.string(), limits);
}

std::string json_text(const json& value) { return value.dump(2, ' ', false, json::error_handler_t::replace) + "\n"; }

std::string compact_json(const json& value) { return value.dump(-1, ' ', false, json::error_handler_t::replace); }

void write_json_file(const std::filesystem::path& path, const json& value, bool force) {
  write_file_atomic(path, json_text(value), force);
}

}  // namespace brick::io
