#include "brick/kernels/rows.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

namespace brick::kernels {
namespace {

// Two rows of three values, four apart: what lies between the rows stays.
TEST(Rows, CopiesWhatStridesApart) {
  const std::array<float, 8> from{1, 2, 3, -1, 4, 5, 6, -1};
  std::array<float, 10> to{};
  copy_rows({from.data(), 2, 3, 4}, {to.data(), 2, 3, 5});
  EXPECT_EQ(to, (std::array<float, 10>{1, 2, 3, 0, 0, 4, 5, 6, 0, 0}));
}

TEST(Rows, AddsABiasToEachRowAndAnEmptyOneToNone) {
  std::array<float, 8> y{1, 2, 3, 9, 4, 5, 6, 9};
  const tensor::MatView view(y.data(), 2, 3, 4);
  add_bias(std::vector<float>{10, 20, 30}, view);
  EXPECT_EQ(y, (std::array<float, 8>{11, 22, 33, 9, 14, 25, 36, 9}));
  add_bias({}, view);
  EXPECT_EQ(y, (std::array<float, 8>{11, 22, 33, 9, 14, 25, 36, 9}));
}

}  // namespace
}  // namespace brick::kernels
