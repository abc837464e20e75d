#include "brick/kernels/thin_product.h"

#include <gtest/gtest.h>

#include "kernels/test_util.h"

namespace brick::kernels {
namespace {

constexpr double kTolerance = 1e-5;  // float32 sums of up to 700 products
constexpr float kScale = 1.5f;

struct Case {
  int64_t tokens, width, rank;
};

// Counts below, at and above what the kernels take at a time.
class ThinProduct : public ::testing::TestWithParam<Case> {
 protected:
  int64_t thin = thin_width(GetParam().rank);
  Grid x = Grid::random(GetParam().tokens, GetParam().width, 1);
};

TEST_P(ThinProduct, MatchesDoubleReference) {
  const Grid b = Grid::random(x.cols(), thin, 2);
  Grid out(x.rows(), thin);
  thin_product(kScale, x.view(), b.view(), out.view());
  ref::Array<double> want(x.rows(), thin);
  for (int64_t t = 0; t < x.rows(); ++t)
    for (int64_t r = 0; r < thin; ++r)
      for (int64_t i = 0; i < x.cols(); ++i) want(t, r) += double{kScale} * x(t, i) * b(i, r);
  expect_within("thin_product", worst_error(out, want), kTolerance);
}

TEST_P(ThinProduct, OuterProductAddsToDoubleReference) {
  const Grid h = Grid::random(x.rows(), thin, 3);
  Grid out = Grid::random(thin, x.cols(), 4);
  ref::Array<double> want = out.exact();
  for (int64_t t = 0; t < x.rows(); ++t)
    for (int64_t r = 0; r < thin; ++r)
      for (int64_t i = 0; i < x.cols(); ++i) want(r, i) += double{h(t, r)} * x(t, i);
  thin_outer_product(h.view(), x.view(), out.view());
  expect_within("thin_outer_product", worst_error(out, want), kTolerance);
}

INSTANTIATE_TEST_SUITE_P(Shapes, ThinProduct,
                         ::testing::Values(Case{1, 1, 1}, Case{7, 5, 3}, Case{8, 16, 8}, Case{13, 33, 9},
                                           Case{70, 700, 16}));

TEST(ThinProduct, WidthIsTheNextMultiple) {
  EXPECT_EQ(thin_width(1), 8);
  EXPECT_EQ(thin_width(8), 8);
  EXPECT_EQ(thin_width(9), 16);
}

}  // namespace
}  // namespace brick::kernels
