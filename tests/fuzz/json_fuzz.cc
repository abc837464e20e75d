// Any text as JSON; what parses must come back the same from its own text. Also splits it into lines.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "brick/base/error.h"
#include "brick/io/json_file.h"
#include "brick/io/text_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace brick::io;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const nlohmann::json value = parse_json(text, "fuzz");
    if (parse_json(json_text(value), "again") != value) std::abort();
  } catch (const brick::Error&) {
  }
  size_t seen = 0;
  for_each_line_in(text, [&](int64_t /*number*/, std::string_view line) { seen += line.size(); });
  if (seen > size) std::abort();
  return 0;
}
