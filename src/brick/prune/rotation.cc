#include "brick/prune/rotation.h"

#include <algorithm>

#include "brick/kernels/gemm.h"
#include "brick/kernels/linear.h"
#include "brick/kernels/vector_ops.h"
#include "brick/prune/dense_layer.h"
#include "brick/prune/stored_values.h"
#include "brick/tensor/pack.h"

namespace brick::prune {
namespace {

using kernels::Trans;
using model::Proj;
using tensor::ConstMatView;
using tensor::DType;
using tensor::Matrix;
using tensor::MatView;
using tensor::Tensor;

// W diag(norm) R^T, a piece of rows at a time; null: W R^T.
Matrix read_through(const Matrix& weight, const float* norm, ConstMatView reader, DType dtype) {
  const int64_t step = std::min(kernels::rows_a_piece(weight), weight.rows());
  Tensor out(dtype, {weight.rows(), reader.rows});
  Tensor old_rows = tensor::matrix(step, weight.cols()), new_rows = tensor::matrix(step, reader.rows);
  for (int64_t begin = 0; begin < weight.rows(); begin += step) {
    const int64_t count = std::min(step, weight.rows() - begin);
    const MatView from(old_rows.f32(), count, weight.cols()), to(new_rows.f32(), count, reader.rows);
    kernels::expand_rows(weight, begin, begin + count, from.data);
    for (int64_t r = 0; norm != nullptr && r < count; ++r) kernels::multiply(from.row(r), norm, from.row(r), from.cols);
    kernels::gemm(Trans::kNo, Trans::kYes, 1.0f, from, reader, 0.0f, to);
    tensor::pack(dtype, to.data, count * reader.rows,
                 out.bytes().data() + begin * tensor::row_bytes(dtype, reader.rows));
  }
  return Matrix::dense(std::move(out));
}

// Q^T W
Matrix write_through(const Matrix& weight, ConstMatView stream, DType dtype) {
  const Matrix dense = decode_matrix(weight);
  Tensor out = tensor::matrix(stream.rows, weight.cols());
  kernels::gemm(Trans::kNo, Trans::kNo, 1.0f, stream, dense_rows(dense), 0.0f, out.mat());
  return Matrix::dense(tensor::convert(out.view(), dtype));
}

// Q^T b; nothing of nothing.
std::vector<float> turned(const std::vector<float>& bias, ConstMatView stream) {
  std::vector<float> out;
  for (int64_t r = 0; !bias.empty() && r < stream.rows; ++r)
    out.push_back(kernels::dot(stream.row(r), bias.data(), stream.cols));
  return out;
}

}  // namespace

model::Model rotate(const model::Model& model, const Rotation& rotation, const std::string& values) {
  const ConstMatView stream = rotation.stream.mat();
  const std::vector<float> ones(static_cast<size_t>(stream.rows), 1.0f);
  const auto outer = [&](const Matrix& weight, const float* norm, ConstMatView reader, const std::string& name) {
    const DType dtype = dense_dtype(values, weight, reader.rows, name);
    return read_through(weight, norm, reader, tensor::is_quantised(dtype) ? DType::kQ8_0 : dtype);
  };
  model::Model out = model;
  out.config.hidden = stream.rows;
  out.config.norm_eps *= static_cast<float>(stream.cols) / static_cast<float>(stream.rows);
  out.config.tied_head = false;
  out.embedding = outer(model.embedding, nullptr, stream, "model.embed_tokens.weight");
  out.own_head = outer(model.head(), model.final_norm.data(), rotation.readers.back().mat(), "lm_head.weight");
  out.final_norm = ones;
  for (size_t i = 0; i < model.layers.size(); ++i) {
    const model::Layer& from = model.layers[i];
    model::Layer& to = out.layers[i];
    for (const Proj proj : model::kProjs) {
      const std::string name = model::weight_name(static_cast<int64_t>(i), proj);
      const bool writes = model::writes_stream(proj), second = proj == Proj::kGate || proj == Proj::kUp;
      const DType dtype = dense_dtype(values, from[proj], writes ? from[proj].cols() : stream.rows, name);
      to[proj] = writes ? write_through(from[proj], stream, dtype)
                        : read_through(from[proj], (second ? from.ffn_norm : from.attention_norm).data(),
                                       rotation.readers[2 * i + (second ? 1 : 0)].mat(), dtype);
    }
    to.attention_norm = to.ffn_norm = ones;
    to.o_bias = turned(from.o_bias, stream);
    to.down_bias = turned(from.down_bias, stream);
    model.drop_pages();
  }
  out.block = {};
  out.block.cut = model.block.cut;
  if (out.block.cut) out.block.cut->stream.reset();  // its directions are no channels
  return out;
}

}  // namespace brick::prune
