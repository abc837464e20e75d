#include "brick/kernels/context.h"

#include <hwy/targets.h>

#include <oneapi/dnnl/dnnl.hpp>

#include "brick/base/cpu.h"
#include "brick/base/error.h"

namespace brick::kernels {

std::string_view name(Compute compute) { return compute == Compute::kF32 ? "f32" : "bf16"; }

Compute choose_compute(std::string_view wanted) {
  if (wanted == "f32") return Compute::kF32;
  if (wanted == "auto") return has_bf16_arithmetic() ? Compute::kBf16 : Compute::kF32;
  if (wanted != "bf16") fail(ErrorCode::kInvalidInput, "compute '{}': expected auto, f32 or bf16", wanted);
  if (!has_bf16_arithmetic())
    fail(ErrorCode::kUnsupported, "compute bf16: instruction set {} has no bfloat16 arithmetic; use f32",
         name(active_isa()));
  return Compute::kBf16;
}

bool rounds_activations(std::string_view wanted) { return wanted == "auto"; }

void apply_isa_limit() {
  switch (active_isa()) {
    case Isa::kSse4:
      hwy::SetSupportedTargetsForTest(HWY_SSE4);
      dnnl::set_max_cpu_isa(dnnl::cpu_isa::sse41);
      return;
    case Isa::kAvx2:
      hwy::SetSupportedTargetsForTest(HWY_AVX2 | HWY_SSE4);
      dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx2);
      return;
    case Isa::kAvx512:
      dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx512_core_vnni);
      return;
    case Isa::kAvx512Bf16:
      dnnl::set_max_cpu_isa(dnnl::cpu_isa::avx512_core_bf16);
      return;
    case Isa::kAmx:
      return;
  }
}

float* Context::scratch(Slot slot, int64_t floats) {
  tensor::Tensor& memory = scratch_[slot];
  if (memory.size() < floats) {
    memory = tensor::Tensor();
    memory = tensor::Tensor(tensor::DType::kF32, {floats});
  }
  return memory.f32();
}

}  // namespace brick::kernels
