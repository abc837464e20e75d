#include "brick/model/model_card.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <sstream>

#include "brick/io/atomic_output.h"
#include "brick/io/gguf.h"
#include "brick/io/text_file.h"
#include "brick/model/load.h"
#include "brick/model/save.h"
#include "brick/model/save_parts.h"
#include "model/cut_model.h"
#include "model/tiny_model.h"

namespace brick::model {
namespace {

constexpr LoadOptions kNoTokenizer{.tokenizer = false};

// A source that names a licence.
std::string licensed(const TempFolder& folder) {
  io::write_file_atomic(std::filesystem::path(folder.folder("parent")) / "README.md",
                        "---\nlicense: apache-2.0\n---\n");
  return folder.file("parent");
}

Model described_block() {
  Model block = tiny_block(tiny_model(), 0.5);
  block.source = "somewhere/deep/parent.gguf";
  block.block.method = "owl+wanda";
  block.block.provenance =
      R"({"config":{"calibration":{"sha256":"abc","tokens":77},"method":"owl+wanda","model":"parent"},)"
      R"("parent_hash":"f00","seed":11,"tool_version":"9.9"})";
  return block;
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

TEST(ModelCard, SaysWhatTheBlockRecords) {
  const TempFolder folder;
  Model block = described_block();
  block.source = licensed(folder);
  save_block(block, folder.folder("block"));
  const std::string card = io::read_text(folder.path() / "block" / "README.md");
  EXPECT_TRUE(card.starts_with("---\nlicense: apache-2.0\nlibrary_name: brickwork\n"));
  const auto bytes = std::filesystem::file_size(folder.path() / "block" / "model.safetensors");
  for (const std::string& part :
       {std::string("- pruned\n- sparse\n---\n"), std::string("`parent` with 50 % of"), std::string("`owl+wanda`"),
        "| bytes of `model.safetensors` | " + std::to_string(bytes) + " |", "`" + block.block.parent + "`",
        "`" + mask_hash(block) + "`", std::string("| `calibration.tokens` | `77` |"), std::string("| seed | `11` |"),
        std::string("| Brickwork | `9.9` |"), "| of which kept | " + std::to_string(block.nonzeros()) + " |",
        std::string("brick export FOLDER --format hf")})
    EXPECT_TRUE(has(card, part)) << part << "\n" << card;
  EXPECT_FALSE(has(card, folder.path().string()));
}

TEST(ModelCard, SaysOnlyWhatThereIs) {
  Model dense = tiny_model();
  dense.source = "dense/";
  for (const char* provenance : {"", "{}", "[]", "not JSON", R"({"config":3,"seed":"x"})"}) {
    dense.block.provenance = provenance;
    const std::string card = model_card(dense, CardFor::kTransformers, 5, {});
    EXPECT_TRUE(card.starts_with("---\nlibrary_name: transformers\n"));
    EXPECT_TRUE(has(card, "# `dense`\n\n`dense`.\n"));
    EXPECT_TRUE(has(card, "from_pretrained"));
    for (const char* part : {"removed by", "pruned\n", "sparse", "kept", "fingerprint", "seed", "How it was made"})
      EXPECT_FALSE(has(card, part)) << part << "\n" << card;
  }
  const std::string uneven = model_card(tiny_cut_block(), CardFor::kBrick, 5, {});
  EXPECT_TRUE(has(uneven, "2 of 3 layers left"));
  EXPECT_TRUE(has(uneven, "--format hf --dtype bf16 --pad"));
  EXPECT_TRUE(has(model_card(tiny_cut_block(), CardFor::kTransformers, 5, {}), "filled up with zeros"));
  EXPECT_TRUE(has(uneven, "50 % of its layers' linear weights"));
  const std::string masked = model_card(tiny_block(tiny_cut_block()), CardFor::kBrick, 5, {});
  EXPECT_TRUE(has(masked, "with about 50 % of what a cut left of its layers' linear weights removed by"));
}

TEST(ModelCard, HostileNamesStayText) {
  Model block = described_block();
  block.block.method = "x` | <b>y</b>\n---\nlicense: mit\n# Heading";
  block.block.provenance = R"({"config":{"model":"`a`\n---\n|","b`|\n":"c`\n|"}})";
  const std::string card = model_card(block, CardFor::kBrick, 5, license_identifier("mit\nlibrary_name: x"));
  const std::vector<std::string> lines = lines_of(card);
  EXPECT_EQ(std::count(lines.begin(), lines.end(), "---"), 2);
  EXPECT_EQ(license_of_card(card), "");
  EXPECT_FALSE(has(card, "\n# Heading"));
  for (const std::string& line : lines) {
    EXPECT_TRUE(line.starts_with("```") || std::count(line.begin(), line.end(), '`') % 2 == 0) << line;
    EXPECT_TRUE(!line.starts_with("|") || std::count(line.begin(), line.end(), '|') == 3) << line;
  }
}

TEST(ModelCard, IsTheSameWhereverItIsWritten) {
  const TempFolder folder;
  save_block(described_block(), folder.folder("a"));
  const std::string first = io::read_text(folder.path() / "a" / "README.md");
  save_block(load_model(folder.file("a"), kNoTokenizer), folder.folder("b"));
  EXPECT_EQ(io::read_text(folder.path() / "b" / "README.md"), first);
}

TEST(License, ComesAlong) {
  const TempFolder folder;
  Model block = described_block();
  block.source = licensed(folder);
  save_block(block, folder.folder("block"));
  EXPECT_EQ(license_of(folder.file("block")), "apache-2.0");
  export_gguf(load_model(folder.file("block"), kNoTokenizer), tensor::DType::kF32, folder.file("m.gguf"));
  EXPECT_EQ(license_of(folder.file("m.gguf")), "apache-2.0");
  export_hf(load_model(folder.file("m.gguf"), kNoTokenizer), tensor::DType::kF32, folder.folder("hf"));
  EXPECT_EQ(license_of(folder.file("hf")), "apache-2.0");
  std::filesystem::remove(folder.path() / "hf" / "README.md");
  EXPECT_EQ(license_of(folder.file("hf")), "");
  EXPECT_EQ(license_of(folder.file("absent.gguf")), "");
  io::write_file_atomic(folder.file("cut.gguf"), "GGUF");
  EXPECT_EQ(license_of(folder.file("cut.gguf")), "");
  export_gguf(load_model(folder.file("hf"), kNoTokenizer), tensor::DType::kF32, folder.file("n.gguf"));
  EXPECT_EQ(io::GgufFile::open(folder.file("n.gguf")).find("general.license"), nullptr);
}

TEST(License, IsReadFromTheHeadOfACardAlone) {
  EXPECT_EQ(license_of_card("---\nlanguage: en\nlicense: 'mit'\n---\nlicense: other\n"), "mit");
  EXPECT_EQ(license_of_card("---\r\nlicense: \"llama3.2\"\r\n---\r\n"), "llama3.2");
  EXPECT_EQ(license_of_card("---\nlicense: cc by\n---\n"), "");
  EXPECT_EQ(license_of_card("license: mit\n"), "");
  EXPECT_EQ(license_of_card("text\n---\nlicense: mit\n---\n"), "");
  EXPECT_EQ(license_of_card("---\n---\nlicense: mit\n"), "");
  EXPECT_EQ(license_of_card(""), "");
  EXPECT_EQ(license_identifier(std::string(65, 'a')), "");
}

TEST(ModelName, IsTheLastPartOfTheSource) {
  Model model = tiny_model();
  for (const auto& [source, name] : {std::pair("a/Llama-3.2-1B", "Llama-3.2-1B"),
                                     {"a/block-50/", "block-50"},
                                     {"Smol.Q4_1.gguf", "Smol.Q4_1"},
                                     {"", "model"},
                                     {"..", "model"}}) {
    model.source = source;
    EXPECT_EQ(model_name(model), name);
  }
}

}  // namespace
}  // namespace brick::model
