// Cuts text into the words that byte-level BPE merges within: the published regexes, through PCRE2.
#pragma once

#include <memory>
#include <string_view>
#include <vector>

namespace brick::text {

// GPT-2's regex (openai/gpt-2, src/encoder.py), as tokenizer.json files spell it.
inline constexpr std::string_view kGpt2Regex =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

class PreSplitter {
 public:
  // `name`: "gpt-2" or "smollm" (see TokenizerSpec::pre_split). Errors: kUnsupported for any other.
  explicit PreSplitter(std::string_view name);
  ~PreSplitter();
  PreSplitter(PreSplitter&&) noexcept;
  PreSplitter& operator=(PreSplitter&&) noexcept;

  // Appends the words of `text`, which must be valid UTF-8; the views live as long as it does. Together they
  // are the text. Safe to call from several threads.
  void split(std::string_view text, std::vector<std::string_view>& words) const;

 private:
  struct Patterns;
  std::unique_ptr<Patterns> patterns_;
};

}  // namespace brick::text
