// Ollama's Modelfile for an exported GGUF (https://github.com/ollama/ollama/blob/main/docs/modelfile.md).
#pragma once

#include <optional>
#include <string>

#include "brick/text/chat_template.h"

namespace brick::text {

// FROM, and where there is a style: TEMPLATE, which renders .Messages as render() does with a generation prompt;
// SYSTEM, its default system message; and a stop parameter a marker. `from` is the GGUF's path, relative to the
// Modelfile or absolute. BOS and EOS are left to Ollama's tokenizer, but for the EOS between turns (`eos`, its token).
// Error(kUnsupported) for a style with text that Ollama's quoting or templates would change ("""" or {{).
std::string ollama_modelfile(const std::string& from, const std::optional<ChatTemplate>& style, const std::string& eos);

}  // namespace brick::text
