#include "brick/model/prompt_cache.h"

#include <algorithm>
#include <cstring>

#include "brick/base/cpu.h"
#include "brick/base/error.h"
#include "brick/base/sha256.h"
#include "brick/io/safetensors.h"

namespace brick::model {
namespace {

constexpr const char* kIdentity = "brick_prompt_cache";
constexpr size_t kSampledBytes = 4096;  // of each end of a matrix

void hash_ends(Sha256& hash, std::span<const std::byte> bytes) {
  hash.update(fmt::format("{}\n", bytes.size()));
  hash.update(bytes.first(std::min(bytes.size(), kSampledBytes)));
  hash.update(bytes.last(std::min(bytes.size(), kSampledBytes)));
}

tensor::TensorView first_rows(const tensor::Tensor& matrix, int64_t rows) {
  const int64_t cols = matrix.shape()[1];
  return {tensor::DType::kF32, {rows, cols}, matrix.bytes().first(static_cast<size_t>(rows * cols) * sizeof(float))};
}

tensor::TensorView checked(const io::SafetensorsFile& file, const std::string& name, tensor::DType dtype,
                           const tensor::Shape& shape) {
  const tensor::TensorView view = file.tensor(name);
  if (view.dtype != dtype || view.shape != shape)
    fail(ErrorCode::kCorrupt, "prompt cache {}: {} has another type or shape than the model's", file.name(), name);
  return view;
}

}  // namespace

std::string cache_identity(const Model& model, const Adapter* adapter, const kernels::Context& context) {
  Sha256 hash;
  hash.update(fmt::format("2 {} {} {} {} {}\n", fingerprint(model), mask_hash(model), kernels::name(context.compute()),
                          context.rounds_activations(), name(active_isa())));
  hash.update(std::as_bytes(std::span(model.config.inverse_frequency)));
  for (const Layer& layer : model.layers) {
    hash.update(std::as_bytes(std::span(layer.attention_norm)));
    hash.update(std::as_bytes(std::span(layer.ffn_norm)));
    for (const tensor::Matrix& weight : layer.projections) {
      hash.update(fmt::format("{} {} {}\n", weight.rows(), weight.cols(), tensor::name(weight.dtype())));
      hash_ends(hash, weight.is_sparse() ? weight.sparse_matrix().value_bytes() : weight.tensor_view().bytes);
    }
  }
  if (adapter != nullptr) {
    hash.update(fmt::format("adapter {} {}\n", adapter->config.scale(), adapter->config.masked));
    for_each_pair(*adapter, [&](int64_t layer, Proj proj, const LoraPair& pair) {
      hash.update(fmt::format("{} {}\n", layer, name(proj)));
      hash.update(pair.a.bytes());
      hash.update(pair.b.bytes());
    });
  }
  return hash.hex();
}

void save_prompt_cache(const std::filesystem::path& path, const std::string& identity, const Decoder& decoder) {
  io::SafetensorsWriter writer;
  writer.set_metadata(kIdentity, identity);
  const auto ids = std::as_bytes(std::span(decoder.tokens()));
  writer.add_tensor("ids", {tensor::DType::kI32, {decoder.length()}, ids});
  const KvCache& cache = decoder.cache();
  for (size_t l = 0; l < cache.keys.size(); ++l) {
    writer.add_tensor(fmt::format("keys.{}", l), first_rows(cache.keys[l], cache.length));
    writer.add_tensor(fmt::format("values.{}", l), first_rows(cache.values[l], cache.length));
  }
  writer.write(path, true);
}

int64_t load_prompt_cache(const std::filesystem::path& path, const std::string& identity, std::span<const int32_t> ids,
                          Decoder& decoder) {
  const io::SafetensorsFile file = io::SafetensorsFile::open(path);
  const auto stored = file.metadata().find(kIdentity);
  const io::SafetensorInfo* info = file.find_tensor("ids");
  if (stored == file.metadata().end() || info == nullptr || info->shape.size() != 1)
    fail(ErrorCode::kCorrupt, "{} is no prompt cache of brick; name another file", path.string());
  if (stored->second != identity)
    fail(ErrorCode::kMismatch,
         "prompt cache {} belongs to another model, adapter or arithmetic; remove it or name another file",
         path.string());
  const int64_t length = info->shape[0];
  const tensor::TensorView view = checked(file, "ids", tensor::DType::kI32, {length});
  std::vector<int32_t> cached(static_cast<size_t>(length));
  std::memcpy(cached.data(), view.bytes.data(), view.bytes.size());
  const auto shared = std::mismatch(ids.begin(), ids.end(), cached.begin(), cached.end()).first - ids.begin();

  KvCache keys_and_values(decoder.model(), shared);
  for (size_t l = 0; l < keys_and_values.keys.size(); ++l) {
    const auto restore = [&](const std::string& name, tensor::Tensor& out) {
      const tensor::TensorView rows = checked(file, name, tensor::DType::kF32, {length, out.shape()[1]});
      std::memcpy(out.bytes().data(), rows.bytes.data(), out.bytes().size());
    };
    restore(fmt::format("keys.{}", l), keys_and_values.keys[l]);
    restore(fmt::format("values.{}", l), keys_and_values.values[l]);
  }
  keys_and_values.length = shared;
  decoder.restore(ids.first(static_cast<size_t>(shared)), keys_and_values);
  return shared;
}

}  // namespace brick::model
