#include "brick/pipeline/kernel_table_file.h"

#include <fmt/format.h>

#include <array>
#include <cstdlib>
#include <limits>
#include <set>

#include "brick/base/cpu.h"
#include "brick/base/error.h"
#include "brick/base/process.h"
#include "brick/base/rng.h"
#include "brick/io/json_file.h"
#include "brick/kernels/linear.h"
#include "brick/kernels/sparse_product.h"
#include "brick/model/lora_branch.h"
#include "brick/pipeline/workbench.h"

namespace brick::pipeline {
namespace {

using kernels::Compute;
using kernels::KeptShares;
using kernels::KernelTable;
using tensor::Matrix;

constexpr const char* kFormat = "brick-kernel-table-1";
constexpr std::array kShares{0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.75};
constexpr std::array<int64_t, 3> kCalibrationTokens{16, 64, 512};  // what stands for each row of the table
constexpr int kRepeats = 5;
constexpr int64_t kRank = 8;

Matrix random_weight(int64_t rows, int64_t cols, double share, Rng& rng) {
  tensor::Tensor values = tensor::matrix(rows, cols);
  tensor::Mask mask(rows, cols);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) {
      values.mat()(r, c) = static_cast<float>(rng.normal());
      mask.set(r, c, rng.uniform() < share);
    }
  return Matrix::sparse(
      tensor::SparseMatrix::encode(values.mat(), mask.view(), tensor::SparseCoding::kValues, tensor::DType::kBF16));
}

tensor::Tensor random_tensor(int64_t rows, int64_t cols, Rng& rng) {
  tensor::Tensor out = tensor::matrix(rows, cols);
  for (int64_t i = 0; i < out.size(); ++i) out.f32()[i] = static_cast<float>(rng.normal());
  return out;
}

KernelTable all(double share) {
  KernelTable out;
  out.f32.fill({share, share});
  out.bf16.fill({share, share});
  return out;
}

// Seconds of the kept weights alone less those of the dense product, for one weight.
struct Difference {
  double product = 0, gradient = 0;
};

template <class Body>
double difference(Body&& body) {
  double best[2] = {std::numeric_limits<double>::infinity(), std::numeric_limits<double>::infinity()};
  for (int repeat = 0; repeat <= kRepeats; ++repeat)
    for (int own = 0; own < 2; ++own) {
      kernels::use_kernel_table(all(own));
      const Stopwatch watch;
      body();
      if (repeat > 0) best[own] = std::min(best[own], watch.seconds());
    }
  return best[1] - best[0];
}

Difference measure(const Matrix& weight, int64_t tokens, Compute compute, Rng& rng) {
  kernels::Context context(compute);
  tensor::Tensor x = random_tensor(tokens, weight.cols(), rng), y = random_tensor(tokens, weight.rows(), rng);
  const model::LoraPair pair{random_tensor(kRank, weight.cols(), rng), random_tensor(weight.rows(), kRank, rng)};
  model::LoraPair gradient{tensor::matrix(kRank, weight.cols()), tensor::matrix(weight.rows(), kRank)};
  const model::Branch branch{.pair = &pair, .scale = 1, .masked = true};
  Difference out;
  out.product = difference([&] {
    kernels::linear(context, weight, x.mat(), 0.0f, y.mat());
    kernels::linear_backward(context, weight, y.mat(), 0.0f, x.mat());
  });
  out.gradient =
      difference([&] { model::project_backward(context, weight, branch, x.mat(), y.mat(), 0.0f, {}, &gradient); });
  return out;
}

KeptShares shares_from_json(const nlohmann::json& row, int64_t tokens) {
  if (!row.is_object() || row.value("tokens", nlohmann::json()) != tokens)
    fail(ErrorCode::kCorrupt, "expected a row of 'tokens' {}", tokens);
  const auto share = [&](const char* key) {
    const auto found = row.find(key);
    if (found == row.end() || !found->is_number() || !(found->get<double>() >= 0 && found->get<double>() <= 1))
      fail(ErrorCode::kCorrupt, "'{}' of the row of {} tokens: expected a number from 0 to 1", key, tokens);
    return found->get<double>();
  };
  return {share("product"), share("gradient")};
}

}  // namespace

