// Which instruction sets this CPU has, and which one the kernels use.
#pragma once

#include <string>
#include <vector>

namespace brick {

// In rising order; each includes those before it.
enum class Isa { kSse4, kAvx2, kAvx512, kAvx512Bf16, kAmx };

const char* name(Isa isa);

// Instruction sets found on this CPU, lowest first.
std::vector<Isa> available_isas();

// The highest available one, or the one that BRICK_ISA names (Error if unknown or absent). Read once.
Isa active_isa();

// True where bfloat16 products run in hardware under active_isa().
bool has_bf16_arithmetic();

// Byte products that sum in fours (vpdpbusd), in their two encodings. None where BRICK_ISA asks for less than this
// CPU's highest instruction set, so that plain AVX2 is tested too.
enum class Vnni { kNone, kAvx, kAvx512 };
Vnni active_vnni();

// "AMD EPYC (family 25, model 1)", from the operating system: virtual machines often hide the rest of the name, and
// designs differ much in speed. "unknown" if it does not say.
std::string cpu_model();
int physical_cores();

}  // namespace brick
