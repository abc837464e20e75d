#include "brick/tensor/tensor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "brick/base/error.h"

namespace brick::tensor {
namespace {

constexpr int64_t kHuge = int64_t{1} << 62;

TEST(Shape, CountsElementsAndBytes) {
  EXPECT_EQ(element_count({}), 1);
  EXPECT_EQ(element_count({2, 3, 4}), 24);
  EXPECT_EQ(element_count({2, 0}), 0);
  EXPECT_EQ(byte_count(DType::kF32, {}), 4);
  EXPECT_EQ(byte_count(DType::kQ4_1, {3, 64}), 120);
  EXPECT_EQ(byte_count(DType::kI64, {3}), 24);
}

TEST(Shape, OverflowingOrNegativeShapesAreErrors) {
  for (const Shape& shape : {Shape{kHuge, 4}, Shape{4, kHuge}, Shape{1 << 30, 1 << 30, 1 << 30}, Shape{-1, 4},
                             Shape{4, -1}, Shape{-2, -2}}) {
    EXPECT_THROW(element_count(shape), Error);
    EXPECT_THROW(byte_count(DType::kF32, shape), Error);
    EXPECT_THROW(Tensor(DType::kF32, shape), Error);
  }
  EXPECT_THROW(Tensor(DType::kI64, {kHuge}), Error);  // the elements can be counted, the bytes cannot
  EXPECT_THROW(Tensor(DType::kQ8_0, {2, 33}), Error);
}

TEST(Tensor, MemoryThatCannotBeHadIsAnError) {
#ifdef BRICK_SANITIZED
  GTEST_SKIP() << "the sanitizer's allocator ends the process instead";
#endif
  try {
    const Tensor tensor(DType::kU8, {int64_t{1} << 60});
    FAIL() << "allocated an exbibyte";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kIo);
    EXPECT_NE(std::string(error.what()).find("1152921504606846976"), std::string::npos) << error.what();
  }
}

TEST(Tensor, IsZeroedAndAligned) {
  for (int64_t size : {1, 15, 16, 1000, 65'535, 65'536, 1'000'003}) {  // the largest are mapped
    Tensor tensor(DType::kF32, {size});
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.bytes().data()) % 64, 0u);
    EXPECT_EQ(tensor.size(), size);
    EXPECT_EQ(tensor.bytes().size(), static_cast<size_t>(4 * size));
    EXPECT_TRUE(std::all_of(tensor.f32(), tensor.f32() + size, [](float x) { return x == 0.0f; }));
  }
}

TEST(Tensor, SmallAndMappedOnesMoveIntoEachOther) {
  constexpr int64_t kSmall = 100, kLarge = 100'000;
  const auto filled = [](int64_t size) {
    Tensor tensor(DType::kF32, {size});
    std::iota(tensor.f32(), tensor.f32() + size, 1.0f);
    return tensor;
  };
  for (const auto& [from, to] : {std::pair{kSmall, kLarge}, {kLarge, kSmall}, {kLarge, kLarge}}) {
    Tensor source = filled(from), target = filled(to);
    const Tensor copy = source.clone();
    target = std::move(source);
    EXPECT_EQ(target.size(), from);
    EXPECT_TRUE(std::equal(target.f32(), target.f32() + from, copy.f32()));
    EXPECT_EQ(target.f32()[from - 1], static_cast<float>(from));
  }
}

TEST(Tensor, EmptyOnesHoldNothing) {
  EXPECT_TRUE(Tensor().empty());
  EXPECT_EQ(Tensor().size(), 0);
  const Tensor none(DType::kF32, {0, 5});
  EXPECT_TRUE(none.empty());
  EXPECT_EQ(none.size(), 0);
  EXPECT_TRUE(none.clone().empty());
}

TEST(Tensor, ClonesAreTheirOwn) {
  Tensor original = matrix(2, 3);
  original.mat()(1, 2) = 5;
  Tensor copy = original.clone();
  original.mat()(1, 2) = 6;
  EXPECT_EQ(copy.mat()(1, 2), 5);
  EXPECT_EQ(copy.shape(), (Shape{2, 3}));
}

TEST(Tensor, WrongKindsOfViewAreAssertions) {
  Tensor halves(DType::kF16, {2, 2}), cube(DType::kF32, {2, 2, 2});
  EXPECT_THROW(halves.f32(), std::logic_error);
  EXPECT_THROW(cube.mat(), std::logic_error);
  EXPECT_NO_THROW(cube.f32());
}

TEST(MatView, BlocksAddressTheirParent) {
  Tensor tensor = matrix(4, 5);
  for (int64_t i = 0; i < 20; ++i) tensor.f32()[i] = static_cast<float>(i);
  const MatView whole = tensor.mat();
  const MatView part = whole.block(1, 2, 2, 3);
  EXPECT_EQ(part.rows, 2);
  EXPECT_EQ(part.cols, 3);
  EXPECT_EQ(part.stride, 5);
  EXPECT_EQ(part(0, 0), 7);
  EXPECT_EQ(part(1, 2), 14);
  EXPECT_EQ(part.row(1)[0], 12);
  EXPECT_EQ(whole.row_range(3, 4)(0, 1), 16);
  EXPECT_EQ(whole.col_range(4, 5)(2, 0), 14);
  const ConstMatView constant = part;
  EXPECT_EQ(constant(1, 1), 13);
}

}  // namespace
}  // namespace brick::tensor
