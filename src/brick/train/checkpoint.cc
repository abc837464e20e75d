#include "brick/train/checkpoint.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "brick/base/error.h"
#include "brick/io/atomic_output.h"
#include "brick/io/json_file.h"
#include "brick/io/safetensors.h"
#include "brick/kernels/vector_ops.h"

namespace brick::train {
namespace {

using model::Adapter;
using model::LoraPair;
using tensor::Tensor;

constexpr const char* kTensors = "state.safetensors";
constexpr const char* kProgress = "progress.json";

template <class AdapterLike, class Visit>
void for_each_named(AdapterLike& adapter, const std::string& group, Visit&& visit) {
  for_each_pair(adapter, [&](int64_t layer, model::Proj proj, auto& pair) {
    visit(fmt::format("{}.{}.{}.A", group, layer, name(proj)), pair.a);
    visit(fmt::format("{}.{}.{}.B", group, layer, name(proj)), pair.b);
  });
}

void restore(const io::SafetensorsFile& file, const std::string& group, Adapter& adapter) {
  for_each_named(adapter, group, [&](const std::string& name, Tensor& tensor) {
    const tensor::TensorView stored = file.tensor(name);
    if (stored.dtype != tensor.dtype() || stored.shape != tensor.shape())
      fail(ErrorCode::kMismatch, "checkpoint {}: {} has another shape than this run's adapter", file.name(), name);
    std::memcpy(tensor.bytes().data(), stored.bytes.data(), stored.bytes.size());
    if (!kernels::all_finite(tensor.f32(), tensor.size()))
      fail(ErrorCode::kCorrupt, "checkpoint {}: {} has values that are not finite", file.name(), name);
  });
}

}  // namespace

void save_checkpoint(const std::filesystem::path& folder, const Progress& progress, const Adapter& parameters,
                     AdamW& optimizer) {
  io::AtomicFolder output(folder, true);
  io::SafetensorsWriter writer;
  const auto add = [&](const std::string& name, const Tensor& tensor) { writer.add_tensor(name, tensor.view()); };
  for_each_named(parameters, "parameter", add);
  for_each_named(std::as_const(optimizer.first()), "first", add);
  for_each_named(std::as_const(optimizer.second()), "second", add);
  writer.write(output.path() / kTensors);
  // Losses as bit patterns: a resumed run repeats them exactly.
  io::write_json_file(output.path() / kProgress, {{"step", progress.step},
                                                  {"optimizer_steps", optimizer.steps()},
                                                  {"tokens", progress.tokens},
                                                  {"supervised_tokens", progress.supervised_tokens},
                                                  {"loss_first_bits", std::bit_cast<uint64_t>(progress.loss_first)},
                                                  {"loss_last_bits", std::bit_cast<uint64_t>(progress.loss_last)},
                                                  {"seconds", progress.seconds},
                                                  {"run_hash", progress.run_hash}});
  output.commit();
}

std::optional<Progress> load_checkpoint(const std::filesystem::path& folder, const std::string& run_hash,
                                        int64_t most_steps, Adapter& parameters, AdamW& optimizer) {
  if (!std::filesystem::exists(folder / kProgress)) return std::nullopt;
  const nlohmann::json json = io::read_json_file(folder / kProgress);
  Progress progress;
  int64_t optimizer_steps = 0;
  try {
    progress.step = json.at("step");
    optimizer_steps = json.at("optimizer_steps");
    progress.tokens = json.at("tokens");
    progress.supervised_tokens = json.at("supervised_tokens");
    progress.loss_first = std::bit_cast<double>(json.at("loss_first_bits").get<uint64_t>());
    progress.loss_last = std::bit_cast<double>(json.at("loss_last_bits").get<uint64_t>());
    progress.seconds = json.at("seconds");
    progress.run_hash = json.at("run_hash");
  } catch (const nlohmann::json::exception& e) {
    fail(ErrorCode::kCorrupt, "checkpoint {}: {}", folder.string(), e.what());
  }
  if (progress.run_hash != run_hash)
    fail(
        ErrorCode::kMismatch,
        "checkpoint {} belongs to another run (model, data, configuration or seed differ); remove it or choose another "
        "output",
        folder.string());
  if (progress.step < 1 || progress.step > most_steps || optimizer_steps != progress.step || progress.tokens < 0 ||
      progress.supervised_tokens < 0 || !(progress.seconds > 0) || !std::isfinite(progress.seconds))
    fail(ErrorCode::kCorrupt,
         "checkpoint {}: step {} of {}, {} of the optimizer, {} tokens, {} of them supervised, {} seconds",
         folder.string(), progress.step, most_steps, optimizer_steps, progress.tokens, progress.supervised_tokens,
         progress.seconds);
  optimizer.set_steps(optimizer_steps);
  const io::SafetensorsFile file = io::SafetensorsFile::open(folder / kTensors);
  restore(file, "parameter", parameters);
  restore(file, "first", optimizer.first());
  restore(file, "second", optimizer.second());
  return progress;
}

void check_is_checkpoint(const std::filesystem::path& folder) {
  namespace fs = std::filesystem;
  if (!fs::exists(fs::symlink_status(folder))) return;
  bool ours = fs::is_directory(folder);
  if (ours)
    for (const auto& entry : fs::directory_iterator(folder))
      ours = ours && (entry.path().filename() == kTensors || entry.path().filename() == kProgress);
  if (!ours)
    fail(ErrorCode::kExists,
         "{} is there and is no checkpoint, which training keeps in that place: give another output", folder.string());
}

void remove_checkpoint(const std::filesystem::path& folder) {
  std::filesystem::remove(folder / kProgress);
  std::filesystem::remove_all(folder);
}

}  // namespace brick::train
