// Errors of the outside world (files, configuration, memory, peers). The message says where, what was
// found, what was expected and the likely cause; the command prints it in one line and exits with 1.
#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace brick {

enum class ErrorCode {
  kInvalidInput,  // a value, record or flag that makes no sense
  kNotFound,      // a file, tensor or name that should be there
  kUnsupported,   // well-formed, but not of the kinds that we read
  kCorrupt,       // truncated or inconsistent data
  kMismatch,      // two artifacts that do not belong together
  kExists,        // an output that would be overwritten
  kIo,            // the operating system refused
  kNumeric,       // NaN, infinity, a matrix that cannot be factorised
  kInterrupted,   // the user asked to stop
};

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

// Throws Error with a formatted message.
template <class... Args>
[[noreturn]] void fail(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(code, fmt::format(format, std::forward<Args>(args)...));
}

namespace detail {
[[noreturn]] void assertion_failed(const char* expression, const char* file, int line);
}  // namespace detail

// For programmers' errors only; never reachable from input. Throws std::logic_error.
#define BRICK_ASSERT(expression) \
  ((expression) ? void(0) : ::brick::detail::assertion_failed(#expression, __FILE__, __LINE__))

}  // namespace brick
