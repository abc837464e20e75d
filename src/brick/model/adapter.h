// LoRA adapters (Hu et al. 2021): W x + c B A x with A [r, in], B [out, r], c = alpha / r (or alpha /
// sqrt(r), rsLoRA). Rows of B are in Hugging Face's order.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "brick/base/rng.h"
#include "brick/io/mapped_file.h"
#include "brick/model/model.h"

namespace brick::io {
class SafetensorsFile;
}

namespace brick::model {

struct LoraConfig {
  int64_t rank = 8;
  double alpha = 16;
  bool rslora = false;
  double dropout = 0;              // of the branch's input, while training
  std::vector<Proj> targets{};     // in the order of kProjs
  bool masked = false;             // W x + c (M * BA) x: the delta keeps the block's mask
  std::string mask_hash{};         // of the block that a masked adapter belongs to
  std::string cut_hash{};          // of the structured block that it was made for; empty: of a whole model, or unknown
  std::string base_fingerprint{};  // of the model it was made on; empty where the maker did not say

  float scale() const;  // c
};

struct LoraPair {
  tensor::Tensor a, b;  // [r, in], [out, r]; both empty where the matrix is no target
  bool present() const { return !a.empty(); }
};

struct Adapter {
  LoraConfig config;
  std::vector<std::array<LoraPair, kProjCount>> layers;

  const LoraPair& at(int64_t layer, Proj proj) const {
    return layers[static_cast<size_t>(layer)][static_cast<size_t>(proj)];
  }
  LoraPair& at(int64_t layer, Proj proj) { return layers[static_cast<size_t>(layer)][static_cast<size_t>(proj)]; }
  int64_t parameters() const;
  Adapter clone() const;
};

// "all", a list "q_proj,v_proj" or a regular expression that whole module names ("q_proj") or paths
// ("model.layers.3.self_attn.q_proj") match (ECMAScript). Error where nothing matches.
std::vector<Proj> parse_targets(const std::string& targets);

// A: Kaiming-uniform(sqrt(5)) as PEFT's default, that is uniform in +-1/sqrt(in); B: zero.
Adapter make_adapter(const Model& model, LoraConfig config, uint64_t seed);
// The same shapes, all zero: for gradients and moments.
Adapter zeros_like(const Adapter& adapter);

// Calls visit(layer, proj, pair) on the present pairs in a fixed order.
template <class AdapterLike, class Visit>
void for_each_pair(AdapterLike& adapter, Visit&& visit) {
  for (size_t layer = 0; layer < adapter.layers.size(); ++layer)
    for (Proj proj : kProjs)
      if (auto& pair = adapter.at(static_cast<int64_t>(layer), proj); pair.present())
        visit(static_cast<int64_t>(layer), proj, pair);
}

// Error(kMismatch) naming the matrix if the adapter does not fit: shapes, layers, an adapter of another structured
// block, or a masked one on anything but its own block.
void check_fits(const Adapter& adapter, const Model& model);

// PEFT folders: adapter_config.json and adapter_model.safetensors (f32, f16 or bf16 read; f32 written). A
// masked adapter carries peft_type LORA with a `brick` section; only models with the same mask take it
// (check_fits). `path` of save_adapter must be an existing folder: callers make it atomic.
Adapter load_adapter(const std::string& path);

// Such a folder opened, its numbers unread: a few kB an adapter, however large it is.
class AdapterFile {
 public:
  // Checks what load_adapter checks, except that values are finite.
  explicit AdapterFile(const std::string& path);

  const LoraConfig& config() const { return config_; }
  int64_t layers() const { return static_cast<int64_t>(layers_.size()); }
  // Of A [r, in] or B [out, r]; empty where the matrix is no target.
  tensor::Shape shape(int64_t layer, Proj proj, bool is_b) const;
  // One matrix's factors as f32; none of the file's pages stay. From any thread.
  LoraPair read(int64_t layer, Proj proj) const;

 private:
  struct Slot {
    uint64_t offset = 0;  // in the file
    int64_t rows = 0, cols = 0;
    tensor::DType dtype{};
    bool present() const { return rows > 0; }
  };
  using LayerSlots = std::array<std::array<Slot, 2>, kProjCount>;  // A, B

  void find_factors(const io::SafetensorsFile& file);
  tensor::Tensor read(const Slot& slot) const;

  LoraConfig config_;
  std::vector<LayerSlots> layers_;
  std::shared_ptr<const io::MappedFile> file_;
};

void save_adapter(const Adapter& adapter, const std::string& base_name, const std::string& path);

}  // namespace brick::model
