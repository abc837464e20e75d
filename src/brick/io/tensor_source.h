// How a writer gets a tensor's bytes without holding more than one tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string_view>

namespace brick::io {

class AtomicFile;

using ByteSink = std::function<void(std::span<const std::byte>)>;

// Called once, when the tensor's turn comes; passes exactly the tensor's bytes, in order and in any number of
// pieces. Each piece need live only until the sink returns.
using TensorSource = std::function<void(const ByteSink& sink)>;

// Passes `bytes`, which must live until the source is called.
TensorSource source_of(std::span<const std::byte> bytes);

// Runs `source` into `out`; Error(kInvalidInput) naming the tensor unless it gives exactly `bytes` bytes.
void stream_tensor(AtomicFile& out, std::string_view name, uint64_t bytes, const TensorSource& source);

}  // namespace brick::io
