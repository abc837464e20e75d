#include "brick/tensor/matrix.h"

#include <gtest/gtest.h>

#include "brick/base/error.h"
#include "brick/base/rng.h"
#include "brick/tensor/pack.h"

namespace brick::tensor {
namespace {

Tensor random_matrix(int64_t rows, int64_t cols) {
  Tensor out = matrix(rows, cols);
  Rng rng(41);
  for (int64_t i = 0; i < rows * cols; ++i) out.f32()[i] = static_cast<float>(rng.normal());
  return out;
}

ErrorCode dense_error(const TensorView& view) {
  try {
    Matrix::dense(view, nullptr);
  } catch (const Error& error) {
    return error.code();
  }
  ADD_FAILURE() << "made a matrix";
  return ErrorCode::kIo;
}

TEST(Matrix, EmptyOnesHaveNoSize) {
  const Matrix none;
  EXPECT_TRUE(none.empty());
  EXPECT_EQ(none.rows(), 0);
  EXPECT_EQ(none.cols(), 0);
  EXPECT_EQ(none.bytes(), 0);
}

TEST(Matrix, DenseOnesDecodeInEveryFormat) {
  const Tensor values = random_matrix(5, 64);
  for (DType dtype : {DType::kF32, DType::kF16, DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_1}) {
    const Tensor expected = to_f32(convert(values.view(), dtype).view());
    const Matrix weight = Matrix::dense(convert(values.view(), dtype));
    EXPECT_FALSE(weight.is_sparse());
    EXPECT_EQ(weight.rows(), 5);
    EXPECT_EQ(weight.cols(), 64);
    EXPECT_EQ(weight.dtype(), dtype);
    EXPECT_EQ(weight.nonzeros(), 5 * 64);
    EXPECT_EQ(weight.bytes(), 5 * row_bytes(dtype, 64));
    const Tensor decoded = weight.to_f32();
    for (int64_t i = 0; i < 5 * 64; ++i) ASSERT_EQ(decoded.f32()[i], expected.f32()[i]) << name(dtype);
    std::vector<float> rows(2 * 70, -1.0f);  // rows 1 and 2, 70 floats apart
    weight.unpack_rows(1, 3, rows.data(), 70);
    EXPECT_EQ(rows[0], expected.mat()(1, 0));
    EXPECT_EQ(rows[70 + 63], expected.mat()(2, 63));
    EXPECT_EQ(rows[64], -1.0f);
  }
}

TEST(Matrix, SparseOnesDecodeWithZeros) {
  const Tensor values = random_matrix(4, 70);
  Mask mask(4, 70);
  for (int64_t c = 0; c < 70; c += 3) mask.set(2, c, true);
  const Matrix weight =
      Matrix::sparse(SparseMatrix::encode(values.mat(), mask.view(), SparseCoding::kValues, DType::kF32));
  EXPECT_TRUE(weight.is_sparse());
  EXPECT_EQ(weight.rows(), 4);
  EXPECT_EQ(weight.cols(), 70);
  EXPECT_EQ(weight.nonzeros(), 24);
  EXPECT_EQ(weight.bytes(), 24 * 4 + 4 * 2 * 8);
  EXPECT_EQ(weight.dtype(), DType::kF32);
  const Tensor decoded = weight.to_f32();
  for (int64_t r = 0; r < 4; ++r)
    for (int64_t c = 0; c < 70; ++c) EXPECT_EQ(decoded.mat()(r, c), mask.kept(r, c) ? values.mat()(r, c) : 0.0f);
}

TEST(Matrix, CopiesShareTheBytesAndKeepThem) {
  Matrix copy;
  const std::byte* address = nullptr;
  {
    const Matrix original = Matrix::dense(random_matrix(2, 3));
    address = original.dense_view().data;
    copy = original;
  }
  EXPECT_EQ(copy.dense_view().data, address);
  EXPECT_EQ(copy.to_f32().f32()[5], random_matrix(2, 3).f32()[5]);
  EXPECT_EQ(copy.tensor_view().bytes.size(), 24u);
}

TEST(Matrix, RejectsWhatIsNoMatrix) {
  const Tensor flat(DType::kF32, {8}), cube(DType::kF32, {2, 2, 2}), integers(DType::kI32, {2, 2}), good = matrix(2, 4);
  EXPECT_EQ(dense_error(flat.view()), ErrorCode::kCorrupt);
  EXPECT_EQ(dense_error(cube.view()), ErrorCode::kCorrupt);
  EXPECT_EQ(dense_error(integers.view()), ErrorCode::kUnsupported);
  EXPECT_EQ(dense_error({DType::kF32, {2, 4}, good.bytes().first(31)}), ErrorCode::kCorrupt);
  EXPECT_EQ(dense_error({DType::kF32, {2, 3}, good.bytes()}), ErrorCode::kCorrupt);
  EXPECT_EQ(dense_error({DType::kQ8_0, {1, 33}, good.bytes()}), ErrorCode::kCorrupt);
  EXPECT_EQ(dense_error({DType::kF32, {int64_t{1} << 40, int64_t{1} << 40}, good.bytes()}), ErrorCode::kCorrupt);
}

}  // namespace
}  // namespace brick::tensor
