// Bitmask-sparse matrices: a mask and the kept values, row by row. The same bytes in memory and on disk
// (docs/block-format.md).
#pragma once

#include <cstring>
#include <memory>
#include <optional>
#include <string_view>

#include "brick/tensor/mask.h"
#include "brick/tensor/pack.h"
#include "brick/tensor/tensor.h"

namespace brick::tensor {

// How the kept values of a row are written.
enum class SparseCoding : uint8_t {
  kValues,  // each kept value, f32, f16 or bf16
  kQ4,      // the kept values in consecutive Q4_1 blocks of 32, the last padded with its own last value
  kParent,  // a block format's scales for all columns, then the kept integers (packed nibbles or bytes):
            // exactly the parent's numbers
};
std::string_view name(SparseCoding coding);
std::optional<SparseCoding> find_sparse_coding(std::string_view name);

struct SparseView {
  MaskView mask;
  SparseCoding coding = SparseCoding::kValues;
  DType dtype = DType::kF32;             // of the values, or the parent's block format for kParent
  const uint64_t* row_offset = nullptr;  // [rows + 1], bytes into `values`
  const std::byte* values = nullptr;

  int64_t rows() const { return mask.rows; }
  int64_t cols() const { return mask.cols; }
};

// Whether kParent can keep such a parent's numbers: not those of Q5_0, Q5_1 and the K formats.
bool can_keep_parent(DType dtype);

// Bytes of the values of a row with `kept` of `cols` values; Error(kCorrupt) for a dtype that the coding lacks.
int64_t sparse_row_bytes(SparseCoding coding, DType dtype, int64_t cols, int64_t kept);

// Row r with its zeros.
void unpack_sparse_row(const SparseView& source, int64_t r, float* out);

// Bytes of the scales of a block of a format that kParent can keep, and whether its integers are nibbles.
inline int64_t parent_scale_bytes(DType dtype) { return dtype == DType::kQ4_1 ? 4 : 2; }
inline bool parent_has_nibbles(DType dtype) { return dtype != DType::kQ8_0; }

// Calls visit(column, value) for the kept values of row r of a kParent matrix.
template <class Visit>
void for_each_parent_value(const SparseView& source, int64_t r, Visit&& visit) {
  const std::byte* base = source.values + source.row_offset[r];
  const int64_t scales = parent_scale_bytes(source.dtype);
  const auto* q = reinterpret_cast<const uint8_t*>(base + source.cols() / kQuantBlock * scales);
  int64_t n = 0;
  source.mask.for_each_kept(r, [&](int64_t c) {
    uint16_t d_bits, m_bits = 0;
    const std::byte* scale = base + c / kQuantBlock * scales;
    std::memcpy(&d_bits, scale, 2);
    if (source.dtype == DType::kQ4_1) std::memcpy(&m_bits, scale + 2, 2);
    const float d = f16_to_f32(d_bits);
    if (source.dtype == DType::kQ8_0) {
      visit(c, d * static_cast<float>(static_cast<int8_t>(q[n])));
    } else {
      const float m = source.dtype == DType::kQ4_1 ? f16_to_f32(m_bits) : -8.0f * d;
      visit(c, d * static_cast<float>(q[n / 2] >> (n % 2 * 4) & 15) + m);
    }
    ++n;
  });
}

// Owns mask, row offsets and values.
class SparseMatrix {
 public:
  // Encodes the kept values of `dense`. With kParent, `parent` (the block-format tensor that `dense` was decoded
  // from) supplies the integers.
  static SparseMatrix encode(ConstMatView dense, MaskView mask, SparseCoding coding, DType dtype,
                             const TensorView* parent = nullptr);
  // Wraps bytes read from a file; Error(kCorrupt) if the sizes disagree or padding bits are set. `keep` owns them.
  static SparseMatrix wrap(MaskView mask, SparseCoding coding, DType dtype, std::span<const std::byte> values,
                           std::shared_ptr<const void> keep);

  SparseView view() const;  // as long as this object
  std::span<const std::byte> value_bytes() const { return values_; }
  int64_t nonzeros() const { return nonzeros_; }
  int64_t bytes() const { return static_cast<int64_t>(values_.size() + mask_.bytes().size()); }

 private:
  void index_rows();

  MaskView mask_;
  SparseCoding coding_ = SparseCoding::kValues;
  DType dtype_ = DType::kF32;
  std::span<const std::byte> values_;
  std::vector<uint64_t> row_offset_;
  int64_t nonzeros_ = 0;
  std::shared_ptr<const void> keep_;
};

}  // namespace brick::tensor
