// Runs every kernel test on every instruction set that this machine has, each in a process of its own (what
// BRICK_ISA says is read once), and proves which code ran.
#include <gtest/gtest.h>

#include <iostream>
#include <oneapi/dnnl/dnnl.hpp>
#include <sstream>

#include "base/subprocess.h"
#include "brick/base/cpu.h"
#include "brick/base/error.h"
#include "brick/kernels/context.h"
#include "brick/kernels/vector_ops.h"
#include "kernels/test_util.h"

namespace brick::kernels {
namespace {

class IsaEnvironment : public ::testing::Environment {
 public:
  void SetUp() override {
    try {
      apply_isa_limit();
    } catch (const Error& error) {
      FAIL() << error.what();
    }
    std::cout << "kernels run on " << name(active_isa()) << " (Highway: " << simd_target() << ")\n";
  }
  void TearDown() override {
    for (const auto& [what, errors] : worst_errors())
      std::cout << fmt::format("worst error {:<46} {:.2e} of {:.1e}\n", what, errors.first, errors.second);
  }
};
[[maybe_unused]] const auto* const kEnvironment = ::testing::AddGlobalTestEnvironment(new IsaEnvironment);

// What must not run again in the processes that this file starts.
constexpr const char* kAllButThese = "--gtest_filter=-*IsaSweep*:IsaRefusal*";

std::string expected_target(Isa isa) {
  switch (isa) {
    case Isa::kSse4:
      return "SSE4";
    case Isa::kAvx2:
      return "AVX2";
    default:
      return "AVX3";
  }
}

// The sum of a product at index 0 and one at index `at`, zeros elsewhere, is 2^-24 only if both met in the
// same lane of the same sum and the second was added without rounding its product: dot's lanes and its fused
// addition show.
int64_t distance_between_sums_of_a_lane() {
  constexpr int64_t kLength = 256;
  for (int64_t at = 1; at < kLength; ++at) {
    std::vector<float> a(kLength), b(kLength);
    a[0] = -(1.0f + 0x1p-11f);
    b[0] = 1.0f;
    a[static_cast<size_t>(at)] = b[static_cast<size_t>(at)] = 1.0f + 0x1p-12f;
    if (dot(a.data(), b.data(), kLength) == 0x1p-24f) return at;
  }
  return 0;
}

TEST(IsaTarget, HighwayRunsTheCodeOfTheActiveInstructionSet) {
  EXPECT_EQ(simd_target(), expected_target(active_isa()));
  // dot keeps four sums: 4 x 8 lanes, 4 x 16 lanes; SSE4 has no fused addition.
  const int64_t expected = active_isa() == Isa::kSse4 ? 0 : active_isa() == Isa::kAvx2 ? 4 * 8 : 4 * 16;
  EXPECT_EQ(distance_between_sums_of_a_lane(), expected);
}

TEST(IsaTarget, OneDnnKeepsToTheActiveInstructionSet) {
  using dnnl::cpu_isa;
  const cpu_isa effective = dnnl::get_effective_cpu_isa();
  switch (active_isa()) {
    case Isa::kSse4:
      EXPECT_EQ(effective, cpu_isa::sse41);
      break;
    case Isa::kAvx2:
      EXPECT_EQ(effective, cpu_isa::avx2);
      break;
    case Isa::kAvx512:  // with or without integer dot products, which we do not use
      EXPECT_TRUE(effective == cpu_isa::avx512_core || effective == cpu_isa::avx512_core_vnni);
      break;
    case Isa::kAvx512Bf16:
      EXPECT_EQ(effective, cpu_isa::avx512_core_bf16);
      break;
    case Isa::kAmx:
      EXPECT_EQ(effective, cpu_isa::avx512_core_amx);
      break;
  }
}

std::string label(const ::testing::TestParamInfo<Isa>& info) { return name(info.param); }

class IsaSweep : public ::testing::TestWithParam<Isa> {};

TEST_P(IsaSweep, EveryKernelTestPasses) {
  const std::string isa = name(GetParam());
  if (GetParam() == active_isa()) GTEST_SKIP() << isa << " is what this process runs on";
  const SelfRun run = run_self({kAllButThese}, isa);
  EXPECT_EQ(run.exit_code, 0) << run.output;
  const std::string ran = "kernels run on " + isa + " (Highway: " + expected_target(GetParam()) + ")";
  EXPECT_NE(run.output.find(ran), std::string::npos) << run.output;
  // The tests did run: the filter took out nothing but this file's own.
  const ::testing::UnitTest& all = *::testing::UnitTest::GetInstance();
  int expected = 0;
  for (int s = 0; s < all.total_test_suite_count(); ++s) {
    const ::testing::TestSuite& suite = *all.GetTestSuite(s);
    const std::string suite_name = suite.name();
    if (suite_name.find("IsaSweep") == std::string::npos && suite_name != "IsaRefusal")
      expected += suite.total_test_count();
  }
  EXPECT_NE(run.output.find(fmt::format("Running {} tests", expected)), std::string::npos) << run.output;
  std::istringstream lines(run.output);
  for (std::string line; std::getline(lines, line);)
    if (line.rfind("worst error", 0) == 0) std::cout << isa << ": " << line << '\n';
}

INSTANTIATE_TEST_SUITE_P(Available, IsaSweep, ::testing::ValuesIn(available_isas()), label);

TEST(IsaRefusal, AnUnknownInstructionSetIsOneClearErrorAndNoTestRuns) {
  const SelfRun run = run_self({"--gtest_filter=VectorOps.*"}, "avx1024");
  EXPECT_NE(run.exit_code, 0);
  const std::string message = "BRICK_ISA=avx1024: this CPU has sse4";
  const size_t at = run.output.find(message);
  ASSERT_NE(at, std::string::npos) << run.output;
  EXPECT_EQ(run.output.find(message, at + 1), std::string::npos) << run.output;
  EXPECT_EQ(run.output.find("[       OK ]"), std::string::npos) << run.output;
}

}  // namespace
}  // namespace brick::kernels
