// Any bytes as a folder of a model, a block or an adapter: up to the first zero byte its configuration, then its
// safetensors. Only brick::Error may come out.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <span>
#include <string>

#include "base/temp_folder.h"
#include "brick/base/error.h"
#include "brick/model/adapter.h"
#include "brick/model/load.h"

namespace {

void write(const std::string& file, std::span<const uint8_t> bytes) {
  std::ofstream(file, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), std::ssize(bytes));
}

template <class Load>
void check(Load&& load) {
  try {
    load();
  } catch (const brick::Error&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const brick::TempFolder folder;
  const std::span<const uint8_t> all(data, size);
  const auto end = std::find(all.begin(), all.end(), uint8_t{0});
  const std::span<const uint8_t> config(all.begin(), end), weights(end == all.end() ? end : end + 1, all.end());
  for (const char* name : {"config.json", "adapter_config.json"}) write(folder.file(name), config);
  for (const char* name : {"model.safetensors", "adapter_model.safetensors"}) write(folder.file(name), weights);
  check([] { brick::model::load_model(folder.path(), {.tokenizer = false}); });
  check([] { brick::model::load_adapter(folder.path()); });
  return 0;
}
