#include "brick/tensor/sparse.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <string>

#include "brick/base/error.h"
#include "brick/base/rng.h"
#include "brick/tensor/pack.h"

namespace brick::tensor {
namespace {

constexpr std::array kBlockFormats{DType::kQ8_0, DType::kQ4_0, DType::kQ4_1};

Tensor random_matrix(int64_t rows, int64_t cols, uint64_t stream) {
  Tensor out = matrix(rows, cols);
  Rng rng(31, stream);
  for (int64_t i = 0; i < rows * cols; ++i) out.f32()[i] = static_cast<float>(rng.normal());
  return out;
}

// Half of the weights at random, but row 0 is empty and row 1 is full.
Mask random_mask(int64_t rows, int64_t cols, uint64_t stream) {
  Mask mask(rows, cols);
  Rng rng(32, stream);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < cols; ++c) mask.set(r, c, r != 0 && (r == 1 || rng.below(2) == 1));
  return mask;
}

std::vector<float> unpacked_row(const SparseMatrix& matrix, int64_t r) {
  std::vector<float> out(static_cast<size_t>(matrix.view().cols()), -1.0f);
  unpack_sparse_row(matrix.view(), r, out.data());
  return out;
}

// A copy of the bytes, wrapped as a loader would.
SparseMatrix wrapped(const SparseMatrix& matrix) {
  const SparseView view = matrix.view();
  return SparseMatrix::wrap(view.mask, view.coding, view.dtype, matrix.value_bytes(), nullptr);
}

ErrorCode wrap_error(MaskView mask, SparseCoding coding, DType dtype, std::span<const std::byte> bytes) {
  try {
    SparseMatrix::wrap(mask, coding, dtype, bytes, nullptr);
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "wrapped";
  return ErrorCode::kIo;
}

class SparseSizes : public ::testing::TestWithParam<int64_t> {};

TEST_P(SparseSizes, ValuesKeepTheKeptNumbersInEachFloatFormat) {
  const int64_t rows = 6, cols = GetParam();
  const Tensor dense = random_matrix(rows, cols, 1);
  const Mask mask = random_mask(rows, cols, 1);
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16}) {
    const SparseMatrix sparse = SparseMatrix::encode(dense.mat(), mask.view(), SparseCoding::kValues, dtype);
    const Tensor rounded = to_f32(convert(dense.view(), dtype).view());
    EXPECT_EQ(sparse.nonzeros(), mask.view().count());
    EXPECT_EQ(static_cast<int64_t>(sparse.value_bytes().size()), mask.view().count() * info(dtype).block_bytes);
    for (int64_t r = 0; r < rows; ++r) {
      const std::vector<float> row = unpacked_row(sparse, r);
      EXPECT_EQ(row, unpacked_row(wrapped(sparse), r));
      for (int64_t c = 0; c < cols; ++c)
        EXPECT_EQ(row[static_cast<size_t>(c)], mask.kept(r, c) ? rounded.mat()(r, c) : 0.0f) << r << " " << c;
    }
  }
}

// The kept values of a row, squeezed together and padded with the last one, are ordinary Q4_1 blocks.
TEST_P(SparseSizes, Q4PacksTheKeptValuesInConsecutiveBlocks) {
  const int64_t rows = 6, cols = GetParam();
  const Tensor dense = random_matrix(rows, cols, 2);
  const Mask mask = random_mask(rows, cols, 2);
  const SparseMatrix sparse = SparseMatrix::encode(dense.mat(), mask.view(), SparseCoding::kQ4, DType::kQ4_1);
  for (int64_t r = 0; r < rows; ++r) {
    std::vector<float> kept;
    for (int64_t c = 0; c < cols; ++c)
      if (mask.kept(r, c)) kept.push_back(dense.mat()(r, c));
    while (kept.size() % kQuantBlock != 0) kept.push_back(kept.back());
    std::vector<std::byte> bytes(kept.size() / kQuantBlock * 20);
    pack(DType::kQ4_1, kept.data(), static_cast<int64_t>(kept.size()), bytes.data());
    unpack(DType::kQ4_1, bytes.data(), static_cast<int64_t>(kept.size()), kept.data());

    const std::vector<float> row = unpacked_row(sparse, r);
    EXPECT_EQ(row, unpacked_row(wrapped(sparse), r));
    size_t n = 0;
    for (int64_t c = 0; c < cols; ++c) EXPECT_EQ(row[static_cast<size_t>(c)], mask.kept(r, c) ? kept[n++] : 0.0f);
  }
}

