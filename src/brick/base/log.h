// Where the library's words go: a sink that the caller passes. The library never writes to stdout.
#pragma once

#include <cstdint>
#include <string>

namespace brick {

// Receives progress and notes. The default does nothing.
class ProgressSink {
 public:
  virtual ~ProgressSink() = default;
  // A unit of work moved to `done` of `total` (in `unit`, e.g. "tokens"); `detail` may be empty.
  virtual void progress(const std::string& /*task*/, int64_t /*done*/, int64_t /*total*/, const std::string& /*unit*/,
                        const std::string& /*detail*/) {}
  // One line that a person should see.
  virtual void note(const std::string& /*line*/) {}
  // Something went wrong that the work survives.
  virtual void warn(const std::string& line) { note(line); }
};

ProgressSink& silent_sink();

}  // namespace brick
