#include "brick/base/error.h"
#include "brick/io/gguf.h"
#include "brick/model/gguf_layout.h"
#include "brick/model/save.h"
#include "brick/model/save_parts.h"

namespace brick::model {

void export_adapter_gguf(const Adapter& adapter, const Model& model, tensor::DType dtype, const std::string& file,
                         bool force) {
  if (!tensor::is_float(dtype))
    fail(ErrorCode::kInvalidInput, "an adapter in {}: expected f32, f16 or bf16", name(dtype));
  if (adapter.config.masked)
    fail(ErrorCode::kUnsupported,
         "the adapter is masked, and llama.cpp would add what its mask leaves out; export the model with it merged in");
  check_fits(adapter, model);
  io::GgufWriter writer;
  writer.add("general.architecture", std::string(gguf_architecture(model)));
  writer.add("general.type", std::string("adapter"));
  writer.add("general.name", model_name(model) + "-adapter");
  writer.add("adapter.type", std::string("lora"));
  // llama.cpp divides by the rank, whatever rsLoRA says.
  writer.add("adapter.lora.alpha", adapter.config.scale() * static_cast<float>(adapter.config.rank));
  for_each_pair(adapter, [&](int64_t layer, Proj proj, const LoraPair& pair) {
    const auto add = [&](const char* suffix, const tensor::Tensor& factor, int64_t head_dim) {
      const std::string name = gguf_name(layer, proj) + suffix;
      writer.add_tensor(name, dtype, factor.shape(),
                        encoded_rows(name, tensor::Matrix::dense(factor.view(), nullptr), dtype, head_dim));
    };
    const bool reordered = proj == Proj::kQ || proj == Proj::kK;
    add(".lora_a", pair.a, 0);
    add(".lora_b", pair.b, reordered ? model.layers[static_cast<size_t>(layer)].shape.head_dim : 0);
  });
  writer.write(file, force);
}

}  // namespace brick::model
