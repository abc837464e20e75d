// Errors that say which file they are about, where the function that throws sees only what was in it.
#pragma once

#include <fmt/format.h>

#include <string>

#include "brick/base/error.h"

namespace brick::pipeline {

// What `work` returns; the message of its Error begins with `file` then.
template <class Work>
auto about_file(const std::string& file, Work&& work) {
  try {
    return work();
  } catch (const Error& e) {
    throw Error(e.code(), fmt::format("{}: {}", file, e.what()));
  }
}

}  // namespace brick::pipeline
