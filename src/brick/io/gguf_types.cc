// ggml's tensor types and the names of GGUF's value types.
#include <algorithm>
#include <array>

#include "brick/base/error.h"
#include "brick/io/gguf.h"

namespace brick::io {
namespace {

using tensor::DType;

// ggml.h, ggml-common.h; ids without an entry were removed from ggml.
constexpr std::array<GgmlType, 34> kTypes{{
    {0, "F32", 1, 4},         {1, "F16", 1, 2},         {2, "Q4_0", 32, 18},      {3, "Q4_1", 32, 20},
    {6, "Q5_0", 32, 22},      {7, "Q5_1", 32, 24},      {8, "Q8_0", 32, 34},      {9, "Q8_1", 32, 36},
    {10, "Q2_K", 256, 84},    {11, "Q3_K", 256, 110},   {12, "Q4_K", 256, 144},   {13, "Q5_K", 256, 176},
    {14, "Q6_K", 256, 210},   {15, "Q8_K", 256, 292},   {16, "IQ2_XXS", 256, 66}, {17, "IQ2_XS", 256, 74},
    {18, "IQ3_XXS", 256, 98}, {19, "IQ1_S", 256, 50},   {20, "IQ4_NL", 32, 18},   {21, "IQ3_S", 256, 110},
    {22, "IQ2_S", 256, 82},   {23, "IQ4_XS", 256, 136}, {24, "I8", 1, 1},         {25, "I16", 1, 2},
    {26, "I32", 1, 4},        {27, "I64", 1, 8},        {28, "F64", 1, 8},        {29, "IQ1_M", 256, 56},
    {30, "BF16", 1, 2},       {34, "TQ1_0", 256, 54},   {35, "TQ2_0", 256, 66},   {39, "MXFP4", 32, 17},
    {40, "NVFP4", 64, 36},    {41, "Q1_0", 128, 18},
}};

struct Pair {
  uint32_t id;
  DType dtype;
};
constexpr std::array<Pair, 13> kComputable{{{0, DType::kF32},
                                            {1, DType::kF16},
                                            {2, DType::kQ4_0},
                                            {3, DType::kQ4_1},
                                            {6, DType::kQ5_0},
                                            {7, DType::kQ5_1},
                                            {8, DType::kQ8_0},
                                            {12, DType::kQ4_K},
                                            {13, DType::kQ5_K},
                                            {14, DType::kQ6_K},
                                            {26, DType::kI32},
                                            {27, DType::kI64},
                                            {30, DType::kBF16}}};

}  // namespace

const GgmlType* find_ggml_type(uint32_t id) {
  const auto* type = std::find_if(kTypes.begin(), kTypes.end(), [&](const GgmlType& t) { return t.id == id; });
  return type == kTypes.end() ? nullptr : type;
}

const GgmlType* find_ggml_type(DType dtype) {
  for (const Pair& pair : kComputable)
    if (pair.dtype == dtype) return find_ggml_type(pair.id);
  return nullptr;
}

std::optional<DType> dtype_of_ggml(uint32_t id) {
  for (const Pair& pair : kComputable)
    if (pair.id == id) return pair.dtype;
  return std::nullopt;
}

std::string ggml_type_name(uint32_t id) {
  const GgmlType* type = find_ggml_type(id);
  return type != nullptr ? std::string(type->name) : fmt::format("type {}", id);
}

std::string type_name(const GgufValue& value) {
  static constexpr std::array<const char*, 12> kNames{"u8",  "i8",   "u16",    "i16", "u32", "i32",
                                                      "f32", "bool", "string", "u64", "i64", "f64"};
  const size_t index = value.index();
  return index < kNames.size() ? kNames[index] : std::string("array of ") + kNames[index - kNames.size()];
}

}  // namespace brick::io
