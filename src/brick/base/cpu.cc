#include "brick/base/cpu.h"

#include <cpuid.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <set>
#include <thread>
#include <utility>

#include "brick/base/error.h"

namespace brick {
namespace {

struct CpuidLeaf {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

CpuidLeaf cpuid(unsigned leaf, unsigned subleaf) {
  CpuidLeaf out;
  __get_cpuid_count(leaf, subleaf, &out.eax, &out.ebx, &out.ecx, &out.edx);
  return out;
}

bool bit(unsigned word, int index) { return (word >> index & 1u) != 0; }

// Whether the operating system saves AMX's tiles, as Linux does since 5.16. Only where it saves AVX registers.
bool saves_tiles() {
  unsigned low = 0, high = 0;
  __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return bit(low, 17) && bit(low, 18);
}

}  // namespace

const char* name(Isa isa) {
  switch (isa) {
    case Isa::kSse4:
      return "sse4";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvx512:
      return "avx512";
    case Isa::kAvx512Bf16:
      return "avx512_bf16";
    case Isa::kAmx:
      return "amx";
  }
  return "unknown";
}

std::vector<Isa> available_isas() {
  std::vector<Isa> found{Isa::kSse4};
  __builtin_cpu_init();  // GCC's check covers the operating system's saving of the wide registers
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return found;
  found.push_back(Isa::kAvx2);
  if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
      !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
    return found;
  found.push_back(Isa::kAvx512);
  if (!bit(cpuid(7, 1).eax, 5)) return found;
  found.push_back(Isa::kAvx512Bf16);
  const unsigned edx = cpuid(7, 0).edx;
  if (bit(edx, 22) && bit(edx, 24) && saves_tiles()) found.push_back(Isa::kAmx);
  return found;
}

Isa active_isa() {
  static const Isa chosen = [] {
    const std::vector<Isa> found = available_isas();
    const char* wanted = std::getenv("BRICK_ISA");
    if (wanted == nullptr || *wanted == '\0') return found.back();
    for (Isa isa : found)
      if (std::string(wanted) == name(isa)) return isa;
    std::string list;
    for (Isa isa : found) list += std::string(list.empty() ? "" : " ") + name(isa);
    fail(ErrorCode::kUnsupported, "BRICK_ISA={}: this CPU has {}", wanted, list);
  }();
  return chosen;
}

bool has_bf16_arithmetic() { return active_isa() >= Isa::kAvx512Bf16; }

Vnni active_vnni() {
  static const Vnni found = [] {
    if (active_isa() >= Isa::kAvx512 && __builtin_cpu_supports("avx512vnni")) return Vnni::kAvx512;
    const bool avx_vnni = bit(cpuid(7, 1).eax, 4) && active_isa() == available_isas().back();
    return active_isa() >= Isa::kAvx2 && avx_vnni ? Vnni::kAvx : Vnni::kNone;
  }();
  return found;
}

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  std::string family, model;
  const auto value = [](const std::string& line) { return line.substr(std::min(line.find(':') + 2, line.size())); };
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("cpu family", 0) == 0) family = value(line);
    if (line.rfind("model\t", 0) == 0) model = value(line);
    if (line.rfind("model name", 0) == 0)
      return family.empty() ? value(line) : value(line) + " (family " + family + ", model " + model + ")";
  }
  return "unknown";
}

int physical_cores() {
  std::ifstream file("/proc/cpuinfo");
  std::set<std::pair<std::string, std::string>> cores;
  std::string package;
  for (std::string line; std::getline(file, line);) {
    if (line.rfind("physical id", 0) == 0) package = line;
    if (line.rfind("core id", 0) == 0) cores.emplace(package, line);
  }
  const int logical = static_cast<int>(std::thread::hardware_concurrency());
  if (cores.empty()) return logical > 0 ? logical : 1;
  return logical > 0 ? std::min(static_cast<int>(cores.size()), logical) : static_cast<int>(cores.size());
}

}  // namespace brick
