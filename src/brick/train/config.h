// What `brick tune` can be told; the same names are its flags, the keys of [tune] in a federation's TOML and JSON.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace brick::train {

struct TuneConfig {
  int64_t rank = 8;
  double alpha = 16;
  bool rslora = false;
  std::string targets = "all";
  double dropout = 0;
  bool masked = false;
  double lr = 3e-4;
  std::string schedule = "cosine";  // constant, linear, cosine
  double warmup = 0.03;             // share of the steps
  double weight_decay = 0;
  double clip = 1;  // 0: none
  double epochs = 1;
  int64_t steps = 0;  // above 0: instead of epochs
  int64_t batch_tokens = 1024;
  int64_t batch_records = 0;  // above 0: instead of batch_tokens
  int64_t accumulate = 1;
  int64_t length = 512;
  std::string loss = "response";  // response, all
  std::string chat_template;      // empty: the model's own
  bool shuffle = true;
  std::string memory = "auto";  // auto, low, fast

  template <class Visit>
  void fields(Visit&& visit) {
    visit("rank", rank, "rank of the adapter");
    visit("alpha", alpha, "scale: alpha / rank (alpha / sqrt(rank) with rslora)");
    visit("rslora", rslora, "rank-stabilised scale (Kalajdzievski 2023)");
    visit("targets", targets, "all, names such as q_proj,v_proj, or a regular expression");
    visit("dropout", dropout, "dropout of the branch's input, in [0, 1)");
    visit("masked", masked, "keep the delta, and so the merged block, inside the block's mask");
    visit("lr", lr, "peak learning rate of AdamW");
    visit("schedule", schedule, "constant, linear or cosine");
    visit("warmup", warmup, "share of the steps that warm up");
    visit("weight_decay", weight_decay, "decoupled weight decay");
    visit("clip", clip, "largest gradient norm; 0 for none");
    visit("epochs", epochs, "passes over the data");
    visit("steps", steps, "optimizer steps, instead of epochs");
    visit("batch_tokens", batch_tokens, "most tokens of a packed batch");
    visit("batch_records", batch_records, "records a batch, instead of batch-tokens");
    visit("accumulate", accumulate, "batches a step");
    visit("length", length, "longest record in tokens; longer ones are cut on the right");
    visit("loss", loss, "response: the assistant's tokens; all: every token");
    visit("template", chat_template, "chat template (default: the model's own)");
    visit("shuffle", shuffle, "take records in a random order");
    visit("memory", memory,
          "auto: 256 or 512 tokens at a time; fast: whole batches; low: as auto, activations recomputed");
  }

  // Error(kInvalidInput) naming the field and what it may be.
  void validate() const;
};

}  // namespace brick::train
