// Conversations from DATA files, the format of docs and `brick tune --data`.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "brick/text/chat_template.h"

namespace brick::data {

struct Record {
  std::vector<text::Message> messages;  // at least one; the last is the assistant's
  std::string category;                 // empty where the file has none
};

// Reads JSONL, one record a line (blank lines skipped), or a JSON array of records; the first character tells
// which, whatever the file's name. UTF-8, with or without a byte order mark; lines may end in CRLF.
//
// A record is the first of these that it has the first key of, with "category"? beside it:
//   {"messages": [{"role", "content"}, ...]}       roles are system, user and assistant
//   {"conversations": [{"from", "value"}, ...]}    ShareGPT's: system, human and gpt
//   {"instruction", "context"?, "response"}        a context that is not empty follows after a blank line; Alpaca's
//                                                  "input" and "output" are taken for "context" and "response",
//                                                  unless both names of one are there
//   {"prompt", "completion"}                       what the user and the assistant say, as a chat of two messages
// A system message may only come first. Null counts as absent; other keys are ignored.
// Errors name the file, the line (from 1) or array element (from 0), the key and what was found:
// kInvalidInput for a record that is none, or a file without records; kCorrupt for what is not JSON or not
// UTF-8, and for a key that stands twice in an object; kNotFound and kIo as io::read_text().
std::vector<Record> load_records(const std::filesystem::path& path);

}  // namespace brick::data