INSTANTIATE_TEST_SUITE_P(Columns, SparseSizes, ::testing::Values(1, 31, 32, 63, 64, 65, 100, 200));

TEST(SparseParent, KeepsExactlyTheParentsNumbers) {
  for (int64_t cols : {32, 64, 96, 160})
    for (DType dtype : kBlockFormats) {
      const int64_t rows = 7;
      const Tensor parent = convert(random_matrix(rows, cols, 3).view(), dtype);
      const Tensor dense = to_f32(parent.view());
      const Mask mask = random_mask(rows, cols, 3);
      const TensorView parent_view = parent.view();
      const SparseMatrix sparse =
          SparseMatrix::encode(dense.mat(), mask.view(), SparseCoding::kParent, dtype, &parent_view);
      for (int64_t r = 0; r < rows; ++r) {
        const std::vector<float> row = unpacked_row(sparse, r);
        EXPECT_EQ(row, unpacked_row(wrapped(sparse), r));
        for (int64_t c = 0; c < cols; ++c)
          EXPECT_EQ(row[static_cast<size_t>(c)], mask.kept(r, c) ? dense.mat()(r, c) : 0.0f)
              << name(dtype) << " " << r << " " << c;
      }
    }
}

TEST(SparseParent, SavesTheIntegersOfTheRemovedWeights) {
  const int64_t scales = 4 * 2;  // four blocks, a half each
  EXPECT_EQ(sparse_row_bytes(SparseCoding::kParent, DType::kQ8_0, 128, 50), scales + 50);
  EXPECT_EQ(sparse_row_bytes(SparseCoding::kParent, DType::kQ4_0, 128, 51), scales + 26);
  EXPECT_EQ(sparse_row_bytes(SparseCoding::kParent, DType::kQ4_1, 128, 51), 2 * scales + 26);
  EXPECT_EQ(sparse_row_bytes(SparseCoding::kParent, DType::kQ4_1, 128, 0), 2 * scales);
}

TEST(SparseMatrix, EmptyAndFullMasks) {
  const Tensor dense = random_matrix(4, 65, 4);
  Mask none(4, 65), all(4, 65);
  for (int64_t r = 0; r < 4; ++r)
    for (int64_t c = 0; c < 65; ++c) all.set(r, c, true);
  const SparseMatrix empty = SparseMatrix::encode(dense.mat(), none.view(), SparseCoding::kQ4, DType::kQ4_1);
  EXPECT_EQ(empty.nonzeros(), 0);
  EXPECT_EQ(empty.value_bytes().size(), 0u);
  EXPECT_EQ(unpacked_row(empty, 3), std::vector<float>(65, 0.0f));
  const SparseMatrix full = SparseMatrix::encode(dense.mat(), all.view(), SparseCoding::kValues, DType::kF32);
  EXPECT_EQ(full.nonzeros(), 4 * 65);
  EXPECT_EQ(full.bytes(), 4 * 65 * 4 + 4 * 2 * 8);
  for (int64_t r = 0; r < 4; ++r)
    EXPECT_EQ(unpacked_row(full, r), std::vector<float>(dense.mat().row(r), dense.mat().row(r) + 65));
  const Mask no_rows(0, 65);
  EXPECT_EQ(SparseMatrix::wrap(no_rows.view(), SparseCoding::kValues, DType::kF32, {}, nullptr).nonzeros(), 0);
}

