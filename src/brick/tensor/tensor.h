// The one owner of tensor memory, and the view of an encoded tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "brick/tensor/dtype.h"
#include "brick/tensor/view.h"

namespace brick::tensor {

using Shape = std::vector<int64_t>;

int64_t element_count(const Shape& shape);            // checked
int64_t byte_count(DType dtype, const Shape& shape);  // checked; rows are the last dimension

// A tensor whose bytes live elsewhere (a mapped file, a Tensor).
struct TensorView {
  DType dtype = DType::kF32;
  Shape shape;
  std::span<const std::byte> bytes;
};

// Owns 64-byte aligned memory, zeroed on construction. Never resizes.
class Tensor {
 public:
  Tensor() = default;
  Tensor(DType dtype, Shape shape);
  Tensor(Tensor&&) = default;
  Tensor& operator=(Tensor&&) = default;

  Tensor clone() const;

  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int64_t size() const;  // elements
  std::span<std::byte> bytes() { return {data_.get(), size_bytes_}; }
  std::span<const std::byte> bytes() const { return {data_.get(), size_bytes_}; }
  bool empty() const { return size_bytes_ == 0; }

  // Valid as long as this Tensor. f32 only.
  float* f32();
  const float* f32() const;
  MatView mat();  // two dimensions
  ConstMatView mat() const;
  TensorView view() const { return {dtype_, shape_, bytes()}; }

 private:
  struct Free {
    size_t shift;   // of the aligned memory in its block
    size_t mapped;  // bytes, where it is a mapping of its own; else 0
    Free() : Free(0, 0) {}
    Free(size_t shift_bytes, size_t mapped_bytes) : shift(shift_bytes), mapped(mapped_bytes) {}
    void operator()(std::byte* memory) const;
  };
  DType dtype_ = DType::kF32;
  Shape shape_;
  size_t size_bytes_ = 0;
  std::unique_ptr<std::byte[], Free> data_;
};

Tensor matrix(int64_t rows, int64_t cols);  // f32, zeroed

}  // namespace brick::tensor
