#include "brick/text/modelfile.h"

#include <gtest/gtest.h>

#include "brick/base/error.h"

namespace brick::text {
namespace {

TEST(Modelfile, RendersChatMl) {
  ChatTemplate style = chat_template("chatml");
  style.default_system = "You are kind.";
  EXPECT_EQ(ollama_modelfile("./m.gguf", style, "<|im_end|>"),
            "FROM ./m.gguf\n"
            "TEMPLATE \"\"\"{{ range .Messages }}{{ if eq .Role \"system\" }}<|im_start|>system\n"
            "{{ .Content }}<|im_end|>\n"
            "{{ else if eq .Role \"user\" }}<|im_start|>user\n"
            "{{ .Content }}<|im_end|>\n"
            "{{ else }}<|im_start|>assistant\n"
            "{{ .Content }}<|im_end|>\n"
            "{{ end }}{{ end }}<|im_start|>assistant\n"
            "\"\"\"\n"
            "SYSTEM \"\"\"You are kind.\"\"\"\n"
            "PARAMETER stop \"<|im_end|>\"\n"
            "PARAMETER stop \"<|im_start|>\"\n");
}

TEST(Modelfile, WritesEosBetweenTurnsWhereNothingElseEndsThem) {
  const std::string text = ollama_modelfile("./m.gguf", chat_template("alpaca"), "</s>");
  EXPECT_NE(text.find("### Response:\n{{ .Content }}</s>\n\n"), std::string::npos) << text;
  EXPECT_NE(text.find("SYSTEM \"\"\"Below is"), std::string::npos);
  EXPECT_EQ(text.find("PARAMETER"), std::string::npos);
}

TEST(Modelfile, WithoutATemplateOllamaLooksForItsOwn) {
  EXPECT_EQ(ollama_modelfile("./m.gguf", std::nullopt, ""), "FROM ./m.gguf\n");
}

TEST(Modelfile, RefusesWhatItCannotQuote) {
  ChatTemplate style = chat_template("chatml");
  style.default_system = "say \"\"\"";
  EXPECT_THROW(ollama_modelfile("./m.gguf", style, ""), Error);
  style = chat_template("chatml");
  style.user.header = "{{ user }}";
  EXPECT_THROW(ollama_modelfile("./m.gguf", style, ""), Error);
}

}  // namespace
}  // namespace brick::text
