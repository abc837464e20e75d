// `brick bench`: timings of this machine.
#pragma once

#include "brick/pipeline/workbench.h"

namespace brick::pipeline {

struct BenchJob {
  std::string model, what = "train,prefill,decode";
  int64_t tokens = 1024;  // a training batch, in sequences of `length`
  int64_t length = 256, rank = 8, decode_tokens = 64, repeats = 5;
  std::string memory = "auto";
  std::string ids;             // .npy of a training batch's ids [sequences, length], instead of random ones
  bool masked = false;         // the adapter, of a block
  bool calibrate = false;      // measure the kernel table and the decoding profile first, and time with that table
  std::string calibrate_file;  // for both; empty: none
};

// {"train_tokens_per_second", "prefill_tokens_per_second", "decode_tokens_per_second" (medians, with "..._spread":
// [low, high]), "train_loss", "weights_mb" (as they are held), "decode_weights_mb" (as decoding holds them),
// "decode_prepare_seconds" (until it does), "decode_resident_mb" (the whole process at the end of decoding),
// "peak_rss_mb", "isa", "threads"}. Token ids are drawn at random from the seed, unless `ids` has
// those of training. Its gradients are not clipped. With `calibrate` also the kernel
// table's members (kernel_table_file.h) and the decoding profile (decode_profile.h) as "decode"; these are what the
// file has.
nlohmann::json bench(const BenchJob& job, const RunSettings& settings, ProgressSink& sink);

// Median tokens a second of decoding one at a time, as bench() times it.
double decode_speed(const model::Model& model, const RunSettings& settings);

}  // namespace brick::pipeline
