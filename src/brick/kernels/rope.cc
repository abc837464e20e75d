#include "brick/kernels/rope.h"

#include <cmath>

#include "brick/base/parallel.h"

namespace brick::kernels {
namespace {

constexpr int64_t kRowGrain = 16;

void turn(const RopeTable& table, const int32_t* positions, int64_t head_dim, float direction, tensor::MatView x) {
  const int64_t half = table.half;
  parallel_ranges(x.rows, kRowGrain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const float* cosine = table.cosines.data() + positions[t] * half;
      const float* sine = table.sines.data() + positions[t] * half;
      for (float* head = x.row(t); head < x.row(t) + x.cols; head += head_dim)
        for (int64_t i = 0; i < half; ++i) {
          const float a = head[i], b = head[i + half], s = direction * sine[i];
          head[i] = a * cosine[i] - b * s;
          head[i + half] = b * cosine[i] + a * s;
        }
    }
  });
}

}  // namespace

RopeTable make_rope_table(const std::vector<float>& inverse_frequency, int64_t positions) {
  RopeTable table{static_cast<int64_t>(inverse_frequency.size()), {}, {}};
  table.cosines.reserve(inverse_frequency.size() * static_cast<size_t>(positions));
  table.sines.reserve(table.cosines.capacity());
  for (int64_t p = 0; p < positions; ++p)
    for (float frequency : inverse_frequency) {
      const float angle = static_cast<float>(p) * frequency;
      table.cosines.push_back(std::cos(angle));
      table.sines.push_back(std::sin(angle));
    }
  return table;
}

void rope(const RopeTable& table, const int32_t* positions, int64_t head_dim, tensor::MatView x) noexcept {
  turn(table, positions, head_dim, 1.0f, x);
}
void rope_backward(const RopeTable& table, const int32_t* positions, int64_t head_dim, tensor::MatView dx) noexcept {
  turn(table, positions, head_dim, -1.0f, dx);
}

}  // namespace brick::kernels
