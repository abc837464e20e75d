#include "brick/tensor/tensor.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>

#include "brick/base/checked.h"

namespace brick::tensor {

int64_t element_count(const Shape& shape) {
  int64_t count = 1;
  for (int64_t dimension : shape) count = checked_mul(count, dimension, "tensor shape");
  return count;
}

int64_t byte_count(DType dtype, const Shape& shape) {
  if (shape.empty()) return info(dtype).block_bytes;
  int64_t rows = 1;
  for (size_t i = 0; i + 1 < shape.size(); ++i) rows = checked_mul(rows, shape[i], "tensor shape");
  return checked_mul(rows, row_bytes(dtype, shape.back()), "tensor shape");
}

namespace {

constexpr size_t kAlignment = 64;
#ifdef BRICK_SANITIZED
constexpr size_t kLeastMapped = SIZE_MAX;  // sanitizers watch what calloc gives
#else
constexpr size_t kLeastMapped = 1 << 18;
#endif

// Products meet many rows at once, each on a page of its own: with the large pages that are asked for here fewer
// translations miss. Neighbouring mappings of one kind become one, so that smaller tensors get them, too. Null on
// failure.
std::byte* map_zeroed(size_t bytes) {
  void* memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  ::madvise(memory, bytes, MADV_HUGEPAGE);  // where there are none, nothing changes
  return static_cast<std::byte*>(memory);
}

}  // namespace

Tensor::Tensor(DType dtype, Shape shape) : dtype_(dtype), shape_(std::move(shape)) {
  size_bytes_ = static_cast<size_t>(byte_count(dtype_, shape_));
  // Either way large blocks come from the kernel already zero, so they cost nothing until they are touched.
  const bool mapped = size_bytes_ >= kLeastMapped;
  std::byte* memory =
      mapped ? map_zeroed(size_bytes_) : static_cast<std::byte*>(std::calloc(size_bytes_ + kAlignment, 1));
  if (memory == nullptr) fail(ErrorCode::kIo, "cannot allocate {} bytes for a tensor: not enough memory", size_bytes_);
  if (mapped) {
    data_ = {memory, Free{0, size_bytes_}};
  } else {
    const size_t shift = kAlignment - reinterpret_cast<uintptr_t>(memory) % kAlignment;
    data_ = {memory + shift, Free{shift, 0}};
  }
}

void Tensor::Free::operator()(std::byte* memory) const {
  if (mapped > 0)
    ::munmap(memory, mapped);
  else
    std::free(memory - shift);
}

Tensor Tensor::clone() const {
  Tensor copy(dtype_, shape_);
  if (size_bytes_ > 0) std::memcpy(copy.data_.get(), data_.get(), size_bytes_);
  return copy;
}

int64_t Tensor::size() const { return data_ == nullptr ? 0 : element_count(shape_); }

float* Tensor::f32() {
  BRICK_ASSERT(dtype_ == DType::kF32);
  return reinterpret_cast<float*>(data_.get());
}
const float* Tensor::f32() const {
  BRICK_ASSERT(dtype_ == DType::kF32);
  return reinterpret_cast<const float*>(data_.get());
}

MatView Tensor::mat() {
  BRICK_ASSERT(shape_.size() == 2);
  return {f32(), shape_[0], shape_[1]};
}
ConstMatView Tensor::mat() const {
  BRICK_ASSERT(shape_.size() == 2);
  return {f32(), shape_[0], shape_[1]};
}

Tensor matrix(int64_t rows, int64_t cols) { return Tensor(DType::kF32, {rows, cols}); }

}  // namespace brick::tensor
