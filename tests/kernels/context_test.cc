#include "brick/kernels/context.h"

#include <gtest/gtest.h>

#include "brick/base/cpu.h"
#include "brick/base/error.h"

namespace brick::kernels {
namespace {

TEST(Context, ScratchGrowsAndIsThenReused) {
  Context context;
  float* first = context.scratch(Context::kInput, 100);
  first[99] = 5.0f;
  EXPECT_EQ(context.scratch(Context::kInput, 50), first);
  float* other = context.scratch(Context::kWeights, 100);
  EXPECT_NE(other, first);
  float* larger = context.scratch(Context::kInput, 100'000);
  larger[99'999] = 1.0f;
  EXPECT_EQ(context.scratch(Context::kInput, 100'000), larger);
  context.scratch(Context::kHead, 0);
}

TEST(Compute, AutoIsTheFastestThatThereIs) {
  EXPECT_EQ(choose_compute("auto"), has_bf16_arithmetic() ? Compute::kBf16 : Compute::kF32);
  EXPECT_EQ(choose_compute("f32"), Compute::kF32);
  EXPECT_EQ(name(Compute::kBf16), "bf16");
  EXPECT_EQ(Context(Compute::kBf16).compute(), Compute::kBf16);
}

TEST(Compute, Bf16WithoutItsArithmeticIsRefused) {
  if (has_bf16_arithmetic()) {
    EXPECT_EQ(choose_compute("bf16"), Compute::kBf16);
    return;
  }
  try {
    choose_compute("bf16");
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUnsupported);
    EXPECT_NE(std::string(error.what()).find(name(active_isa())), std::string::npos) << error.what();
  }
}

TEST(Compute, UnknownNamesAreRefusedWithTheKnownOnes) {
  try {
    choose_compute("fp8");
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidInput);
    EXPECT_STREQ(error.what(), "compute 'fp8': expected auto, f32 or bf16");
  }
}

}  // namespace
}  // namespace brick::kernels
