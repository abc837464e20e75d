#include "brick/kernels/kernel_table.h"

#include <gtest/gtest.h>

#include "brick/kernels/sparse_product.h"

namespace brick::kernels {
namespace {

class KernelTableTest : public ::testing::Test {
 protected:
  void TearDown() override { use_kernel_table(builtin_kernel_table()); }
  // Four weights, of which so many are kept.
  static tensor::Mask mask(int64_t kept) {
    tensor::Mask out(2, 2);
    for (int64_t i = 0; i < kept; ++i) out.set(i / 2, i % 2, true);
    return out;
  }
};

TEST_F(KernelTableTest, ChoosesByShareTokensAndArithmetic) {
  if (!has_sparse_product()) GTEST_SKIP() << "this CPU has no AVX2, or BRICK_ISA forbids it";
  KernelTable table;
  table.f32[1] = {0.5, 0.25};
  table.f32[2] = {0.75, 0.5};
  use_kernel_table(table);
  EXPECT_FALSE(sparse_product_wins(mask(1).view(), 31, Compute::kF32));
  EXPECT_TRUE(sparse_product_wins(mask(2).view(), 32, Compute::kF32));
  EXPECT_FALSE(sparse_product_wins(mask(3).view(), 127, Compute::kF32));
  EXPECT_TRUE(sparse_product_wins(mask(3).view(), 128, Compute::kF32));
  EXPECT_FALSE(sparse_product_wins(mask(1).view(), 128, Compute::kBf16));
  EXPECT_FALSE(sampled_product_wins(mask(2).view(), 32, Compute::kF32));
  EXPECT_TRUE(sampled_product_wins(mask(2).view(), 128, Compute::kF32));
}

TEST_F(KernelTableTest, AZeroIsNeverEvenWhereNothingIsKept) {
  use_kernel_table({});
  EXPECT_FALSE(sparse_product_wins(mask(0).view(), 512, Compute::kF32));
  EXPECT_FALSE(sampled_product_wins(mask(0).view(), 512, Compute::kF32));
}

TEST_F(KernelTableTest, NothingIsChosenThatTheMachineLacks) {
  KernelTable table;
  table.f32.fill({1, 1});
  use_kernel_table(table);
  EXPECT_EQ(sparse_product_wins(mask(1).view(), 512, Compute::kF32), has_sparse_product());
}

}  // namespace
}  // namespace brick::kernels
