// Each implementation of sparse_row.h that this CPU can run, against the scalar one.
#include "brick/kernels/sparse_row.h"

#include <gtest/gtest.h>

#include "brick/kernels/sparse_row_impl.h"
#include "brick/tensor/pack.h"
#include "kernels/test_util.h"

namespace brick::kernels {
namespace {

constexpr double kTolerance = 1e-6;  // of the sum of magnitudes: float32 sums in two orders

struct Row {
  int64_t cols;
  std::vector<uint64_t> mask;
  std::vector<float> packed, x;

  Row(int64_t n, double density) : cols(n), mask(static_cast<size_t>((n + 63) / 64)) {
    Rng rng(81, static_cast<uint64_t>(n));
    for (int64_t c = 0; c < n; ++c) {
      x.push_back(static_cast<float>(rng.normal()));
      if (rng.uniform() >= density) continue;
      mask[static_cast<size_t>(c / 64)] |= uint64_t{1} << (c % 64);
      packed.push_back(static_cast<float>(rng.normal()));
    }
    packed.resize(packed.size() + kPackedSlack, std::numeric_limits<float>::quiet_NaN());  // never to be used
  }
  double magnitude() const {
    double sum = 1;
    for (float v : x) sum += std::fabs(v);
    return sum;
  }
};

std::vector<uint16_t> bf16_of(const std::vector<float>& values) {
  std::vector<uint16_t> out;
  for (const float value : values) out.push_back(tensor::f32_to_bf16(value));
  return out;
}

TEST(SparseRow, AgreesWithTheScalarDefinition) {
  if (!has_avx2()) GTEST_SKIP() << "this CPU has no AVX2";
  const SparseRowKernels &simd = kSparseRowAvx2, &scalar = kSparseRowScalar;
  for (int64_t cols : {1, 7, 8, 15, 16, 17, 31, 32, 63, 64, 65, 96, 200, 576, 1536})
    for (double density : {0.0, 0.25, 0.5, 0.9, 1.0}) {
      const Row row(cols, density);
      const uint64_t* mask = row.mask.data();
      const float want = scalar.dot(mask, row.packed.data(), row.x.data(), cols);
      const float got = simd.dot(mask, row.packed.data(), row.x.data(), cols);
      expect_within("sparse_dot", std::fabs(got - want) / row.magnitude(), kTolerance);

      const std::vector<uint16_t> halves = bf16_of(row.packed);
      const float want_bf16 = scalar.dot_bf16(mask, halves.data(), row.x.data(), cols);
      for (const SparseRowKernels* kernels : {&simd, &kSparseRowAvx2Halves}) {
        const float got_bf16 = kernels->dot_bf16(mask, halves.data(), row.x.data(), cols);
        expect_within("sparse_dot bf16", std::fabs(got_bf16 - want_bf16) / row.magnitude(), kTolerance);
      }

      std::vector<float> expanded(static_cast<size_t>(cols) + 1, 5.0f), wanted(expanded);
      scalar.expand(mask, row.packed.data(), cols, wanted.data());
      simd.expand(mask, row.packed.data(), cols, expanded.data());
      EXPECT_EQ(expanded, wanted) << cols << " columns, density " << density;
    }
}

// As run_sparse_bf16() in few_rows.cc needs it: numbers must not depend on which rows a thread gets.
TEST(SparseRow, ARowOfAPairIsTheNumberThatItIsAlone) {
  std::vector<const SparseRowKernels*> all = {&kSparseRowScalar};
  if (has_avx2()) all.insert(all.end(), {&kSparseRowAvx2, &kSparseRowAvx2Halves});
  for (const SparseRowKernels* kernels : all)
    for (int64_t cols : {1, 7, 8, 17, 63, 64, 65, 72, 200, 576}) {
      const Row first(cols, 0.3), second(cols, 0.6);
      const std::vector<uint16_t> a = bf16_of(first.packed), b = bf16_of(second.packed);
      float pair[2], crossed[2];
      kernels->dot_bf16_pair({{first.mask.data(), a.data()}, {second.mask.data(), b.data()}}, first.x.data(), cols,
                             pair);
      EXPECT_EQ(pair[0], kernels->dot_bf16(first.mask.data(), a.data(), first.x.data(), cols)) << cols;
      EXPECT_EQ(pair[1], kernels->dot_bf16(second.mask.data(), b.data(), first.x.data(), cols)) << cols;
      kernels->dot_bf16_pair({{second.mask.data(), b.data()}, {first.mask.data(), a.data()}}, first.x.data(), cols,
                             crossed);
      EXPECT_EQ(pair[0], crossed[1]);
      EXPECT_EQ(pair[1], crossed[0]);
    }
}

std::vector<Row> some_rows(int64_t cols) {
  std::vector<Row> rows;
  for (double density : {0.0, 0.25, 0.5, 0.9, 1.0}) rows.emplace_back(cols, density);
  return rows;
}

// Blocks of Q4_1 with activations in int16: exact within a block, so only the rounding of x, half a step each, and
// float32 sums remain.
struct Q4Rows {
  std::vector<Row> rows;
  std::vector<std::vector<std::byte>> packed;
  std::vector<std::vector<float>> decoded;
  std::vector<float> memory;
  Int16Row x;

