#include "brick/base/cpu.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iostream>
#include <iterator>
#include <regex>

#include "base/subprocess.h"
#include "brick/base/error.h"

namespace brick {
namespace {

TEST(Cpu, ListsInstructionSetsInRisingOrderFromTheBaseline) {
  const std::vector<Isa> found = available_isas();
  ASSERT_FALSE(found.empty());
  EXPECT_EQ(found.front(), Isa::kSse4);
  EXPECT_TRUE(std::is_sorted(found.begin(), found.end()));
  EXPECT_TRUE(std::adjacent_find(found.begin(), found.end()) == found.end());
}

TEST(Cpu, ActiveInstructionSetIsAvailable) {
  const std::vector<Isa> found = available_isas();
  EXPECT_NE(std::find(found.begin(), found.end(), active_isa()), found.end());
  EXPECT_EQ(has_bf16_arithmetic(), active_isa() >= Isa::kAvx512Bf16);
}

TEST(Cpu, ModelHasItsFamilyWhereTheSystemSaysIt) {
  std::ifstream file("/proc/cpuinfo");
  const std::string said{std::istreambuf_iterator<char>(file), {}};
  if (said.find("cpu family") == std::string::npos) GTEST_SKIP() << "no family in /proc/cpuinfo";
  EXPECT_TRUE(std::regex_match(cpu_model(), std::regex(R"(.+ \(family \d+, model \d+\))"))) << cpu_model();
}

TEST(Cpu, DescribesTheMachine) {
  EXPECT_FALSE(cpu_model().empty());
  EXPECT_GE(physical_cores(), 1);
  EXPECT_LE(physical_cores(), std::max(1, static_cast<int>(std::thread::hardware_concurrency())));
}

// Prints what the parent test reads; as an ordinary test it only has to pass.
TEST(CpuChild, PrintsTheActiveInstructionSet) {
  try {
    std::cout << "active: " << name(active_isa()) << ".\n";
  } catch (const Error& error) {
    std::cout << "refused " << static_cast<int>(error.code()) << ": " << error.what() << ".\n";
  }
}

std::string child_says(const std::string& isa) {
  return run_self({"--gtest_filter=CpuChild.PrintsTheActiveInstructionSet"}, isa).output;
}

TEST(Cpu, EnvironmentChoosesEachAvailableInstructionSet) {
  for (Isa isa : available_isas()) {
    const std::string said = child_says(name(isa));
    EXPECT_NE(said.find(std::string("active: ") + name(isa) + "."), std::string::npos) << said;
  }
  const std::string said = child_says("");
  EXPECT_NE(said.find(std::string("active: ") + name(available_isas().back()) + "."), std::string::npos) << said;
}

TEST(Cpu, UnknownInstructionSetIsRefusedWithTheListOfThoseThatExist) {
  std::string list;
  for (Isa isa : available_isas()) list += std::string(" ") + name(isa);
  const std::string said = child_says("avx3");
  const std::string expected = "refused " + std::to_string(static_cast<int>(ErrorCode::kUnsupported)) +
                               ": BRICK_ISA=avx3: this CPU has" + list + ".";
  EXPECT_NE(said.find(expected), std::string::npos) << said;
}

}  // namespace
}  // namespace brick
