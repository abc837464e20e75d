#include "brick/kernels/kernel_table.h"

#include <algorithm>

#include "brick/base/cpu.h"
#include "brick/kernels/sparse_product.h"
#include "brick/kernels/vector_ops.h"

namespace brick::kernels {
namespace {

KernelTable& current() {
  static KernelTable table = builtin_kernel_table();
  return table;
}

KeptShares shares(int64_t tokens, Compute compute) {
  KeptShares out;
  for (size_t i = 0; i < KernelTable::kTokens.size(); ++i)
    if (tokens >= KernelTable::kTokens[i]) out = current().rows(compute)[i];
  return has_sparse_product() ? out : KeptShares{};
}

double kept_share(tensor::MaskView mask) {
  const int64_t kept = count_bits(mask.words, mask.rows * tensor::mask_words(mask.cols));
  return static_cast<double>(kept) / static_cast<double>(std::max<int64_t>(1, mask.rows * mask.cols));
}

}  // namespace

KernelTable builtin_kernel_table() {
  constexpr KeptShares kNever{};
  if (active_isa() == Isa::kAvx2)
    return {.f32 = {KeptShares{0, 0.15}, KeptShares{0.25, 0.25}, KeptShares{0.4, 0.35}},
            .bf16 = {kNever, kNever, kNever}};
  // Tiles win in bfloat16, and what has them multiplies all weights faster in float32 too: 215 instead of 127 tokens a
  // second of a 75 % block's training (by hand).
  if (active_isa() == Isa::kAmx) return {.f32 = {kNever, kNever, kNever}, .bf16 = {kNever, kNever, kNever}};
  return {.f32 = {kNever, KeptShares{0.3, 0}, KeptShares{0.3, 0}},
          .bf16 = {kNever, KeptShares{0.15, 0}, KeptShares{0.15, 0}}};
}

const KernelTable& kernel_table() { return current(); }
void use_kernel_table(const KernelTable& table) { current() = table; }

bool sparse_product_wins(tensor::MaskView mask, int64_t tokens, Compute compute) {
  const double most = shares(tokens, compute).product;
  return most > 0 && kept_share(mask) <= most;
}

bool sampled_product_wins(tensor::MaskView mask, int64_t tokens, Compute compute) {
  const double most = shares(tokens, compute).gradient;
  return most > 0 && kept_share(mask) <= most;
}

}  // namespace brick::kernels
