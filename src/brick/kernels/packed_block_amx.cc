// Tiles of AMX: two by two of 16 x 16 sums, each step 32 deep.
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

#include "brick/kernels/packed_block_impl.h"

#define BRICK_AMX __attribute__((target("amx-tile,amx-bf16")))

namespace brick::kernels {
namespace {

constexpr int64_t kTile = 16;
constexpr int64_t kLine = 64;  // bytes of a pair of packed rows

struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// Tiles 0 to 3 are sums, 4 and 5 rows of a (`low` of 16 and the rest), 6 and 7 columns of b.
BRICK_AMX void set_shapes(int64_t rows) {
  TileShapes shapes;
  for (int i = 0; i < 8; ++i) {
    shapes.row_bytes[i] = 64;
    shapes.rows[i] = kTile;
  }
  const auto low = static_cast<uint8_t>(std::min(rows, kTile)), high = static_cast<uint8_t>(rows - low);
  for (const int i : {0, 1, 4}) shapes.rows[i] = low;
  for (const int i : {2, 3, 5}) shapes.rows[i] = std::max<uint8_t>(high, 1);
  __asm__ volatile("ldtilecfg %0" ::"m"(shapes));  // GCC 12's intrinsic doesn't say that it reads all of them
}

BRICK_AMX void product(const uint16_t* a, const uint16_t* high_a, int64_t stride, const uint16_t* b, int64_t steps,
                       float* sums) {
  constexpr int64_t kStep = kBlockRows * kPanelCols;
  const uint16_t* right_b = b + steps * kStep;
  const int64_t a_bytes = stride * 2;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t k = 0; k < steps; ++k) {
    _tile_loadd(4, a + k * kBlockRows, a_bytes);
    _tile_loadd(6, b + k * kStep, kLine);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, right_b + k * kStep, kLine);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, high_a + k * kBlockRows, a_bytes);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
  }
  _tile_stored(0, sums, kStripCols * 4);
  _tile_stored(1, sums + kTile, kStripCols * 4);
  _tile_stored(2, sums + kTile * kStripCols, kStripCols * 4);
  _tile_stored(3, sums + kTile * kStripCols + kTile, kStripCols * 4);
}

}  // namespace

bool amx_permitted() {
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  static const bool granted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return granted;
}

BRICK_AMX void amx_begin() noexcept { set_shapes(kStripRows); }
BRICK_AMX void amx_end() noexcept { _tile_release(); }

void strip_product_amx(const ConstBf16View& a, const uint16_t* panels, float* sums) noexcept {
  const int64_t steps = (a.cols + kBlockRows - 1) / kBlockRows;
  if (a.rows == kStripRows) return product(a.data, a.row(kTile), a.stride, panels, steps, sums);
  set_shapes(a.rows);
  product(a.data, a.row(a.rows > kTile ? kTile : 0), a.stride, panels, steps, sums);
  set_shapes(kStripRows);
}

}  // namespace brick::kernels
