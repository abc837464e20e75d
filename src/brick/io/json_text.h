// Internal to io/: the JSON parser's events, with a position for messages.
#pragma once

#include <cstddef>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace brick::io {

// Where the parser is in a text; `what` names it in messages.
struct JsonCursor {
  const char* begin;
  const char* next;
  const char* end;
  std::string_view what;
};

// An input iterator that moves the cursor, so that events know their place.
class CursorIterator {
 public:
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  CursorIterator() = default;  // the end
  explicit CursorIterator(JsonCursor* cursor) : cursor_(cursor) {}

  reference operator*() const { return *cursor_->next; }
  CursorIterator& operator++() {
    ++cursor_->next;
    return *this;
  }
  CursorIterator operator++(int) { return ++*this; }
  bool operator==(const CursorIterator& other) const { return at_end() == other.at_end(); }

 private:
  bool at_end() const { return cursor_ == nullptr || cursor_->next == cursor_->end; }

  JsonCursor* cursor_ = nullptr;
};

// Base of event handlers. Errors are thrown from the events themselves.
class JsonEvents : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit JsonEvents(const JsonCursor& cursor) : cursor_(cursor) {}

  // Error(kCorrupt) with the cursor's line and byte.
  [[noreturn]] void malformed(const std::string& problem) const;

  bool binary(binary_t& /*value*/) override { return false; }  // no text has one
  bool parse_error(std::size_t position, const std::string& token, const nlohmann::detail::exception& error) override;

 private:
  const JsonCursor& cursor_;
};

// Parses to the end of the cursor's text; Error(kCorrupt) for what is not JSON.
void parse_events(JsonCursor& cursor, JsonEvents& events);

}  // namespace brick::io