KernelTable calibrate_kernels(const model::Model& model, ProgressSink& sink) {
  if (!kernels::has_sparse_product())
    fail(ErrorCode::kUnsupported, "calibrate: instruction set {} has one way to multiply sparse weights only",
         name(active_isa()));
  std::set<std::pair<int64_t, int64_t>> shapes;
  for (const Matrix& weight : model.layers.front().projections) shapes.emplace(weight.rows(), weight.cols());
  KernelTable table = kernels::builtin_kernel_table();
  for (const Compute compute : {Compute::kF32, Compute::kBf16}) {
    if (compute == Compute::kBf16 && !has_bf16_arithmetic()) continue;
    table.rows(compute).fill({});
    // A share counts while all lower ones were faster, too.
    std::array<bool, KernelTable::kTokens.size()> product, gradient;
    product.fill(true);
    gradient.fill(true);
    for (const double share : kShares) {
      sink.note(fmt::format("calibrate: {}, {:.0f} % kept", kernels::name(compute), 100 * share));
      for (size_t i = 0; i < KernelTable::kTokens.size(); ++i) {
        if (!product[i] && !gradient[i]) continue;
        Rng rng(0, stream_id({i}));
        Difference total;
        for (const auto& [rows, cols] : shapes) {
          const Difference one = measure(random_weight(rows, cols, share, rng), kCalibrationTokens[i], compute, rng);
          total.product += one.product;
          total.gradient += one.gradient;
        }
        product[i] = product[i] && total.product < 0;
        gradient[i] = gradient[i] && total.gradient < 0;
        if (product[i]) table.rows(compute)[i].product = share;
        if (gradient[i]) table.rows(compute)[i].gradient = share;
      }
    }
  }
  kernels::use_kernel_table(table);
  return table;
}

nlohmann::json table_rows(const KernelTable& table) {
  nlohmann::json out;
  for (const Compute compute : {Compute::kF32, Compute::kBf16}) {
    nlohmann::json& rows = out[std::string(kernels::name(compute))] = nlohmann::json::array();
    for (size_t i = 0; i < KernelTable::kTokens.size(); ++i)
      rows.push_back({{"tokens", KernelTable::kTokens[i]},
                      {"product", table.rows(compute)[i].product},
                      {"gradient", table.rows(compute)[i].gradient}});
  }
  return out;
}

nlohmann::json to_json(const KernelTable& table) {
  nlohmann::json out = table_rows(table);
  out.update(machine());
  out["format"] = kFormat;
  return out;
}

KernelTable kernel_table_from_json(const nlohmann::json& json) {
  if (!json.is_object() || json.value("format", nlohmann::json()) != kFormat)
    fail(ErrorCode::kCorrupt, "expected an object of 'format' {}", kFormat);
  const nlohmann::json isa = json.value("isa", nlohmann::json());
  if (isa != name(active_isa()))
    fail(ErrorCode::kMismatch, "measured for 'isa' {}, this run uses {}", isa.dump(), name(active_isa()));
  KernelTable table;
  for (const Compute compute : {Compute::kF32, Compute::kBf16}) {
    const std::string key(kernels::name(compute));
    const nlohmann::json rows = json.value(key, nlohmann::json());
    if (!rows.is_array() || rows.size() != KernelTable::kTokens.size())
      fail(ErrorCode::kCorrupt, "'{}': expected {} rows", key, KernelTable::kTokens.size());
    for (size_t i = 0; i < rows.size(); ++i)
      table.rows(compute)[i] = shares_from_json(rows[i], KernelTable::kTokens[i]);
  }
  return table;
}

void use_kernel_table_of_environment() {
  const char* path = std::getenv("BRICK_KERNEL_TABLE");
  if (path == nullptr || *path == '\0') return;
  try {
    kernels::use_kernel_table(kernel_table_from_json(io::read_json_file(path)));
  } catch (const Error& error) {
    fail(error.code(), "{} (BRICK_KERNEL_TABLE): {}; make one with brick bench --calibrate", path, error.what());
  }
}

}  // namespace brick::pipeline
