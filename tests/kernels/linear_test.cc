#include "brick/kernels/linear.h"

#include <gtest/gtest.h>

#include <functional>

#include "brick/base/cpu.h"
#include "brick/tensor/pack.h"
#include "kernels/bf16_util.h"
#include "kernels/reference.h"
#include "kernels/test_util.h"

namespace brick::kernels {
namespace {

using tensor::DType;
using tensor::Matrix;
using tensor::SparseCoding;
using tensor::Tensor;

// float32 sums of at most 4096 products, compared with the double sum over the same decoded weights.
constexpr double kTolerance = 3e-6;
// Both operands rounded to 8 significand bits, 2^-9 each, relative to the sum of the products' magnitudes;
// the remaining part covers the product of the two roundings and the float32 sum.
constexpr double kBf16Bound = 0x1p-8 + 0x1p-14;

Tensor random_weight(int64_t rows, int64_t cols) {
  Tensor out = tensor::matrix(rows, cols);
  Rng rng(54, static_cast<uint64_t>(cols));
  for (int64_t i = 0; i < rows * cols; ++i) out.f32()[i] = static_cast<float>(rng.next_u32()) * 0x1p-30f - 2.0f;
  return out;
}

// A way to hold a weight.
struct Form {
  std::string label;
  bool sparse = false;
  DType dtype = DType::kF32;
  SparseCoding coding = SparseCoding::kValues;

  bool has_blocks() const { return is_quantised(dtype) && !(sparse && coding == SparseCoding::kQ4); }

