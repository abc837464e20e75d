#include "brick/model/save_parts.h"

#include <algorithm>
#include <atomic>
#include <filesystem>
#include <limits>

#include "brick/base/error.h"
#include "brick/base/parallel.h"
#include "brick/io/atomic_output.h"
#include "brick/io/json_file.h"
#include "brick/kernels/linear.h"
#include "brick/model/gguf_layout.h"
#include "brick/tensor/pack.h"

namespace brick::model {
namespace {

using tensor::DType;

constexpr int64_t kGrain = 16;

[[noreturn]] void fail_not_held(DType dtype, const std::string& name) {
  if (tensor::largest_value(dtype) == std::numeric_limits<float>::max())
    fail(ErrorCode::kNumeric, "{} has weights that are not finite", name);
  fail(ErrorCode::kNumeric, "{} has weights that are not finite or beyond {}, too large for {}; take bf16 or f32", name,
       tensor::largest_value(dtype), tensor::name(dtype));
}

// Where output row r comes from.
int64_t source_row(int64_t r, int64_t head_dim) { return head_dim > 0 ? row_of_gguf(r, head_dim) : r; }

void stream_rows(const std::string& name, const tensor::Matrix& weight, DType dtype, int64_t head_dim,
                 const io::ByteSink& sink) {
  const int64_t rows = weight.rows(), cols = weight.cols();
  const int64_t unit = std::max<int64_t>(head_dim, 1);  // rows move within their head only
  const int64_t step = std::max<int64_t>(kernels::rows_a_piece(weight) / unit, 1) * unit;
  const auto stride = static_cast<size_t>(tensor::row_bytes(dtype, cols));
  std::vector<float> values(static_cast<size_t>(std::min(step, rows) * cols));
  std::vector<std::byte> encoded(static_cast<size_t>(std::min(step, rows)) * stride);
  std::atomic<bool> overflow{false};
  for (int64_t begin = 0; begin < rows; begin += step) {
    const int64_t end = std::min(begin + step, rows);
    kernels::expand_rows(weight, begin, end, values.data());
    parallel_ranges(end - begin, kGrain, [&](int64_t first, int64_t last) {
      for (int64_t i = first; i < last; ++i) {
        const float* row = values.data() + (source_row(begin + i, head_dim) - begin) * cols;
        if (tensor::overflows(dtype, row, cols)) overflow = true;
        tensor::pack(dtype, row, cols, encoded.data() + static_cast<size_t>(i) * stride);
      }
    });
    if (overflow) fail_not_held(dtype, name);
    sink(std::span(encoded).first(static_cast<size_t>(end - begin) * stride));
  }
}

void stream_encoded(const tensor::DenseView& view, int64_t head_dim, const io::ByteSink& sink) {
  const auto stride = static_cast<size_t>(view.stride_bytes());
  if (head_dim == 0) return sink({view.data, static_cast<size_t>(view.rows) * stride});
  for (int64_t r = 0; r < view.rows; ++r) sink({view.row(source_row(r, head_dim)), stride});
}

void write_text(const std::filesystem::path& file, const std::string& text) {
  io::write_file_atomic(file, text, false);
}

}  // namespace

std::string model_name(const Model& model) {
  std::filesystem::path path = std::filesystem::path(model.source).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();  // "folder/"
  const std::string name = (path.extension() == ".gguf" ? path.stem() : path.filename()).string();
  return name.empty() || name == "." || name == ".." ? "model" : name;
}

void check_holds(DType dtype, const float* values, int64_t count, const std::string& name) {
  if (tensor::overflows(dtype, values, count)) fail_not_held(dtype, name);
}

io::TensorSource encoded_rows(std::string name, tensor::Matrix weight, DType dtype, int64_t head_dim) {
  return [name = std::move(name), weight = std::move(weight), dtype, head_dim](const io::ByteSink& sink) {
    if (!weight.is_sparse() && weight.dtype() == dtype)
      stream_encoded(weight.dense_view(), head_dim, sink);
    else
      stream_rows(name, weight, dtype, head_dim, sink);
  };
}

void write_tokenizer_files(const Model& model, const std::string& folder) {
  const std::filesystem::path path(folder);
  nlohmann::json generation = nlohmann::json::object();
  if (model.config.bos) generation["bos_token_id"] = *model.config.bos;
  if (model.config.eos) generation["eos_token_id"] = *model.config.eos;
  if (model.tokenizer && model.tokenizer->pad) generation["pad_token_id"] = *model.tokenizer->pad;
  io::write_json_file(path / "generation_config.json", generation);
  if (!model.tokenizer) return;

  const text::TokenizerSpec& spec = *model.tokenizer;
  write_text(path / "tokenizer.json", text::to_hf_tokenizer_json(spec));
  write_text(path / "tokenizer_config.json", text::to_hf_tokenizer_config_json(spec));
  nlohmann::json special = nlohmann::json::object();
  const auto add = [&](const char* key, std::optional<int32_t> id) {
    if (id) special[key] = spec.tokens[static_cast<size_t>(*id)];
  };
  add("bos_token", spec.bos);
  add("eos_token", spec.eos);
  add("unk_token", spec.unk);
  add("pad_token", spec.pad);
  io::write_json_file(path / "special_tokens_map.json", special);
}

}  // namespace brick::model
