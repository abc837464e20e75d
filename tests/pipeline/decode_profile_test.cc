#include "brick/pipeline/decode_profile.h"

#include <gtest/gtest.h>

#include "brick/base/cpu.h"
#include "brick/base/parallel.h"
#include "brick/io/json_file.h"
#include "model/expect_error.h"
#include "model/tiny_model.h"

namespace brick::pipeline {
namespace {

DecodeProfile some_profile(const model::Model& model) {
  return {model::fingerprint(model),
          std::string(name(active_isa())),
          "auto",
          threads(),
          100,
          {{"bf16", 0.75, 200}, {"bf16", 0.25, 50}, {"q4", 0.5, 300}, {"bf16", 0.5, 400, "structured"}}};
}

// The file with one value changed, read.
void expect_refused(ErrorCode code, const std::string& part, const char* pointer, const nlohmann::json& value) {
  const model::Model model = model::tiny_model();
  const TempFolder folder;
  nlohmann::json file = {{"decode", to_json(some_profile(model))}};
  file[nlohmann::json::json_pointer(pointer)] = value;
  io::write_json_file(folder.file("p.json"), file);
  model::expect_error(code, part, [&] { read_decode_profile(folder.file("p.json"), model, {}); });
}

TEST(DecodeProfile, ReadsWhatItWrites) {
  const model::Model model = model::tiny_model();
  const TempFolder folder;
  io::write_json_file(folder.file("p.json"), {{"decode", to_json(some_profile(model))}});
  EXPECT_EQ(to_json(read_decode_profile(folder.file("p.json"), model, {})), to_json(some_profile(model)));
}

// Those written before there were others.
TEST(DecodeProfile, PointsWithoutAPatternAreUnstructured) {
  const model::Model model = model::tiny_model();
  const TempFolder folder;
  nlohmann::json file = {{"decode", to_json(some_profile(model))}};
  for (nlohmann::json& point : file["decode"]["points"]) point.erase("pattern");
  io::write_json_file(folder.file("p.json"), file);
  EXPECT_EQ(read_decode_profile(folder.file("p.json"), model, {}).points.back().pattern, "unstructured");
}

TEST(DecodeProfile, SecondsAreLinearBetweenPoints) {
  const DecodeProfile profile = some_profile(model::tiny_model());
  EXPECT_DOUBLE_EQ(*profile.speedup("bf16", 0.25), 0.5);
  EXPECT_DOUBLE_EQ(*profile.speedup("bf16", 0.75), 2.0);
  EXPECT_DOUBLE_EQ(*profile.speedup("bf16", 0.5), 1 / ((0.02 + 0.005) / 2 * 100));
  EXPECT_DOUBLE_EQ(*profile.speedup("q4", 0.5), 3.0);
  EXPECT_EQ(profile.speedup("bf16", 0.2), std::nullopt);
  EXPECT_EQ(profile.speedup("q4", 0.51), std::nullopt);
  EXPECT_EQ(profile.speedup("f32", 0.5), std::nullopt);
  EXPECT_DOUBLE_EQ(*profile.speedup("bf16", 0.5, "structured"), 4.0);
  EXPECT_EQ(profile.speedup("q4", 0.5, "2:4"), std::nullopt);
}

TEST(DecodeProfile, SaysWhatIsWrong) {
  expect_refused(ErrorCode::kCorrupt, "'decode'", "/decode", 3);
  expect_refused(ErrorCode::kCorrupt, "'isa'", "/decode/isa", 3);
  expect_refused(ErrorCode::kCorrupt, "'threads'", "/decode/threads", "two");
  expect_refused(ErrorCode::kCorrupt, "'dense_tokens_per_second'", "/decode/dense_tokens_per_second", 0);
  expect_refused(ErrorCode::kCorrupt, "'points'", "/decode/points", nlohmann::json::object());
  expect_refused(ErrorCode::kCorrupt, "'points'", "/decode/points/0", 7);
  expect_refused(ErrorCode::kCorrupt, "'sparsity'", "/decode/points/1/sparsity", 1);
  expect_refused(ErrorCode::kCorrupt, "'tokens_per_second'", "/decode/points/1/tokens_per_second", -1);
  expect_refused(ErrorCode::kMismatch, "model", "/decode/model", "another");
  expect_refused(ErrorCode::kMismatch, "abacus", "/decode/isa", "abacus");
  expect_refused(ErrorCode::kMismatch, "compute f32, not for auto", "/decode/compute", "f32");
  expect_refused(ErrorCode::kMismatch, "threads 77", "/decode/threads", 77);
  expect_refused(ErrorCode::kMismatch, "brick bench MODEL --calibrate", "/decode/threads", 77);
}

}  // namespace
}  // namespace brick::pipeline
