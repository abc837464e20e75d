#include "brick/kernels/packed_block.h"

#include <algorithm>

#include "brick/base/cpu.h"
#include "brick/kernels/bf16_ops.h"
#include "brick/kernels/packed_block_impl.h"

namespace brick::kernels {
namespace {

using tensor::BasicMatView;

template <class T>
void multiply(const ConstBf16View& a, const uint16_t* block, float beta, const BasicMatView<T>& c) {
  static const bool amx = active_isa() >= Isa::kAmx && amx_permitted();
  if (amx) amx_begin();
  alignas(64) float sums[kStripRows * kStripCols];
  for (int64_t row = 0; row < a.rows; row += kStripRows) {
    const ConstBf16View strip = a.row_range(row, std::min(row + kStripRows, a.rows));
    for (int64_t first = 0; first < c.cols; first += kStripCols) {
      (amx ? strip_product_amx : strip_product_avx512)(strip, block + first / kPanelCols * panel_size(a.cols), sums);
      const BasicMatView<T> out = c.block(row, strip.rows, first, std::min(kStripCols, c.cols - first));
      store_sums({sums, out.rows, out.cols, kStripCols}, beta != 0.0f, out);
    }
  }
  if (amx) amx_end();
}

}  // namespace

void multiply_block(ConstBf16View a, const uint16_t* block, float beta, Bf16View c) noexcept {
  multiply<uint16_t>(a, block, beta, c);
}
void multiply_block(ConstBf16View a, const uint16_t* block, float beta, tensor::MatView c) noexcept {
  multiply<float>(a, block, beta, c);
}

}  // namespace brick::kernels