  Matrix make(const Tensor& values) const {
    const int64_t rows = values.mat().rows, cols = values.mat().cols;
    if (!sparse) return Matrix::dense(tensor::convert(values.view(), dtype));
    tensor::Mask mask(rows, cols);
    Rng rng(55);
    for (int64_t r = 0; r < rows; ++r)  // row 1 empty, row 2 full, else half
      for (int64_t c = 0; c < cols; ++c) mask.set(r, c, r != 1 && (r == 2 || rng.below(2) == 1));
    if (coding != SparseCoding::kParent)
      return Matrix::sparse(tensor::SparseMatrix::encode(values.mat(), mask.view(), coding, dtype));
    const Tensor parent = tensor::convert(values.view(), dtype);
    const tensor::TensorView view = parent.view();
    return Matrix::sparse(tensor::SparseMatrix::encode(values.mat(), mask.view(), coding, dtype, &view));
  }
};

std::ostream& operator<<(std::ostream& out, const Form& form) { return out << form.label; }
std::string label(const ::testing::TestParamInfo<Form>& info) { return info.param.label; }

std::vector<Form> all_forms() {
  return {{"F32", false, DType::kF32},
          {"F16", false, DType::kF16},
          {"Bf16", false, DType::kBF16},
          {"Q8_0", false, DType::kQ8_0},
          {"Q4_0", false, DType::kQ4_0},
          {"Q4_1", false, DType::kQ4_1},
          {"Q5_0", false, DType::kQ5_0},
          {"Q5_1", false, DType::kQ5_1},
          {"SparseF32", true, DType::kF32},
          {"SparseF16", true, DType::kF16},
          {"SparseBf16", true, DType::kBF16},
          {"SparseQ4", true, DType::kQ4_1, SparseCoding::kQ4},
          {"SparseParentQ8_0", true, DType::kQ8_0, SparseCoding::kParent},
          {"SparseParentQ4_0", true, DType::kQ4_0, SparseCoding::kParent},
          {"SparseParentQ4_1", true, DType::kQ4_1, SparseCoding::kParent}};
}

ref::Array<double> exact(const Matrix& weight) {
  const Tensor decoded = weight.to_f32();  // the scalar definition; tests/tensor checks it
  ref::Array<double> out(weight.rows(), weight.cols());
  std::copy_n(decoded.f32(), decoded.size(), out.values.begin());
  return out;
}

ref::Array<double> sum(ref::Array<double> a, const ref::Array<double>& b) {
  for (size_t i = 0; i < a.values.size(); ++i) a.values[i] += b.values[i];
  return a;
}

Grid forward(const Matrix& weight, const Grid& x, const Grid& start, float beta, Compute compute = Compute::kF32) {
  Context context(compute);
  Grid y = start;
  linear(context, weight, x.view(), beta, y.view());
  return y;
}
Grid backward(const Matrix& weight, const Grid& dy, const Grid& start, float beta, Compute compute = Compute::kF32) {
  Context context(compute);
  Grid dx = start;
  linear_backward(context, weight, dy.view(), beta, dx.view());
  return dx;
}

// Both directions with beta 0 (over NaN) and 1.
void expect_both_match(const std::string& what, const Matrix& weight, int64_t tokens) {
  const ref::Array<double> w = exact(weight);
  const Grid x = Grid::random(tokens, weight.cols(), 1), dy = Grid::random(tokens, weight.rows(), 2);
  const Grid old_y = Grid::random(tokens, weight.rows(), 3), old_dx = Grid::random(tokens, weight.cols(), 4);
  const ref::Array<double> y = ref::linear(x.exact(), w), dx = ref::linear_backward(dy.exact(), w);
  const Grid blank_y(tokens, weight.rows()), blank_dx(tokens, weight.cols());
  expect_within(what, worst_error(forward(weight, x, blank_y, 0.0f), y), kTolerance);
  expect_within(what, worst_error(forward(weight, x, old_y, 1.0f), sum(y, old_y.exact())), kTolerance);
  expect_within(what + " backward", worst_error(backward(weight, dy, blank_dx, 0.0f), dx), kTolerance);
  expect_within(what + " backward", worst_error(backward(weight, dy, old_dx, 1.0f), sum(dx, old_dx.exact())),
                kTolerance);
}

class LinearForms : public ::testing::TestWithParam<Form> {};

// 1 to 4 rows take the fused path, more go through the product of matrices.
TEST_P(LinearForms, BothDirectionsMatchDoubleReference) {
  for (int64_t tokens : {1, 3, 4, 5, 33})
    for (auto [rows, cols] : {std::pair<int64_t, int64_t>{24, 64}, {37, 96}, {3, 160}, {19, 67}, {130, 1}}) {
      if (GetParam().has_blocks() && cols % 32 != 0) continue;
      expect_both_match("linear", GetParam().make(random_weight(rows, cols)), tokens);
    }
}

TEST(LinearSuperBlocks, BothDirectionsMatchDoubleReference) {
  for (DType dtype : {DType::kQ4_K, DType::kQ5_K, DType::kQ6_K})
    for (int64_t tokens : {1, 5})
      expect_both_match("linear " + std::string(tensor::name(dtype)),
                        Matrix::dense(tensor::convert(random_weight(19, 512).view(), dtype)), tokens);
}

TEST_P(LinearForms, FewRowsAgreeWithTheProductOfMatrices) {
  const Matrix weight = GetParam().make(random_weight(37, 160));
  const Grid five = Grid::random(5, 160, 1);
  Grid four(4, 160);
  for (int64_t t = 0; t < 4; ++t) std::copy_n(five.view().row(t), 160, four.view().row(t));
  const Grid fused = forward(weight, four, Grid(4, 37), 0.0f), product = forward(weight, five, Grid(5, 37), 0.0f);
  ref::Array<double> want(4, 37);
  for (int64_t t = 0; t < 4; ++t)
    for (int64_t o = 0; o < 37; ++o) want(t, o) = product(t, o);
  expect_within("linear: few rows against gemm", worst_error(fused, want), kTolerance);
}

// Half a step of int8 in a block's largest |x|, and a little for float32.
constexpr double kRoundedBound = 0.51 / 127;

// Only where there are integer kernels may the product differ, within the rounding of x; that it does proves they ran.
void expect_rounded(const Matrix& weight, bool has_integer_kernel) {
  const int64_t rows = weight.rows(), cols = weight.cols();
  const Grid x = Grid::random(3, cols, 1);
  Context context;
  context.set_rounds_activations(true);
  Grid rounded(3, rows);
  linear(context, weight, x.view(), 0.0f, rounded.view());
  const Grid plain = forward(weight, x, Grid(3, rows), 0.0f);
  EXPECT_EQ(rounded.memory() != plain.memory(), active_isa() >= Isa::kAvx2 && has_integer_kernel);
  const ref::Array<double> w = exact(weight);
  for (int64_t t = 0; t < 3; ++t)
    for (int64_t o = 0; o < rows; ++o) {
      double magnitude = 0, largest = 0;
      for (int64_t i = 0; i < cols; ++i) {
        magnitude += std::fabs(w(o, i));
        largest = std::max(largest, std::fabs(double{x(t, i)}));
      }
      EXPECT_LE(std::fabs(double{rounded(t, o)} - plain(t, o)), kRoundedBound * largest * magnitude + 1e-30);
    }
}

TEST_P(LinearForms, RoundedActivationsStayWithinTheirBound) {
  const Form& form = GetParam();
  expect_rounded(form.make(random_weight(37, 160)),
                 form.sparse ? form.coding != SparseCoding::kValues : is_quantised(form.dtype));
}

TEST(LinearSuperBlocks, RoundedActivationsStayWithinTheirBound) {
  for (DType dtype : {DType::kQ4_K, DType::kQ5_K, DType::kQ6_K})
    expect_rounded(Matrix::dense(tensor::convert(random_weight(37, 512).view(), dtype)), true);
}

TEST_P(LinearForms, SeveralWeightsOfOneInputEqualEachAlone) {
  const Matrix first = GetParam().make(random_weight(24, 96)), second = GetParam().make(random_weight(5, 96));
  for (int64_t tokens : {1, 4, 9}) {
    const Grid x = Grid::random(tokens, 96, 1);
    Grid a(tokens, 24), b = Grid::random(tokens, 5, 2);
    const Grid old_b = b;
    const Product products[] = {{&first, 0.0f, a.view()}, {&second, 1.0f, b.view()}};
    Context context;
    linear(context, products, x.view());
    EXPECT_EQ(a.memory(), forward(first, x, Grid(tokens, 24), 0.0f).memory());
    EXPECT_EQ(b.memory(), forward(second, x, old_b, 1.0f).memory());
  }
}

TEST_P(LinearForms, ExpandRowsEqualsTheScalarDefinition) {
  const Matrix weight = GetParam().make(random_weight(40, 96));
  const Tensor want = weight.to_f32();
  std::vector<float> got(30 * 96);
  expand_rows(weight, 7, 37, got.data());
  for (int64_t i = 0; i < 30 * 96; ++i) ASSERT_EQ(got[static_cast<size_t>(i)], want.f32()[7 * 96 + i]) << i;
}

TEST_P(LinearForms, NegativeControlAPerturbedWeightIsSeen) {
  Tensor values = random_weight(24, 64);
  const ref::Array<double> w = exact(GetParam().make(values));
  values.mat()(2, 33) += 1.0f;  // row 2 is kept by the sparse forms
  const Matrix wrong = GetParam().make(values);
  for (int64_t tokens : {3, 6}) {
    const Grid x = Grid::random(tokens, 64, 1), dy = Grid::random(tokens, 24, 2);
    EXPECT_GT(worst_error(forward(wrong, x, Grid(tokens, 24), 0.0f), ref::linear(x.exact(), w)), 10 * kTolerance);
    EXPECT_GT(worst_error(backward(wrong, dy, Grid(tokens, 64), 0.0f), ref::linear_backward(dy.exact(), w)),
              10 * kTolerance);
  }
}

INSTANTIATE_TEST_SUITE_P(AllForms, LinearForms, ::testing::ValuesIn(all_forms()), label);

class LinearPieces : public ::testing::TestWithParam<Form> {};

TEST_P(LinearPieces, WeightsLargerThanAPieceMatchDoubleReference) {
  const Matrix weight = GetParam().make(random_weight(1100, 4096));
  ASSERT_LT(2 * rows_a_piece(weight), weight.rows());  // two whole pieces and a rest
  expect_both_match("linear in pieces", weight, 5);
}

INSTANTIATE_TEST_SUITE_P(SomeForms, LinearPieces,
                         ::testing::Values(all_forms()[0], all_forms()[2], all_forms()[4], all_forms()[10]), label);

TEST(Linear, BackwardReferenceMatchesComplexStep) {
  const Grid x = Grid::random(3, 20, 1), dy = Grid::random(3, 11, 2), w = Grid::random(11, 20, 3);
  const ref::Array<double> stepped = ref::gradient(
      x.exact(), [&](const ref::Array<ref::Complex>& z) { return ref::inner(dy.exact(), ref::linear(z, w.exact())); });
  const ref::Array<double> product = ref::linear_backward(dy.exact(), w.exact());
  for (size_t i = 0; i < stepped.values.size(); ++i) EXPECT_NEAR(stepped.values[i], product.values[i], 1e-13);
}

TEST(Linear, PiecesAreBetweenOneRowAndAllOfThem) {
  EXPECT_EQ(rows_a_piece(Matrix::dense(tensor::matrix(10, 64))), 10);
  EXPECT_EQ(rows_a_piece(Matrix::dense(tensor::matrix(5, 3 << 20))), 1);
  EXPECT_EQ(rows_a_piece(Matrix::dense(tensor::matrix(1100, 4096))), 512);
  EXPECT_GE(rows_a_piece(Matrix::dense(tensor::matrix(0, 64))), 1);
  EXPECT_GE(rows_a_piece(Matrix::dense(tensor::matrix(4, 0))), 1);
}

// What a layer is whose feed-forward was removed: no products, so zeros.
TEST(Linear, WeightsWithoutRowsOrColumnsGiveZeros) {
  for (int64_t tokens : {2, 6}) {
    expect_both_match("linear of an empty weight", Matrix::dense(tensor::matrix(7, 0)), tokens);
    expect_both_match("linear of an empty weight", Matrix::dense(tensor::matrix(0, 7)), tokens);
  }
}

// As calibration leaves out a product whose result nobody reads.
TEST(Linear, AWeightWithoutRowsLeavesTheOutputAlone) {
  const Matrix none = Matrix::dense(tensor::matrix(0, 7));
  for (const Compute compute : {Compute::kF32, Compute::kBf16}) {
    if (compute == Compute::kBf16 && !has_bf16_arithmetic()) continue;
    Context context(compute);
    const Grid x = Grid::random(40, 7, 1);
    Grid y = Grid::random(40, 70, 2);
    const std::vector<float> before = y.memory();
    linear(context, none, x.view(), 1.0f, y.view());
    EXPECT_EQ(y.memory(), before);
  }
}

TEST(Linear, NoTokensAreNoWork) {
  const Matrix weight = Matrix::dense(random_weight(7, 9));
  EXPECT_TRUE(forward(weight, Grid(0, 9), Grid(0, 7), 0.0f).gaps_intact());
  EXPECT_TRUE(backward(weight, Grid(0, 7), Grid(0, 9), 0.0f).gaps_intact());
}

// |error| <= kBf16Bound * sum_i |x_i| |w_i|, value by value; returns the worst share of the bound.
double share_of_bound(const Grid& got, const ref::Array<double>& want, const ref::Array<double>& magnitudes) {
  double worst = got.gaps_intact() ? 0.0 : std::numeric_limits<double>::infinity();
  for (int64_t r = 0; r < want.rows; ++r)
    for (int64_t c = 0; c < want.cols; ++c) {
      if (!std::isfinite(got(r, c))) return std::numeric_limits<double>::infinity();
      worst = std::max(worst, std::fabs(got(r, c) - want(r, c)) / (kBf16Bound * magnitudes(r, c) + 1e-12));
    }
  return worst;
}

ref::Array<double> magnitude(ref::Array<double> a) {
  for (double& x : a.values) x = std::fabs(x);
  return a;
}
ref::Array<double> rounded(ref::Array<double> a) {
  for (double& x : a.values) x = tensor::bf16_to_f32(tensor::f32_to_bf16(static_cast<float>(x)));
  return a;
}

class LinearBf16 : public ::testing::TestWithParam<Form> {
 protected:
  void SetUp() override {
    if (!has_bf16_arithmetic()) GTEST_SKIP() << name(active_isa()) << " has no bfloat16 arithmetic";
  }
};

TEST_P(LinearBf16, StaysWithinTheBoundAndMatchesTheRoundedOperands) {
  for (auto [rows, cols, tokens] : {std::array<int64_t, 3>{37, 96, 5}, {130, 160, 33}, {1100, 4096, 5}}) {
    const Matrix weight = GetParam().make(random_weight(rows, cols));
    const ref::Array<double> w = exact(weight), w16 = rounded(w);
    const Grid x = Grid::random(tokens, cols, 1), dy = Grid::random(tokens, rows, 2);
    const Grid y = forward(weight, x, Grid(tokens, rows), 0.0f, Compute::kBf16);
    const Grid dx = backward(weight, dy, Grid(tokens, cols), 0.0f, Compute::kBf16);
    expect_within("linear bf16, share of the bound",
                  share_of_bound(y, ref::linear(x.exact(), w), ref::linear(magnitude(x.exact()), magnitude(w))), 1.0);
    expect_within("linear bf16 backward, share of the bound",
                  share_of_bound(dx, ref::linear_backward(dy.exact(), w),
                                 ref::linear_backward(magnitude(dy.exact()), magnitude(w))),
                  1.0);
    const ref::Array<double> y16 = ref::linear(rounded(x.exact()), w16);
    const ref::Array<double> dx16 = ref::linear_backward(rounded(dy.exact()), w16);
    expect_within("linear bf16 of rounded operands", worst_error(y, y16), kTolerance);
    expect_within("linear bf16 backward of rounded operands", worst_error(dx, dx16), kTolerance);
    const Grid old_y = Grid::random(tokens, rows, 3), old_dx = Grid::random(tokens, cols, 4);
    expect_within("linear bf16 of rounded operands",
                  worst_error(forward(weight, x, old_y, 1.0f, Compute::kBf16), sum(y16, old_y.exact())), kTolerance);
    expect_within("linear bf16 backward of rounded operands",
                  worst_error(backward(weight, dy, old_dx, 1.0f, Compute::kBf16), sum(dx16, old_dx.exact())),
                  kTolerance);
  }
}

TEST_P(LinearBf16, NegativeControlAPerturbedWeightIsSeen) {
  Tensor values = random_weight(24, 64);
  const ref::Array<double> w = exact(GetParam().make(values));
  values.mat()(2, 33) += 3.0f;
  const Matrix wrong = GetParam().make(values);
  const Grid x = Grid::random(6, 64, 1);
  EXPECT_GT(share_of_bound(forward(wrong, x, Grid(6, 24), 0.0f, Compute::kBf16), ref::linear(x.exact(), w),
                           ref::linear(magnitude(x.exact()), magnitude(w))),
            1.0);
}

INSTANTIATE_TEST_SUITE_P(SomeForms, LinearBf16,
                         ::testing::Values(all_forms()[0], all_forms()[2], all_forms()[3], all_forms()[9]), label);

TEST(LinearBf16Edges, EmptyWeightsGiveZeros) {
  if (!has_bf16_arithmetic()) GTEST_SKIP() << name(active_isa()) << " has no bfloat16 arithmetic";
  const Matrix flat = Matrix::dense(tensor::matrix(7, 0)), narrow = Matrix::dense(tensor::matrix(0, 7));
  const ref::Array<double> zeros(6, 7);
  EXPECT_EQ(worst_error(forward(flat, Grid(6, 0), Grid(6, 7), 0.0f, Compute::kBf16), zeros), 0.0);
  EXPECT_EQ(worst_error(backward(narrow, Grid(6, 0), Grid(6, 7), 0.0f, Compute::kBf16), zeros), 0.0);
}

// dW = dy^T x over T tokens, in bfloat16 of operands that are rounded beforehand.
struct GradientCase {
  Grid dy, x;

