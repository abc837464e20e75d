#include "brick/model/gguf_mixture.h"

#include "brick/base/error.h"

namespace brick::model {
namespace {

using tensor::DType;

uint32_t file_type(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return 0;
    case DType::kF16:
      return 1;
    case DType::kQ4_0:
      return 2;
    case DType::kQ4_1:
      return 3;
    case DType::kQ8_0:
      return 7;
    case DType::kQ4_K:
      return 15;
    case DType::kQ6_K:
      return 18;
    case DType::kBF16:
      return 32;
    default:
      fail(ErrorCode::kInvalidInput, "GGUF in {}: expected f32, f16, bf16, q8_0, q4_0, q4_1, q4_k or q6_k",
           name(dtype));
  }
}

DType with_fallback(DType dtype, int64_t columns) {
  if (columns % tensor::info(dtype).block_values == 0) return dtype;
  if (columns % tensor::kQuantBlock != 0) return DType::kF16;
  switch (dtype) {
    case DType::kQ4_K:
      return DType::kQ5_0;
    case DType::kQ5_K:
      return DType::kQ5_1;
    default:
      return DType::kQ8_0;
  }
}

// Of a head, or of an embedding that is one.
DType head_type(DType dtype, int64_t columns) {
  if (!tensor::is_quantised(dtype) || dtype == DType::kQ8_0) return with_fallback(dtype, columns);
  if (columns % tensor::info(dtype).block_values != 0) return with_fallback(DType::kQ8_0, columns);
  return with_fallback(DType::kQ6_K, columns);
}

bool takes_more_bits(int64_t layer, int64_t layers) {
  return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
}

// llama.cpp's "70B", whose few values are worth a bit more: 80 layers and grouped queries.
bool is_70b(const Model& model) { return model.layers.size() == 80 && model.config.heads != model.config.kv_heads; }

DType linear_type(const Model& model, DType dtype, int64_t layer, Proj proj) {
  if (dtype != DType::kQ4_K || (proj != Proj::kV && proj != Proj::kDown)) return dtype;
  if (takes_more_bits(layer, static_cast<int64_t>(model.layers.size()))) return DType::kQ6_K;
  return proj == Proj::kV && is_70b(model) ? DType::kQ5_K : dtype;
}

}  // namespace

GgufMixture gguf_mixture(const Model& model, DType dtype) {
  GgufMixture mixture;
  mixture.file_type = file_type(dtype);
  const int64_t hidden = model.embedding.cols();
  mixture.head = head_type(dtype, hidden);
  mixture.embedding = model.own_head ? with_fallback(dtype, hidden) : mixture.head;
  for (size_t i = 0; i < model.layers.size(); ++i) {
    std::array<DType, kProjCount> types;
    for (Proj proj : kProjs)
      types[static_cast<size_t>(proj)] =
          with_fallback(linear_type(model, dtype, static_cast<int64_t>(i), proj), model.layers[i][proj].cols());
    mixture.layers.push_back(types);
  }
  return mixture;
}

}  // namespace brick::model
