// AVX512-VNNI, on vectors of 256 bits: products of bytes summed in fours by one instruction.
#include <immintrin.h>

#include <cstring>

#include "brick/kernels/integer_dot_impl.h"
#include "brick/tensor/dtype_table.h"
#include "brick/tensor/k_quants.h"

#define BRICK_TARGET __attribute__((target("avx2,fma,f16c,avx512f,avx512vl,avx512vnni")))

namespace brick::kernels {
namespace {

BRICK_TARGET inline __m256i sums_of_four(__m256i a, __m256i b) {
  return _mm256_dpbusd_epi32(_mm256_setzero_si256(), a, b);
}

#include "brick/kernels/integer_dot_rows.inc"

}  // namespace

const IntegerDotKernels kIntegerDotAvx512Vnni = kKernels;

}  // namespace brick::kernels
