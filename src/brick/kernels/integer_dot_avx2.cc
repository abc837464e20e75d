// AVX2: products of bytes summed in pairs, then in fours. No sum of pairs leaves int16: at most 128 times 127, twice.
#include <immintrin.h>

#include <cstring>

#include "brick/kernels/integer_dot_impl.h"
#include "brick/tensor/dtype_table.h"
#include "brick/tensor/k_quants.h"

#define BRICK_TARGET __attribute__((target("avx2,fma,f16c")))

namespace brick::kernels {
namespace {

BRICK_TARGET inline __m256i sums_of_four(__m256i a, __m256i b) {
  return _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1));
}

#include "brick/kernels/integer_dot_rows.inc"

}  // namespace

const IntegerDotKernels kIntegerDotAvx2 = kKernels;

}  // namespace brick::kernels
