// Any text as tokenizer.json; a tokenizer that loads must encode and decode.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "brick/base/error.h"
#include "brick/text/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace brick::text;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  try {
    const Tokenizer tokenizer(spec_from_hf_json(text, ""));
    const std::string_view sample = text.substr(0, 200);
    for (const bool special : {false, true}) (void)tokenizer.decode(tokenizer.encode(sample, special), true);
  } catch (const brick::Error&) {
  }
  return 0;
}
