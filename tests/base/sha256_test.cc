#include "brick/base/sha256.h"

#include <gtest/gtest.h>

namespace brick {
namespace {

// FIPS 180-2, appendix B, and the empty message.
TEST(Sha256, KnownAnswers) {
  EXPECT_EQ(Sha256().hex(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(Sha256().update("abc").hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(Sha256().update("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq").hex(),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(Sha256().update(std::string(1'000'000, 'a')).hex(),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST(Sha256, PiecesAndBytesGiveTheHashOfTheWhole) {
  const std::string text(1000, 'x');
  Sha256 pieces;
  for (size_t i = 0; i < text.size(); i += 77) pieces.update(std::string_view(text).substr(i, 77));
  EXPECT_EQ(pieces.hex(), Sha256().update(std::as_bytes(std::span(text))).hex());
}

}  // namespace
}  // namespace brick