  explicit Q4Rows(int64_t cols) : rows(some_rows(cols)), memory(static_cast<size_t>((cols + 1) / 2)) {
    for (Row& row : rows) {
      std::vector<float> kept(row.packed.begin(), row.packed.end() - kPackedSlack);
      while (kept.size() % 32 != 0) kept.push_back(kept.back());
      packed.emplace_back(kept.size() / 32 * 20);
      tensor::pack(tensor::DType::kQ4_1, kept.data(), static_cast<int64_t>(kept.size()), packed.back().data());
      decoded.emplace_back(kept.size());
      tensor::unpack(tensor::DType::kQ4_1, packed.back().data(), static_cast<int64_t>(kept.size()),
                     decoded.back().data());
    }
    x = round_to_int16(rows[0].x.data(), cols, memory.data());
  }
  // Largest error of a row against the float32 activations in double, in units of the bound.
  double error(const SparseRowKernels& kernels, int64_t cols) const {
    std::vector<int16_t> buffer(static_cast<size_t>(packed_input_size(cols)));
    double worst = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      double want = 0, bound = 1e-6;
      size_t next = 0;
      tensor::for_each_kept(rows[i].mask.data(), cols, [&](int64_t c) {
        const double w = decoded[i][next++], value = rows[0].x[static_cast<size_t>(c)];
        want += w * value;
        bound += std::fabs(w) * (0.51 * x.scale + 4e-6 * std::fabs(value));
      });
      const float got = kernels.dot_q4_1(rows[i].mask.data(), packed[i].data(), x, cols, buffer.data());
      worst = std::max(worst, std::fabs(got - want) / bound);
    }
    return worst;
  }
};

TEST(SparseRow, FourBitRowsStayWithinTheRoundingOfTheirInput) {
  for (int64_t cols : {1, 7, 8, 31, 32, 63, 64, 65, 72, 130, 576, 1536}) {
    const Q4Rows rows(cols);
    expect_within("sparse_dots q4 scalar", rows.error(kSparseRowScalar, cols), 1.0);
    if (has_avx2()) expect_within("sparse_dots q4", rows.error(kSparseRowAvx2, cols), 1.0);
  }
}

TEST(SparseRow, NegativeControlAPerturbedNibbleOrMaskBitIsSeen) {
  if (!has_avx2()) GTEST_SKIP() << "this CPU has no AVX2";
  Q4Rows nibble(576), bit(576);
  nibble.packed[2][6] ^= std::byte{0x08};
  EXPECT_GT(nibble.error(kSparseRowAvx2, 576), 10);
  bit.rows[2].mask[3] &= bit.rows[2].mask[3] - 1;
  const Q4Rows right(576);
  std::vector<int16_t> buffer(static_cast<size_t>(packed_input_size(576)));
  const auto dot_of = [&](const Q4Rows& rows) {
    return kSparseRowAvx2.dot_q4_1(rows.rows[2].mask.data(), rows.packed[2].data(), rows.x, 576, buffer.data());
  };
  EXPECT_NE(dot_of(bit), dot_of(right));
}

TEST(SparseRow, Bf16AgreesWithTheScalarDefinition) {
  if (!has_sparse_dot_bf16()) GTEST_SKIP() << "this CPU has no AVX-512 with VBMI2 and BF16, or BRICK_ISA forbids it";
  for (int64_t cols : {1, 7, 16, 31, 32, 33, 63, 64, 65, 96, 200, 576})
    for (double density : {0.0, 0.25, 0.5, 0.9, 1.0}) {
      const Row row(cols, density);
      const std::vector<uint16_t> halves = bf16_of(row.packed), x = bf16_of(row.x);
      std::vector<float> rounded(row.x);
      for (size_t i = 0; i < rounded.size(); ++i) rounded[i] = tensor::bf16_to_f32(x[i]);
      const float want = kSparseRowScalar.dot_bf16(row.mask.data(), halves.data(), rounded.data(), cols);
      const float got = sparse_dot(row.mask.data(), halves.data(), x.data(), cols);
      expect_within("sparse_dot bf16 x", std::fabs(got - want) / row.magnitude(), kTolerance);
    }
}

TEST(SparseRow, UnpacksQ4AsBf16) {
  if (!has_sparse_dot_bf16()) GTEST_SKIP() << "this CPU has no AVX-512 with VBMI2 and BF16, or BRICK_ISA forbids it";
  constexpr int64_t kBlocks = 5, kValues = kBlocks * tensor::kQuantBlock;
  const Row row(kValues, 1.0);
  std::vector<std::byte> encoded(kBlocks * 20);
  tensor::pack(tensor::DType::kQ4_1, row.packed.data(), kValues, encoded.data());
  std::vector<float> want(kValues);
  tensor::unpack(tensor::DType::kQ4_1, encoded.data(), kValues, want.data());
  std::vector<uint16_t> got(kValues);
  unpack_q4_1_bf16(encoded.data(), kBlocks, got.data());
  for (int64_t i = 0; i < kValues; ++i)  // one unit in the last place: the multiplication and addition are fused
    EXPECT_NEAR(tensor::bf16_to_f32(got[i]), want[i], std::fabs(want[i]) * 0x1p-7) << i;
}

constexpr int64_t kParentRows = 5;

tensor::SparseMatrix parent_rows(tensor::DType dtype, int64_t cols, double density) {
  Rng rng(82, static_cast<uint64_t>(cols));
  tensor::Tensor dense = tensor::matrix(kParentRows, cols);
  tensor::Mask mask(kParentRows, cols);
  for (int64_t r = 0; r < kParentRows; ++r)
    for (int64_t c = 0; c < cols; ++c) {
      dense.mat()(r, c) = static_cast<float>(rng.normal());
      mask.set(r, c, rng.uniform() < density);
    }
  const tensor::Tensor parent = tensor::convert(dense.view(), dtype);
  const tensor::TensorView encoded = parent.view();
  return tensor::SparseMatrix::encode(dense.mat(), mask.view(), tensor::SparseCoding::kParent, dtype, &encoded);
}

template <class Visit>
void for_each_parent_matrix(Visit&& visit) {
  for (const tensor::DType dtype : {tensor::DType::kQ8_0, tensor::DType::kQ4_0, tensor::DType::kQ4_1})
    for (const int64_t cols : {32, 96, 576})
      for (const double density : {0.0, 0.1, 0.5, 1.0}) visit(parent_rows(dtype, cols, density));
}

TEST(SparseRow, UnpacksAParentsNumbersToTheBit) {
  if (!has_avx2()) GTEST_SKIP() << "this CPU has no AVX2";
  for_each_parent_matrix([](const tensor::SparseMatrix& matrix) {
    const tensor::SparseView view = matrix.view();
    for (int64_t r = 0; r < kParentRows; ++r) {
      const auto kept = static_cast<size_t>(view.mask.count_row(r));
      std::vector<float> want(kept + kPackedSlack), got(want);
      kSparseRowScalar.unpack_parent(view, r, want.data());
      kSparseRowAvx2.unpack_parent(view, r, got.data());
      want.resize(kept);
      got.resize(kept);
      EXPECT_EQ(got, want) << tensor::info(view.dtype).name << ", " << view.cols() << " columns";
    }
  });
}

// The largest error of a row's product with rounded activations against the numbers of `truth`, in units of the bound:
// half a step of each activation and float32 sums.
double parent_error(const SparseRowKernels& kernels, const tensor::SparseMatrix& matrix,
                    const tensor::SparseMatrix& truth) {
  const int64_t cols = matrix.view().cols();
  const Row input(cols, 1.0);
  std::vector<float> memory(static_cast<size_t>((cols + 1) / 2));
  const Int16Row x = round_to_int16(input.x.data(), cols, memory.data());
  std::vector<int16_t> scratch(static_cast<size_t>(packed_input_size(cols)));
  double worst = 0;
  for (int64_t r = 0; r < kParentRows; ++r) {
    double want = 0, bound = 1e-6;
    tensor::for_each_parent_value(truth.view(), r, [&](int64_t c, float w) {
      const double value = input.x[static_cast<size_t>(c)];
      want += double{w} * value;
      bound += std::fabs(w) * (0.51 * x.scale + 4e-6 * std::fabs(value));
    });
    worst = std::max(worst, std::fabs(kernels.dot_parent(matrix.view(), r, x, scratch.data()) - want) / bound);
  }
  return worst;
}

TEST(SparseRow, AParentsRowsStayWithinTheRoundingOfTheirInput) {
  for_each_parent_matrix([](const tensor::SparseMatrix& matrix) {
    expect_within("sparse_dot parent scalar", parent_error(kSparseRowScalar, matrix, matrix), 1.0);
    if (has_avx2()) expect_within("sparse_dot parent", parent_error(kSparseRowAvx2, matrix, matrix), 1.0);
  });
}

TEST(SparseRow, NegativeControlAnotherMaskIsSeen) {
  for (const tensor::DType dtype : {tensor::DType::kQ8_0, tensor::DType::kQ4_0, tensor::DType::kQ4_1})
    for (const SparseRowKernels* kernels : {&kSparseRowScalar, has_avx2() ? &kSparseRowAvx2 : &kSparseRowScalar})
      EXPECT_GT(parent_error(*kernels, parent_rows(dtype, 576, 0.5), parent_rows(dtype, 576, 0.51)), 10);
}

TEST(SparseRow, NegativeControlAFlippedBitIsSeen) {
  Row row(64, 0.5);
  const float want = sparse_dot(row.mask.data(), row.packed.data(), row.x.data(), 64);
  row.mask[0] ^= 3;
  EXPECT_GT(std::fabs(sparse_dot(row.mask.data(), row.packed.data(), row.x.data(), 64) - want) / row.magnitude(),
            10 * kTolerance);
}

}  // namespace
}  // namespace brick::kernels
