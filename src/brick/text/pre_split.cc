#include "brick/text/pre_split.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>
#include <utility>

#include "brick/base/error.h"
#include "brick/text/utf8.h"

namespace brick::text {
namespace {

// kGpt2Regex with \s written out as Unicode's White_Space: PCRE2's own \s also has U+180E, which the
// reference implementations have not.
constexpr const char* kGpt2Pattern = R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\t-\r\x{85}\p{Z}\p{L}\p{N}]+)"
                                     R"(|[\t-\r\x{85}\p{Z}]+(?![^\t-\r\x{85}\p{Z}])|[\t-\r\x{85}\p{Z}]+)";

std::string message(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

class Regex {
 public:
  explicit Regex(const char* pattern) {
    int error = 0;
    PCRE2_SIZE at = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern), PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP,
                              &error, &at, nullptr));
    if (!code_)
      fail(ErrorCode::kUnsupported, "tokenizer: PCRE2 cannot compile the pre-split regex at {}: {}", at,
           message(error));
    // Without a JIT (no executable memory) pcre2_match interprets; slower, but with the same result.
    pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);
  }

  // Calls found(begin, end) for each match in order; PCRE2 sees nothing outside `text`.
  template <class Found>
  void each_match(std::string_view text, Found&& found) const {
    const MatchData data(pcre2_match_data_create(1, nullptr));
    if (!data) fail(ErrorCode::kIo, "tokenizer: no memory for a PCRE2 match");
    for (size_t at = 0; at < text.size();) {
      const int result = pcre2_match(code_.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), at,
                                     PCRE2_NO_UTF_CHECK, data.get(), nullptr);
      if (result == PCRE2_ERROR_NOMATCH) return;
      if (result < 0)
        fail(ErrorCode::kInvalidInput, "tokenizer: splitting {} bytes of text failed at byte {}: {}", text.size(), at,
             message(result));
      const PCRE2_SIZE* range = pcre2_get_ovector_pointer(data.get());
      BRICK_ASSERT(range[1] > range[0]);
      found(range[0], range[1]);
      at = range[1];
    }
  }

 private:
  struct FreeCode {
    void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  };
  struct FreeData {
    void operator()(pcre2_match_data* data) const { pcre2_match_data_free(data); }
  };
  using MatchData = std::unique_ptr<pcre2_match_data, FreeData>;
  std::unique_ptr<pcre2_code, FreeCode> code_;
};

}  // namespace

struct PreSplitter::Patterns {
  Regex words{kGpt2Pattern};
  std::unique_ptr<Regex> alone;  // characters cut out before `words` sees what lies between them
};

PreSplitter::PreSplitter(std::string_view name) {
  if (name != "gpt-2" && name != "smollm")
    fail(ErrorCode::kUnsupported, "tokenizer: pre-split {} is not supported; supported: gpt-2, smollm",
         printable(name));
  patterns_ = std::make_unique<Patterns>();
  if (name == "smollm") patterns_->alone = std::make_unique<Regex>(R"(\p{N})");
}

PreSplitter::~PreSplitter() = default;
PreSplitter::PreSplitter(PreSplitter&&) noexcept = default;
PreSplitter& PreSplitter::operator=(PreSplitter&&) noexcept = default;

void PreSplitter::split(std::string_view text, std::vector<std::string_view>& words) const {
  const auto split_words = [&](std::string_view part) {
    patterns_->words.each_match(part,
                                [&](size_t begin, size_t end) { words.push_back(part.substr(begin, end - begin)); });
  };
  if (!patterns_->alone) return split_words(text);
  size_t done = 0;
  patterns_->alone->each_match(text, [&](size_t begin, size_t end) {
    if (begin > done) split_words(text.substr(done, begin - done));
    words.push_back(text.substr(begin, end - begin));
    done = end;
  });
  if (done < text.size()) split_words(text.substr(done));
}

}  // namespace brick::text
