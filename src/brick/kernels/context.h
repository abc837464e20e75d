// What a kernel call needs besides its operands: the arithmetic and reusable scratch memory. One Context serves
// one caller at a time; it is passed, never global.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "brick/tensor/tensor.h"

namespace brick::kernels {

// Arithmetic of the dense products; in bfloat16 of activations and attention too, where bf16_layers.h of model/ runs.
enum class Compute : uint8_t { kF32, kBf16 };

std::string_view name(Compute compute);

// "auto" (the fastest this machine has), "f32" or "bf16" (Error where there is no such arithmetic).
Compute choose_compute(std::string_view wanted);

// Whether products of one to four rows may round their activations to integers, as they do for speed in text generation
// with compute "auto": beside weights in block formats, see integer_dot.h and sparse_row.h.
bool rounds_activations(std::string_view wanted);

// Makes Highway and oneDNN keep to active_isa(). Call once, before the first kernel.
void apply_isa_limit();

class Context {
 public:
  explicit Context(Compute compute = Compute::kF32) : compute_(compute) {}

  Compute compute() const { return compute_; }
  void set_compute(Compute compute) { compute_ = compute; }
  bool rounds_activations() const { return rounds_activations_; }
  void set_rounds_activations(bool rounds) { rounds_activations_ = rounds; }

  // Scratch for the callee named by `slot`, at least `floats` long; valid until the next call with that slot.
  // It grows on first use and is then reused.
  enum Slot { kWeights, kInput, kBranch, kThin, kAttention, kHead, kSlots };
  float* scratch(Slot slot, int64_t floats);

 private:
  Compute compute_;
  bool rounds_activations_ = false;
  tensor::Tensor scratch_[kSlots];
};

}  // namespace brick::kernels
