#include "brick/tensor/mask.h"

#include <gtest/gtest.h>

#include <vector>

#include "brick/base/rng.h"

namespace brick::tensor {
namespace {

TEST(Mask, WordsCoverTheColumns) {
  EXPECT_EQ(mask_words(0), 0);
  EXPECT_EQ(mask_words(1), 1);
  EXPECT_EQ(mask_words(64), 1);
  EXPECT_EQ(mask_words(65), 2);
}

TEST(Mask, StartsEmpty) {
  const Mask mask(3, 70);
  EXPECT_EQ(mask.rows(), 3);
  EXPECT_EQ(mask.cols(), 70);
  EXPECT_EQ(mask.view().count(), 0);
  EXPECT_EQ(mask.view().bytes().size(), 3u * 2 * 8);
  EXPECT_EQ(Mask().view().count(), 0);
}

TEST(Mask, SetsAndClearsSingleBits) {
  for (int64_t cols : {1, 63, 64, 65, 130}) {
    Mask mask(5, cols);
    std::vector<std::vector<bool>> expected(5, std::vector<bool>(static_cast<size_t>(cols)));
    Rng rng(1, static_cast<uint64_t>(cols));
    for (int i = 0; i < 1000; ++i) {
      const int64_t r = static_cast<int64_t>(rng.below(5)), c = static_cast<int64_t>(rng.below(cols));
      const bool keep = rng.below(2) == 1;
      mask.set(r, c, keep);
      expected[static_cast<size_t>(r)][static_cast<size_t>(c)] = keep;
    }
    int64_t total = 0;
    for (int64_t r = 0; r < 5; ++r) {
      int64_t in_row = 0;
      for (int64_t c = 0; c < cols; ++c) {
        ASSERT_EQ(mask.kept(r, c), expected[static_cast<size_t>(r)][static_cast<size_t>(c)]) << r << " " << c;
        in_row += mask.kept(r, c) ? 1 : 0;
      }
      EXPECT_EQ(mask.view().count_row(r), in_row);
      total += in_row;
    }
    EXPECT_EQ(mask.view().count(), total);
  }
}

// The layout is that of the file: bit c % 64 of word c / 64, rows padded with zero bits.
TEST(Mask, LayoutIsTheDocumentedOne) {
  Mask mask(2, 66);
  mask.set(1, 0, true);
  mask.set(1, 63, true);
  mask.set(1, 65, true);
  ASSERT_EQ(mask.words().size(), 4u);
  EXPECT_EQ(mask.words()[0], 0u);
  EXPECT_EQ(mask.words()[2], uint64_t{1} << 63 | 1u);
  EXPECT_EQ(mask.words()[3], 2u);
}

}  // namespace
}  // namespace brick::tensor
