// How a writer gets a tensor's bytes without holding more than one tensor.
#pragma once

#include <cstddef>
#include <functional>
#include <span>

namespace brick::io {

using ByteSink = std::function<void(std::span<const std::byte>)>;

// Called once, when the tensor's turn comes; passes exactly the tensor's bytes, in order and in any number of
// pieces. Each piece need live only until the sink returns.
using TensorSource = std::function<void(const ByteSink& sink)>;

}  // namespace brick::io