  GradientCase(int64_t tokens, int64_t out, int64_t in)
      : dy(kernels::rounded(Grid::random(tokens, out, 1))), x(kernels::rounded(Grid::random(tokens, in, 2))) {}
  Grid run(Compute compute) const {
    Context context(compute);
    Grid dw(dy.cols(), x.cols());
    weight_gradient(context, dy.view(), x.view(), dw.view());
    return dw;
  }
  ref::Array<double> want() const {
    ref::Array<double> out(dy.cols(), x.cols());
    for (int64_t t = 0; t < dy.rows(); ++t)
      for (int64_t r = 0; r < dy.cols(); ++r)
        for (int64_t c = 0; c < x.cols(); ++c) out(r, c) += double{dy(t, r)} * x(t, c);
    return out;
  }
};

TEST(WeightGradient, MatchesDoubleReferenceInEachArithmetic) {
  for (const Compute compute : {Compute::kF32, Compute::kBf16}) {
    if (compute == Compute::kBf16 && !has_bf16_arithmetic()) continue;
    for (const auto& [tokens, out, in] :
         {std::array<int64_t, 3>{1, 1, 1}, {5, 33, 17}, {6, 7, 64}, {67, 65, 130}, {300, 9, 31}, {0, 3, 5}}) {
      const GradientCase c(tokens, out, in);
      expect_within("weight_gradient", worst_error(c.run(compute), c.want()), kTolerance);
    }
    GradientCase wrong(67, 65, 130);
    const ref::Array<double> want = wrong.want();
    wrong.x(66, 129) += 0.5f;
    EXPECT_GT(worst_error(wrong.run(compute), want), 10 * kTolerance);
  }
}

}  // namespace
}  // namespace brick::kernels
