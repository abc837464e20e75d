#include "brick/pipeline/kernel_table_file.h"

#include <gtest/gtest.h>

#include "brick/base/error.h"

namespace brick::pipeline {
namespace {

kernels::KernelTable some_table() {
  kernels::KernelTable table;
  table.f32 = {{{0, 0.125}, {0.25, 0.5}, {1, 0.75}}};
  table.bf16 = {{{0.5, 0}, {0, 0}, {0.0625, 0}}};
  return table;
}

TEST(KernelTableFile, ReadsWhatItWrites) {
  const nlohmann::json json = to_json(some_table());
  EXPECT_EQ(to_json(kernel_table_from_json(json)), json);
}

TEST(KernelTableFile, SaysWhatIsWrong) {
  const auto message = [](const char* pointer, const nlohmann::json& value) {
    nlohmann::json json = to_json(some_table());
    json[nlohmann::json::json_pointer(pointer)] = value;
    try {
      kernel_table_from_json(json);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_NE(message("/format", "x").find("'format'"), std::string::npos);
  EXPECT_NE(message("/isa", "abacus").find("\"abacus\""), std::string::npos);
  EXPECT_NE(message("/isa", 3).find("'isa'"), std::string::npos);
  EXPECT_NE(message("/f32", nlohmann::json::array()).find("'f32': expected 3 rows"), std::string::npos);
  EXPECT_NE(message("/bf16/1", 7).find("'tokens' 32"), std::string::npos);
  EXPECT_NE(message("/bf16/1/tokens", 33).find("'tokens' 32"), std::string::npos);
  for (const nlohmann::json& bad : {nlohmann::json("a"), nlohmann::json(1.5), nlohmann::json(-0.1), nlohmann::json()})
    EXPECT_NE(message("/f32/2/gradient", bad).find("'gradient' of the row of 128 tokens"), std::string::npos);
  EXPECT_THROW(kernel_table_from_json(nlohmann::json::array()), Error);
}

}  // namespace
}  // namespace brick::pipeline
