// Any bytes as a file of records: only brick::Error may come out, and a record ends with the assistant's message.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <fstream>

#include "base/temp_folder.h"
#include "brick/base/error.h"
#include "brick/data/records.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const brick::TempFolder folder;
  const std::string file = folder.file("records.jsonl");
  std::ofstream(file, std::ios::binary).write(reinterpret_cast<const char*>(data), static_cast<std::streamsize>(size));
  try {
    for (const brick::data::Record& record : brick::data::load_records(file))
      if (record.messages.empty() || record.messages.back().role != "assistant") std::abort();
  } catch (const brick::Error&) {
  }
  return 0;
}