TEST(SparseMatrix, WrapRejectsAWrongNumberOfBytes) {
  const Tensor dense = random_matrix(5, 96, 5);
  const Mask mask = random_mask(5, 96, 5);
  const SparseMatrix sparse = SparseMatrix::encode(dense.mat(), mask.view(), SparseCoding::kValues, DType::kF16);
  const std::span<const std::byte> bytes = sparse.value_bytes();
  EXPECT_EQ(wrap_error(mask.view(), SparseCoding::kValues, DType::kF16, bytes.first(bytes.size() - 1)),
            ErrorCode::kCorrupt);
  EXPECT_EQ(wrap_error(mask.view(), SparseCoding::kValues, DType::kF16, {}), ErrorCode::kCorrupt);
  EXPECT_EQ(wrap_error(mask.view(), SparseCoding::kValues, DType::kF32, bytes), ErrorCode::kCorrupt);
  std::vector<std::byte> longer(bytes.begin(), bytes.end());
  longer.push_back(std::byte{0});
  EXPECT_EQ(wrap_error(mask.view(), SparseCoding::kValues, DType::kF16, longer), ErrorCode::kCorrupt);
}

TEST(SparseMatrix, SetPaddingBitsAreRejected) {
  const Tensor dense = random_matrix(3, 70, 6);
  Mask mask = random_mask(3, 70, 6);
  const SparseMatrix sparse = SparseMatrix::encode(dense.mat(), mask.view(), SparseCoding::kValues, DType::kF32);
  mask.words()[5] |= uint64_t{1} << 6;  // column 70 of the last row
  try {
    SparseMatrix::wrap(mask.view(), SparseCoding::kValues, DType::kF32, sparse.value_bytes(), nullptr);
    FAIL() << "wrapped";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorrupt);
    EXPECT_NE(std::string(error.what()).find("row 2"), std::string::npos) << error.what();
  }
  EXPECT_THROW(SparseMatrix::encode(dense.mat(), mask.view(), SparseCoding::kValues, DType::kF32), Error);
}

TEST(SparseMatrix, CodingsRejectTheTypesThatTheyLack) {
  EXPECT_THROW(sparse_row_bytes(SparseCoding::kValues, DType::kQ8_0, 64, 3), Error);
  EXPECT_THROW(sparse_row_bytes(SparseCoding::kQ4, DType::kF32, 64, 3), Error);
  EXPECT_THROW(sparse_row_bytes(SparseCoding::kQ4, DType::kQ4_0, 64, 3), Error);
  EXPECT_THROW(sparse_row_bytes(SparseCoding::kParent, DType::kF16, 64, 3), Error);
  EXPECT_THROW(sparse_row_bytes(SparseCoding::kParent, DType::kQ8_0, 65, 3), Error);
  const Mask mask(2, 64);
  EXPECT_EQ(wrap_error(mask.view(), SparseCoding::kValues, DType::kI64, {}), ErrorCode::kCorrupt);
}

TEST(SparseMatrix, EncodeAsksForTheParentOfAParentCoding) {
  const Tensor dense = matrix(2, 64);
  const Mask mask(2, 64);
  EXPECT_THROW(SparseMatrix::encode(dense.mat(), mask.view(), SparseCoding::kParent, DType::kQ8_0), std::logic_error);
  const Mask other(3, 64);
  EXPECT_THROW(SparseMatrix::encode(dense.mat(), other.view(), SparseCoding::kValues, DType::kF32), std::logic_error);
}

TEST(SparseMatrix, KeepsItsStorageAlive) {
  SparseMatrix copy;
  {
    const Tensor dense = random_matrix(3, 64, 7);
    const Mask mask = random_mask(3, 64, 7);
    const SparseMatrix original = SparseMatrix::encode(dense.mat(), mask.view(), SparseCoding::kValues, DType::kF32);
    copy = original;
    EXPECT_EQ(unpacked_row(copy, 1), unpacked_row(original, 1));
  }
  EXPECT_NE(unpacked_row(copy, 1), std::vector<float>(64, 0.0f));
}

TEST(SparseCoding, NamesAreFoundAgain) {
  for (SparseCoding coding : {SparseCoding::kValues, SparseCoding::kQ4, SparseCoding::kParent})
    EXPECT_EQ(find_sparse_coding(name(coding)), coding);
  EXPECT_EQ(find_sparse_coding("csr"), std::nullopt);
}

}  // namespace
}  // namespace brick::tensor
