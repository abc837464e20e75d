// Space as Python's str methods see it, which decide where lm-evaluation-harness cuts a text.
#pragma once

#include <string_view>

namespace brick::eval {

std::string_view stripped(std::string_view text);      // str.strip()
std::string_view stripped_end(std::string_view text);  // str.rstrip()

}  // namespace brick::eval
