#include "brick/io/tensor_source.h"

#include "brick/base/error.h"
#include "brick/io/atomic_output.h"
#include "brick/io/posix_file.h"

namespace brick::io {

TensorSource source_of(std::span<const std::byte> bytes) {
  return [bytes](const ByteSink& sink) { sink(bytes); };
}

void stream_tensor(AtomicFile& out, std::string_view name, uint64_t bytes, const TensorSource& source) {
  uint64_t given = 0;
  source([&](std::span<const std::byte> piece) {
    if (piece.size() > bytes - given)
      fail(ErrorCode::kInvalidInput, "tensor {}: its source gives more than the {} bytes of its shape", shown(name),
           bytes);
    given += piece.size();
    out.write(piece);
  });
  if (given != bytes)
    fail(ErrorCode::kInvalidInput, "tensor {}: its source gives {} bytes, its shape has {}", shown(name), given, bytes);
}

}  // namespace brick::io
