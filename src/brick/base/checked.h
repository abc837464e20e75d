// Arithmetic on sizes that come from a file: an overflow is an Error, never a small allocation.
#pragma once

#include <cstdint>

#include "brick/base/error.h"

namespace brick {

inline int64_t checked_mul(int64_t a, int64_t b, const char* what) {
  int64_t product = 0;
  if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &product))
    fail(ErrorCode::kCorrupt, "{}: size {} x {} overflows", what, a, b);
  return product;
}

inline int64_t checked_add(int64_t a, int64_t b, const char* what) {
  int64_t sum = 0;
  if (a < 0 || b < 0 || __builtin_add_overflow(a, b, &sum))
    fail(ErrorCode::kCorrupt, "{}: size {} + {} overflows", what, a, b);
  return sum;
}

}  // namespace brick
