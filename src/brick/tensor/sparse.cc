#include "brick/tensor/sparse.h"

#include <array>
#include <cstring>

#include "brick/base/checked.h"
#include "brick/tensor/pack.h"

namespace brick::tensor {
namespace {

constexpr std::array<std::string_view, 3> kNames{"values", "q4", "parent"};

int parent_integer(DType dtype, const std::byte* block, int64_t index) {
  const auto* q = reinterpret_cast<const uint8_t*>(block + parent_scale_bytes(dtype));
  if (!parent_has_nibbles(dtype)) return static_cast<int8_t>(q[index]);
  return index < 16 ? q[index] & 15 : q[index - 16] >> 4;
}

void reject_padding_bits(MaskView mask) {
  const int64_t words = mask_words(mask.cols), tail = mask.cols % 64;
  const uint64_t padding = tail == 0 ? 0 : ~uint64_t{0} << tail;
  for (int64_t r = 0; r < mask.rows && words > 0; ++r)
    if ((mask.row(r)[words - 1] & padding) != 0)
      fail(ErrorCode::kCorrupt, "sparse mask: row {} has bits beyond its {} columns", r, mask.cols);
}

void encode_parent_row(const std::byte* parent_row, DType dtype, MaskView mask, int64_t r, std::byte* out) {
  const int64_t blocks = mask.cols / kQuantBlock, scales = parent_scale_bytes(dtype);
  for (int64_t b = 0; b < blocks; ++b)
    std::memcpy(out + b * scales, parent_row + b * info(dtype).block_bytes, static_cast<size_t>(scales));
  out += blocks * scales;
  int64_t n = 0;
  mask.for_each_kept(r, [&](int64_t c) {
    const int q = parent_integer(dtype, parent_row + c / kQuantBlock * info(dtype).block_bytes, c % kQuantBlock);
    if (parent_has_nibbles(dtype))
      out[n / 2] |= static_cast<std::byte>(q << (n % 2 * 4));
    else
      out[n] = static_cast<std::byte>(q);
    ++n;
  });
}

}  // namespace

std::string_view name(SparseCoding coding) { return kNames[static_cast<size_t>(coding)]; }

std::optional<SparseCoding> find_sparse_coding(std::string_view name) {
  for (size_t i = 0; i < kNames.size(); ++i)
    if (kNames[i] == name) return static_cast<SparseCoding>(i);
  return std::nullopt;
}

bool can_keep_parent(DType dtype) { return dtype == DType::kQ8_0 || dtype == DType::kQ4_0 || dtype == DType::kQ4_1; }

int64_t sparse_row_bytes(SparseCoding coding, DType dtype, int64_t cols, int64_t kept) {
  switch (coding) {
    case SparseCoding::kValues:
      if (is_float(dtype)) return kept * info(dtype).block_bytes;
      break;
    case SparseCoding::kQ4:
      if (dtype == DType::kQ4_1) return (kept + kQuantBlock - 1) / kQuantBlock * info(dtype).block_bytes;
      break;
    case SparseCoding::kParent:
      if (can_keep_parent(dtype) && cols % kQuantBlock == 0)
        return cols / kQuantBlock * parent_scale_bytes(dtype) + (parent_has_nibbles(dtype) ? (kept + 1) / 2 : kept);
      break;
  }
  fail(ErrorCode::kCorrupt, "sparse matrix of {} columns: coding '{}' cannot hold {} values", cols, name(coding),
       name(dtype));
}

void unpack_sparse_row(const SparseView& source, int64_t r, float* out) {
  std::memset(out, 0, static_cast<size_t>(source.cols()) * sizeof(float));
  if (source.coding == SparseCoding::kParent)
    return for_each_parent_value(source, r, [&](int64_t c, float value) { out[c] = value; });
  const std::byte* values = source.values + source.row_offset[r];
  const DTypeInfo& type = info(source.dtype);
  std::array<float, kQuantBlock> buffer{};
  const int64_t kept = source.mask.count_row(r);
  int64_t n = 0;
  source.mask.for_each_kept(r, [&](int64_t c) {
    if (n % kQuantBlock == 0) {
      const int64_t left = type.block_values == 1 ? std::min<int64_t>(kQuantBlock, kept - n) : kQuantBlock;
      unpack(source.dtype, values + n / type.block_values * type.block_bytes, left, buffer.data());
    }
    out[c] = buffer[static_cast<size_t>(n++ % kQuantBlock)];
  });
}

SparseMatrix SparseMatrix::encode(ConstMatView dense, MaskView mask, SparseCoding coding, DType dtype,
                                  const TensorView* parent) {
  BRICK_ASSERT(dense.rows == mask.rows && dense.cols == mask.cols);
  BRICK_ASSERT(coding != SparseCoding::kParent || (parent != nullptr && parent->dtype == dtype));
  reject_padding_bits(mask);
  struct Storage {
    std::vector<uint64_t> mask;
    std::vector<std::byte> values;
  };
  auto storage = std::make_shared<Storage>();
  storage->mask.assign(mask.words, mask.words + mask.rows * mask_words(mask.cols));
  int64_t total = 0;
  for (int64_t r = 0; r < mask.rows; ++r)
    total = checked_add(total, sparse_row_bytes(coding, dtype, mask.cols, mask.count_row(r)), "sparse values");
  storage->values.resize(static_cast<size_t>(total));

  std::byte* out = storage->values.data();
  std::vector<float> row;
  for (int64_t r = 0; r < mask.rows; ++r) {
    const int64_t bytes = sparse_row_bytes(coding, dtype, mask.cols, mask.count_row(r));
    if (coding == SparseCoding::kParent) {
      encode_parent_row(parent->bytes.data() + r * row_bytes(dtype, mask.cols), dtype, mask, r, out);
    } else {
      row.clear();
      mask.for_each_kept(r, [&](int64_t c) { row.push_back(dense(r, c)); });
      while (row.size() % static_cast<size_t>(info(dtype).block_values) != 0) row.push_back(row.back());
      pack(dtype, row.data(), static_cast<int64_t>(row.size()), out);
    }
    out += bytes;
  }
  return wrap({storage->mask.data(), mask.rows, mask.cols}, coding, dtype, storage->values, storage);
}

SparseMatrix SparseMatrix::wrap(MaskView mask, SparseCoding coding, DType dtype, std::span<const std::byte> values,
                                std::shared_ptr<const void> keep) {
  SparseMatrix out;
  out.mask_ = mask;
  out.coding_ = coding;
  out.dtype_ = dtype;
  out.values_ = values;
  out.keep_ = std::move(keep);
  out.index_rows();
  return out;
}

void SparseMatrix::index_rows() {
  reject_padding_bits(mask_);
  row_offset_.assign(1, 0);
  row_offset_.reserve(static_cast<size_t>(mask_.rows) + 1);
  for (int64_t r = 0; r < mask_.rows; ++r) {
    const int64_t kept = mask_.count_row(r);
    nonzeros_ += kept;
    row_offset_.push_back(row_offset_.back() +
                          static_cast<uint64_t>(sparse_row_bytes(coding_, dtype_, mask_.cols, kept)));
  }
  if (row_offset_.back() != values_.size())
    fail(ErrorCode::kCorrupt, "sparse values: {} bytes, but the mask asks for {}", values_.size(), row_offset_.back());
}

SparseView SparseMatrix::view() const { return {mask_, coding_, dtype_, row_offset_.data(), values_.data()}; }

}  // namespace brick::tensor
