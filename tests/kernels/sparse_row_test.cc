// Each implementation of sparse_row.h that this CPU can run, against the scalar one.
#include "brick/kernels/sparse_row.h"

#include <gtest/gtest.h>

#include "brick/base/cpu.h"
#include "brick/kernels/sparse_row_impl.h"
#include "kernels/test_util.h"

namespace brick::kernels {
namespace {

constexpr double kTolerance = 1e-6;  // of the sum of magnitudes: float32 sums in two orders

struct Row {
  int64_t cols;
  std::vector<uint64_t> mask;
  std::vector<float> packed, x;

  Row(int64_t n, double density) : cols(n), mask(static_cast<size_t>((n + 63) / 64)) {
    Rng rng(81, static_cast<uint64_t>(n));
    for (int64_t c = 0; c < n; ++c) {
      x.push_back(static_cast<float>(rng.normal()));
      if (rng.uniform() >= density) continue;
      mask[static_cast<size_t>(c / 64)] |= uint64_t{1} << (c % 64);
      packed.push_back(static_cast<float>(rng.normal()));
    }
    packed.resize(packed.size() + kPackedSlack, std::numeric_limits<float>::quiet_NaN());  // never to be used
  }
  double magnitude() const {
    double sum = 1;
    for (float v : x) sum += std::fabs(v);
    return sum;
  }
};

std::vector<const SparseRowKernels*> implementations() {
  std::vector<const SparseRowKernels*> out;
  for (Isa isa : available_isas()) {
    if (isa == Isa::kAvx2) out.push_back(&kSparseRowAvx2);
    if (isa == Isa::kAvx512) out.push_back(&kSparseRowAvx512);
  }
  return out;
}

TEST(SparseRow, AgreesWithTheScalarDefinition) {
  if (implementations().empty()) GTEST_SKIP() << "this CPU has neither AVX2 nor AVX-512";
  for (const SparseRowKernels* kernels : implementations())
    for (int64_t cols : {1, 7, 8, 15, 16, 17, 31, 32, 63, 64, 65, 96, 200, 576})
      for (double density : {0.0, 0.25, 0.5, 0.9, 1.0}) {
        const Row row(cols, density);
        const float want = kSparseRowScalar.dot(row.mask.data(), row.packed.data(), row.x.data(), cols);
        const float got = kernels->dot(row.mask.data(), row.packed.data(), row.x.data(), cols);
        expect_within("sparse_dot", std::fabs(got - want) / row.magnitude(), kTolerance);
        std::vector<float> expanded(static_cast<size_t>(cols) + 1, 5.0f), wanted(expanded);
        kSparseRowScalar.expand(row.mask.data(), row.packed.data(), cols, wanted.data());
        kernels->expand(row.mask.data(), row.packed.data(), cols, expanded.data());
        EXPECT_EQ(expanded, wanted) << cols << " columns, density " << density;
      }
}

TEST(SparseRow, NegativeControlAFlippedBitIsSeen) {
  Row row(64, 0.5);
  const float want = sparse_dot(row.mask.data(), row.packed.data(), row.x.data(), 64);
  row.mask[0] ^= 3;
  EXPECT_GT(std::fabs(sparse_dot(row.mask.data(), row.packed.data(), row.x.data(), 64) - want) / row.magnitude(),
            10 * kTolerance);
}

}  // namespace
}  // namespace brick::kernels
