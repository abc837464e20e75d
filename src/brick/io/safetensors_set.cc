#include <system_error>

#include "brick/base/error.h"
#include "brick/io/json_file.h"
#include "brick/io/posix_file.h"
#include "brick/io/safetensors.h"

namespace brick::io {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

std::map<std::string, std::string> read_weight_map(const fs::path& index) {
  const nlohmann::json json = read_json_file(index, {.depth = 16, .refuse_duplicates = true});
  const auto map = json.is_object() ? json.find("weight_map") : json.end();
  if (!json.is_object() || map == json.end() || !map->is_object())
    fail(ErrorCode::kCorrupt, "{}: has no object \"weight_map\"", index.string());
  std::map<std::string, std::string> shards;
  for (const auto& [tensor, shard] : map->items()) {
    if (!shard.is_string())
      fail(ErrorCode::kCorrupt, "{}: the shard of {} is no string", index.string(), shown(tensor));
    const auto& file = shard.get_ref<const std::string&>();
    if (file.empty() || file == "." || file == ".." || file.find('/') != std::string::npos ||
        file.find('\\') != std::string::npos || file.find('\0') != std::string::npos)
      fail(ErrorCode::kCorrupt, "{}: places {} in {}, which is no file name of this folder", index.string(),
           shown(tensor), shown(file));
    shards.emplace(tensor, file);
  }
  return shards;
}

}  // namespace

SafetensorsSet SafetensorsSet::open(const fs::path& folder) {
  std::error_code error;
  if (!fs::exists(folder, error)) fail(ErrorCode::kNotFound, "{}: there is no such folder", folder.string());
  if (!fs::is_directory(folder, error)) fail(ErrorCode::kInvalidInput, "{}: is no folder", folder.string());
  SafetensorsSet set;
  set.name_ = folder.string();
  if (fs::exists(folder / kSingle, error)) {
    set.files_.push_back(SafetensorsFile::open(folder / kSingle));
    for (const SafetensorInfo& info : set.files_[0].tensors()) set.file_of_.emplace(info.name, 0);
    return set;
  }
  const fs::path index = folder / kIndex;
  if (!fs::exists(index, error))
    fail(ErrorCode::kNotFound, "{}: has neither {} nor {}{}", folder.string(), kSingle, kIndex,
         fs::exists(folder / "pytorch_model.bin", error) || fs::exists(folder / "pytorch_model.bin.index.json", error)
             ? "; pytorch_model.bin is not read: save the model as safetensors"
             : "");

  const std::map<std::string, std::string> shard_of = read_weight_map(index);
  std::map<std::string, size_t> number;
  for (const auto& [tensor, shard] : shard_of) number.emplace(shard, 0);
  for (auto& [shard, position] : number) {
    if (!fs::exists(folder / shard, error))
      fail(ErrorCode::kNotFound, "{}: the shard {} is missing (an incomplete download?)", index.string(), shown(shard));
    position = set.files_.size();
    set.files_.push_back(SafetensorsFile::open(folder / shard));
  }
  for (const auto& [tensor, shard] : shard_of) {
    const size_t file = number.at(shard);
    if (set.files_[file].find_tensor(tensor) == nullptr)
      fail(ErrorCode::kCorrupt, "{}: places {} in {}, which lacks it", index.string(), shown(tensor), shown(shard));
    set.file_of_.emplace(tensor, file);
  }
  return set;
}

const std::string* SafetensorsSet::find_metadata(std::string_view key) const {
  for (const SafetensorsFile& file : files_)
    if (const auto found = file.metadata().find(std::string(key)); found != file.metadata().end())
      return &found->second;
  return nullptr;
}

std::vector<std::string> SafetensorsSet::names() const {
  std::vector<std::string> all;
  all.reserve(file_of_.size());
  for (const auto& [name, file] : file_of_) all.push_back(name);
  return all;
}

const SafetensorInfo* SafetensorsSet::find_tensor(std::string_view name) const {
  const auto found = file_of_.find(name);
  return found == file_of_.end() ? nullptr : files_[found->second].find_tensor(name);
}

tensor::TensorView SafetensorsSet::tensor(std::string_view name) const {
  const auto found = file_of_.find(name);
  if (found == file_of_.end()) fail(ErrorCode::kNotFound, "{}: has no tensor {}", name_, shown(name));
  return files_[found->second].tensor(name);
}

void SafetensorsSet::drop_pages() const noexcept {
  for (const SafetensorsFile& file : files_) file.file()->drop_pages(file.file()->bytes());
}

}  // namespace brick::io
