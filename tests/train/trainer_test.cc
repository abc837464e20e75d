#include "brick/train/trainer.h"

#include <gtest/gtest.h>

#include <fstream>
#include <stdexcept>

#include "brick/base/process.h"
#include "brick/io/json_file.h"
#include "brick/train/checkpoint.h"
#include "model/expect_error.h"
#include "model/tiny_model.h"
#include "train/gradients.h"

namespace brick::train {
namespace {

using model::Activations;
using model::Adapter;
using model::expect_error;
using model::Proj;

constexpr double kLoss = 1e-6;   // relative, of float32 losses summed in another order
constexpr double kAngle = 1e-6;  // of adapters after a few AdamW steps on gradients that differ by rounding
constexpr double kNorm = 1e-5;

struct TestRun {
  model::Model model = model::tiny_model();
  std::vector<data::TokenSequence> sequences = random_sequences(7, model.config.vocab, 1);
  TuneConfig config;
  TuneOptions options;
  std::vector<StepRecord> steps;

  TestRun() {
    config.rank = 4;
    config.lr = 1e-2;
    config.batch_tokens = 24;
    config.memory = "fast";
  }
  TuneResult operator()() {
    steps.clear();
    if (!options.on_step) options.on_step = [this](const StepRecord& step) { steps.push_back(step); };
    kernels::Context context;
    return tune(model, sequences, config, options, context, silent_sink());
  }
  MemoryPlan plan(kernels::Compute compute = kernels::Compute::kF32) const {
    return plan_memory(model, sequences, config, options, compute);
  }
};

void spoil(model::Model& model) {
  tensor::Tensor weight = model.layers[0][Proj::kDown].to_f32();
  weight.f32()[3] = NAN;
  model.layers[0][Proj::kDown] = tensor::Matrix::dense(std::move(weight));
}

TEST(Tune, LearnsItsRecords) {
  TestRun run;
  run.config.steps = 60;
  const TuneResult result = run();
  EXPECT_LT(result.loss_last, 0.5 * result.loss_first);
  ASSERT_EQ(run.steps.size(), 60u);
  EXPECT_EQ(result.steps, 60);
  EXPECT_EQ(result.loss_first, run.steps.front().loss);
  EXPECT_EQ(result.loss_last, run.steps.back().loss);
  int64_t tokens = 0;
  for (const StepRecord& step : run.steps) {
    EXPECT_EQ(step.step, &step - run.steps.data() + 1);
    tokens += step.tokens;
  }
  EXPECT_EQ(result.tokens, tokens);
  EXPECT_TRUE(result.stopped.empty());
  EXPECT_EQ(result.adapter.config.rank, 4);
  EXPECT_EQ(result.adapter.config.base_fingerprint, model::fingerprint(run.model));
}

TEST(Tune, EpochsCountEveryTokenOnce) {
  TestRun run;
  run.config.epochs = 2;
  const TuneResult result = run();
  EXPECT_EQ(result.tokens, 2 * data::count_tokens(run.sequences));
  EXPECT_EQ(result.supervised_tokens, 2 * data::count_supervised(run.sequences));
  run.config.batch_records = 1;
  run.config.epochs = 1.5;  // of 7 records: 7 steps and half of 7, rounded up
  EXPECT_EQ(run().steps, 11);
}

TEST(Tune, SameSeedSameBits) {
  TestRun run;
  run.config.steps = 6;
  run.config.dropout = 0.2;
  run.options.seed = 3;
  const TuneResult first = run(), again = run();
  EXPECT_TRUE(same_bits(first.adapter, again.adapter));
  EXPECT_EQ(first.loss_last, again.loss_last);
  run.config.memory = "low";
  EXPECT_TRUE(same_bits(first.adapter, run().adapter));
  run.options.seed = 4;
  EXPECT_FALSE(same_bits(first.adapter, run().adapter));
}

TEST(Tune, AccumulatedBatchesAreOneBatch) {
  TestRun run;
  run.sequences.resize(6);
  Adapter init = model::make_adapter(run.model, lora_config(run.model, run.config), 0);
  model::randomise(init, 1);
  run.options.init = &init;
  run.config.steps = 3;
  run.config.shuffle = false;
  run.config.batch_records = 3;
  const TuneResult whole = run();
  const std::vector<StepRecord> wanted = run.steps;
  const auto same = [&](int64_t records, int64_t accumulate) {
    run.config.batch_records = records;
    run.config.accumulate = accumulate;
    const TuneResult result = run();
    bool equal = result.tokens == whole.tokens && result.supervised_tokens == whole.supervised_tokens;
    for (size_t i = 0; i < wanted.size(); ++i)
      equal = equal && std::abs(run.steps[i].loss / wanted[i].loss - 1) <= kLoss &&
              std::abs(run.steps[i].grad_norm / wanted[i].grad_norm - 1) <= kNorm;
    const Difference worst = worst_difference(result.adapter, whole.adapter);
    return equal && worst.angle <= kAngle && worst.norm <= kNorm;
  };
  EXPECT_TRUE(same(1, 3));
  EXPECT_FALSE(same(1, 2));  // negative control
}

TEST(Tune, DropoutDiffersBetweenAccumulatedBatches) {
  TestRun run;
  // The same record twice: equal dropout in both batches would give the loss of one alone.
  run.sequences = {run.sequences[3], run.sequences[3]};
  run.config.dropout = 0.5;
  Adapter init = model::make_adapter(run.model, lora_config(run.model, run.config), 0);
  model::randomise(init, 1, 0.5);
  run.options.init = &init;
  run.config.steps = 1;
  run.config.batch_records = 1;
  const double alone = run().loss_first;
  run.config.accumulate = 2;
  EXPECT_GT(std::abs(run().loss_first - alone), 1e-4);
}

TEST(Tune, ClipLimitsTheNorm) {
  TestRun run;
  run.config.steps = 1;
  run.config.clip = 0;
  const Adapter free = run().adapter;
  const double norm = run.steps[0].grad_norm;
  run.config.clip = 2 * norm;
  EXPECT_TRUE(same_bits(free, run().adapter));
  run.config.clip = norm / 2;
  run();
  EXPECT_EQ(run.steps[0].grad_norm, norm);  // reported as it was
}

TEST(Tune, StopsBeforeTheFirstUpdateWhereWeightsAreNan) {
  TestRun run;
  spoil(run.model);
  run.config.steps = 3;
  Adapter init = model::make_adapter(run.model, lora_config(run.model, run.config), 0);
  run.options.init = &init;
  const TuneResult result = run();
  EXPECT_NE(result.stopped.find("step 1"), std::string::npos) << result.stopped;
  EXPECT_EQ(result.steps, 0);
  EXPECT_TRUE(run.steps.empty());
  EXPECT_TRUE(same_bits(result.adapter, init));
}

TEST(Tune, StopsWithAFiniteAdapterWhereItDiverges) {
  TestRun run;
  run.config.lr = 1e36;
  run.config.schedule = "constant";
  run.config.warmup = 0;
  run.config.steps = 10;
  const TuneResult result = run();
  EXPECT_FALSE(result.stopped.empty());
  EXPECT_LT(result.steps, 10);
  EXPECT_TRUE(all_finite(result.adapter));
}

TEST(Tune, AnInitIsMaskedWhereThatIsAskedFor) {
  TestRun run;
  run.model = model::tiny_block(run.model);
  run.config.steps = 3;
  const Adapter init = model::make_adapter(run.model, lora_config(run.model, run.config), 0);
  run.options.init = &init;
  const Adapter plain = run().adapter;
  EXPECT_FALSE(plain.config.masked);
  run.config.masked = true;
  const Adapter masked = run().adapter;
  EXPECT_FALSE(same_bits(masked, plain));
  Adapter masked_init = init.clone();
  masked_init.config.masked = true;
  masked_init.config.mask_hash = model::mask_hash(run.model);
  run.options.init = &masked_init;
  EXPECT_TRUE(same_bits(masked, run().adapter));
  EXPECT_EQ(masked.config.mask_hash, masked_init.config.mask_hash);
  run.model = model::tiny_block(model::tiny_model(), 0.5, tensor::SparseCoding::kValues, tensor::DType::kF32, 1);
  expect_error(ErrorCode::kMismatch, "the adapter is masked", [&] { run(); });
}

TEST(Tune, RefusesWhatDoesNotFit) {
  TestRun run;
  run.config.rank = 0;
  expect_error(ErrorCode::kInvalidInput, "rank", [&] { run(); });
  run.config.rank = 4;
  run.config.masked = true;  // on a dense model: a plain adapter, as its dense stand-in in a federation
  run.config.steps = 1;
  EXPECT_FALSE(run().adapter.config.masked);
  const model::Model other = model::tiny_model({.hidden = 48, .head_dim = 12});
  const Adapter init = model::make_adapter(other, lora_config(other, run.config), 0);
  run.options.init = &init;
  expect_error(ErrorCode::kMismatch, "q_proj", [&] { run(); });
  run.options.init = nullptr;
  run.sequences.clear();
  expect_error(ErrorCode::kInvalidInput, "no records", [&] { run(); });
}

// Interrupted after `steps` steps.
void interrupt(TestRun& run, int64_t steps) {
  run.options.on_step = [steps](const StepRecord& step) {
    if (step.step == steps) throw std::runtime_error("interrupted");
  };
  EXPECT_THROW(run(), std::runtime_error);
  run.options.on_step = nullptr;
}

struct Resumable : TestRun {
  TempFolder folder;

  Resumable() {
    config.steps = 9;  // more than two epochs
    config.dropout = 0.1;
    config.accumulate = 2;
    options.seed = 5;
    options.checkpoint = folder.file("checkpoint");
    options.save_every = 2;
  }
};

TEST(Tune, ResumedIsUnbroken) {
  Resumable run;
  const TuneResult unbroken = run();
  for (const int64_t stop : {3, 4, 7}) {
    interrupt(run, stop);
    ASSERT_TRUE(std::filesystem::exists(run.options.checkpoint));
    run.options.resume = true;
    const TuneResult resumed = run();
    run.options.resume = false;
    // The step of the interruption was not saved: the run repeats from the last even one.
    EXPECT_EQ(run.steps.front().step, (stop - 1) / 2 * 2 + 1);
    EXPECT_TRUE(same_bits(resumed.adapter, unbroken.adapter)) << stop;
    EXPECT_EQ(resumed.loss_first, unbroken.loss_first);
    EXPECT_EQ(resumed.loss_last, unbroken.loss_last);
    EXPECT_EQ(resumed.tokens, unbroken.tokens);
    EXPECT_EQ(resumed.supervised_tokens, unbroken.supervised_tokens);
  }
}

TEST(Tune, AFinishedRunGivesItsResultAgainWithoutAStep) {
  Resumable run;
  for (const double minutes : {0.0, 1e-9}) {  // the latter is over after a step
    run.options.minutes = minutes;
    run.options.resume = false;
    const TuneResult whole = run();
    EXPECT_EQ(whole.steps, minutes > 0 ? 1 : 9);
    run.options.resume = true;
    const TuneResult again = run();
    EXPECT_TRUE(run.steps.empty());
    EXPECT_EQ(again.steps, whole.steps);
    EXPECT_EQ(again.loss_last, whole.loss_last);
    EXPECT_TRUE(same_bits(again.adapter, whole.adapter));
  }
}

TEST(Tune, ResumedWithoutCheckpointBegins) {
  Resumable run;
  const TuneResult whole = run();
  remove_checkpoint(run.options.checkpoint);
  EXPECT_FALSE(std::filesystem::exists(run.options.checkpoint));
  run.options.resume = true;
  EXPECT_TRUE(same_bits(run().adapter, whole.adapter));
  std::filesystem::remove(run.options.checkpoint / "progress.json");  // killed amid removing it
  EXPECT_TRUE(same_bits(run().adapter, whole.adapter));
}

TEST(Tune, AResumedRunThatStopsKeepsTheCheckpointsAdapter) {
  Resumable run;
  interrupt(run, 5);
  Adapter saved = model::make_adapter(run.model, lora_config(run.model, run.config), run.options.seed);
  const Adapter fresh = saved.clone();
  AdamW optimizer(saved, {});
  const auto folder = run.options.checkpoint;
  const std::string hash = io::read_json_file(folder / "progress.json").at("run_hash");
  ASSERT_TRUE(load_checkpoint(folder, hash, 9, saved, optimizer).has_value());
  spoil(run.model);  // which the run's hash does not cover without an identity
  run.options.resume = true;
  const TuneResult result = run();
  EXPECT_NE(result.stopped.find("step 5"), std::string::npos) << result.stopped;
  EXPECT_TRUE(same_bits(result.adapter, saved));
  EXPECT_FALSE(same_bits(result.adapter, fresh));
  EXPECT_TRUE(std::filesystem::exists(folder));
}

TEST(Tune, RefusesAnotherRunsCheckpoint) {
  const auto refused = [](const std::function<void(TestRun&)>& change) {
    Resumable run;
    interrupt(run, 3);
    change(run);
    run.options.resume = true;
    expect_error(ErrorCode::kMismatch, "belongs to another run", [&] { run(); });
  };
  refused([](TestRun& run) { run.options.seed = 6; });
  refused([](TestRun& run) { run.config.lr = 2e-2; });
  refused([](TestRun& run) { run.config.targets = "q_proj"; });
  refused([](TestRun& run) { run.sequences[0].ids[0] ^= 1; });
  refused([](TestRun& run) { run.sequences[0].supervised.back() ^= 1; });
  refused([](TestRun& run) { run.options.run_identity = "another model"; });
}

TEST(Tune, RefusesADamagedCheckpoint) {
  Resumable run;
  interrupt(run, 3);
  run.options.resume = true;
  const auto state = run.options.checkpoint / "state.safetensors";
  std::filesystem::resize_file(state, std::filesystem::file_size(state) - 1);
  expect_error(ErrorCode::kCorrupt, "state.safetensors", [&] { run(); });
  std::ofstream(run.options.checkpoint / "progress.json") << R"({"step": "three"})";
  expect_error(ErrorCode::kCorrupt, "checkpoint", [&] { run(); });
}

TEST(Tune, RefusesACheckpointThatNoRunWrites) {
  Resumable run;
  interrupt(run, 3);
  run.options.resume = true;
  const auto progress = run.options.checkpoint / "progress.json";
  const nlohmann::json good = io::read_json_file(progress);
  for (const auto& [key, value] : std::vector<std::pair<const char*, nlohmann::json>>{
           {"step", 10}, {"step", -1}, {"optimizer_steps", 3}, {"tokens", -1}, {"seconds", 0}}) {
    nlohmann::json changed = good;
    changed[key] = value;
    if (key == std::string("step")) changed["optimizer_steps"] = value;
    io::write_json_file(progress, changed, true);
    expect_error(ErrorCode::kCorrupt, "of the optimizer", [&] { run(); });
  }
  io::write_json_file(progress, good, true);
  AdamW optimizer(model::make_adapter(run.model, lora_config(run.model, run.config), 0), {});
  Adapter spoiled = model::zeros_like(optimizer.first());
  spoiled.at(0, Proj::kQ).b.f32()[1] = NAN;
  const Progress saved{.step = 2, .seconds = 1, .run_hash = good.at("run_hash")};
  optimizer.set_steps(2);
  save_checkpoint(run.options.checkpoint, saved, spoiled, optimizer);
  expect_error(ErrorCode::kCorrupt, "not finite", [&] { run(); });
}

TEST(Tune, MemoryIsPlannedForWhatIsHeld) {
  TestRun run;
  run.sequences = random_sequences(6, run.model.config.vocab, 1, 200);
  run.config.batch_tokens = 1024;
  kernels::Context context;
  std::vector<int64_t> held;
  const auto expect_plan = [&](const char* memory, int64_t part_tokens, Activations activations) {
    run.config.memory = memory;
    const MemoryPlan plan = run.plan();
    EXPECT_EQ(plan.part_tokens, part_tokens) << memory;
    EXPECT_EQ(plan.activations, activations) << memory;
    const model::Transformer transformer(run.model, context, plan.part_tokens, true, plan.activations);
    held.push_back(transformer.buffer_bytes());
    EXPECT_GE(plan.buffer_bytes, held.back()) << memory;
  };
  expect_plan("fast", 1024, Activations::kKeep);
  expect_plan("auto", 256, Activations::kKeep);
  expect_plan("low", 256, Activations::kRecompute);
  for (const auto& [memory, activations] :
       {std::pair{"auto", Activations::kKeep}, std::pair{"low", Activations::kRecompute}}) {
    run.config.memory = memory;
    const MemoryPlan plan = run.plan(kernels::Compute::kBf16);
    EXPECT_EQ(plan.part_tokens, 512);
    EXPECT_EQ(plan.bf16_rank, run.config.rank);
    const model::Transformer narrow(run.model, context, plan.part_tokens, true, activations, plan.bf16_rank);
    EXPECT_GE(plan.buffer_bytes, narrow.buffer_bytes()) << memory;
    EXPECT_LT(narrow.buffer_bytes(),
              model::Transformer(run.model, context, plan.part_tokens, true, activations).buffer_bytes())
        << memory;
  }
  run.config.dropout = 0.1;
  EXPECT_FALSE(run.plan(kernels::Compute::kBf16).bf16_rank);
  run.config.dropout = 0;
  run.sequences = random_sequences(6, run.model.config.vocab, 1, 600);
  expect_plan("auto", 609, Activations::kKeep);  // the longest record
  EXPECT_GT(held[0], held[1]);
  EXPECT_GT(held[1], held[2]);
}

TEST(Tune, MemoryIsNotPlannedForMoreThanTheRecords) {
  TestRun run;
  run.config.batch_tokens = int64_t{1} << 40;
  run.config.memory = "fast";
  EXPECT_EQ(run.plan().part_tokens, data::count_tokens(run.sequences));
}

TEST(Tune, FastIsRefusedWhereItDoesNotFit) {
  TestRun run;
  run.model.config.ffn = 1 << 15;  // two million tokens then want terabytes
  run.sequences.assign(4000, {std::vector<int32_t>(512), std::vector<uint8_t>(512, 1)});
  run.config.batch_tokens = 1 << 30;
  run.config.memory = "fast";
  expect_error(ErrorCode::kInvalidInput, "use --memory auto", [&] { run.plan(); });
  run.config.memory = "auto";
  EXPECT_EQ(run.plan().part_tokens, 512);
}

// Takes more than any machine has.
struct Vast : Objective {
  void backward(kernels::Context&, const model::Model&, const ForwardPart&, float, std::span<float>,
                tensor::MatView) override {}
  int64_t planned_bytes(std::span<const data::TokenSequence>, int64_t) const override { return int64_t{1} << 55; }
  std::string identity() const override { return "vast"; }
};

TEST(Tune, NamesTheTeacherWhereItDoesNotFit) {
  TestRun run;
  Vast vast;
  run.options.objective = &vast;
  expect_error(ErrorCode::kInvalidInput, "34359738368 for the teacher", [&] { run.plan(); });
  expect_error(ErrorCode::kInvalidInput, "free: give a --teacher of fewer bits", [&] { run.plan(); });
}

std::string refusal(const TestRun& run) {
  try {
    run.plan();
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "the plan fits";
  return {};
}

// The number behind `flag` in the refusal of a plan.
int64_t advised(const TestRun& run, const std::string& flag) {
  const std::string what = refusal(run);
  const size_t at = what.find(flag);
  EXPECT_NE(at, std::string::npos) << what;
  return at == std::string::npos ? 0 : std::stoll(what.substr(at + flag.size()));
}

TEST(Tune, AdvisesARankThatFits) {
  TestRun run;
  run.config.rank = int64_t{1} << 40;
  const int64_t rank = advised(run, "MB are free: --rank ");
  run.config.rank = rank / 2;  // what is free changes from call to call
  EXPECT_NO_THROW(run.plan());
  run.config.rank = 2 * rank;
  EXPECT_THROW(run.plan(), Error);
  run.config.targets = "q_proj";  // needs a small part of that
  EXPECT_NO_THROW(run.plan());
}

TEST(Tune, AdvisesALengthThatFits) {
  TestRun run;
  run.sequences.assign(4000, {std::vector<int32_t>(512), std::vector<uint8_t>(512, 1)});
  run.model.config.ffn = available_memory_bytes() / 4000;  // some 400 tokens of it fit
  const int64_t length = advised(run, "MB are free: --length ");
  EXPECT_GT(length, 100);
  EXPECT_LT(length, 512);
  run.config.batch_records = 4;
  EXPECT_NE(refusal(run).find(" with --batch-records 1 would fit"), std::string::npos) << refusal(run);
  run.config.batch_records = 0;
  run.sequences.assign(4000, {std::vector<int32_t>(static_cast<size_t>(length / 2)),
                              std::vector<uint8_t>(static_cast<size_t>(length / 2), 1)});
  run.config.batch_tokens = length / 2;
  EXPECT_NO_THROW(run.plan());
}

TEST(Tune, NamesASmallerModelWhereNoSettingHelps) {
  TestRun run;
  run.model.config.ffn = int64_t{1} << 34;
  expect_error(ErrorCode::kInvalidInput, "MB are free: take a smaller block", [&] { run.plan(); });
}

TEST(Tune, TheAdapterIsPlannedAsItIsHeld) {
  TestRun run;
  const auto planned = [&] { return run.plan().adapter_bytes; };
  const auto held = [&] {
    return 5 * int64_t{sizeof(float)} *
           model::make_adapter(run.model, lora_config(run.model, run.config), 0).parameters();
  };
  EXPECT_EQ(planned(), held());
  run.config.targets = "q_proj,down_proj";
  EXPECT_EQ(planned(), held());
  const Adapter init = model::make_adapter(run.model, lora_config(run.model, run.config), 0);
  run.config.rank = 64;  // of no account beside an adapter to continue from
  run.config.targets = "all";
  run.options.init = &init;
  EXPECT_EQ(planned(), 5 * int64_t{sizeof(float)} * init.parameters());
}

TEST(Tune, PartsOfABatchAddUpToIt) {
  TestRun run;
  run.sequences = random_sequences(5, run.model.config.vocab, 1, 200);
  run.config.batch_tokens = 1024;
  run.config.steps = 3;
  Adapter init = model::make_adapter(run.model, lora_config(run.model, run.config), 0);
  model::randomise(init, 1);
  run.options.init = &init;
  const TuneResult whole = run();
  const std::vector<StepRecord> wanted = run.steps;
  for (const char* memory : {"auto", "low"}) {
    run.config.memory = memory;
    const TuneResult parts = run();
    ASSERT_EQ(run.steps.size(), wanted.size());
    for (size_t i = 0; i < wanted.size(); ++i) {
      EXPECT_NEAR(run.steps[i].loss, wanted[i].loss, kLoss * wanted[i].loss) << memory;
      EXPECT_EQ(run.steps[i].tokens, wanted[i].tokens) << memory;
    }
    const Difference worst = worst_difference(parts.adapter, whole.adapter);
    EXPECT_LE(worst.angle, kAngle) << memory;
    EXPECT_LE(worst.norm, kNorm) << memory;
    EXPECT_FALSE(same_bits(parts.adapter, whole.adapter)) << memory;  // that is, it was cut
  }
}

// What the loss does not read need not be computed in the last layer.
TEST(Transformer, ACutLastLayerChangesNothingThatIsRead) {
  const model::Model model = model::tiny_model({.layers = 2});
  Adapter adapter = model::make_adapter(model, {.rank = 3, .targets = model::parse_targets("all")}, 0);
  model::randomise(adapter, 1);
  auto sequences = random_sequences(4, model.config.vocab, 2);
  std::fill(sequences[1].supervised.begin(), sequences[1].supervised.end(), uint8_t{0});  // nothing of it is read
  std::fill(sequences[2].supervised.begin(), sequences[2].supervised.end(), uint8_t{1});  // all of it
  for (const Activations activations : {Activations::kKeep, Activations::kRecompute}) {
    const auto cut = loss_and_gradients(model, {&adapter, true}, sequences, activations, true);
    const auto whole = loss_and_gradients(model, {&adapter, true}, sequences, activations, false);
    EXPECT_NEAR(cut.loss, whole.loss, 1e-6 * whole.loss);  // float32; products of other sizes
    const Difference worst = worst_difference(cut.gradients, whole.gradients);
    EXPECT_LE(worst.angle, kAngle);
    EXPECT_LE(worst.norm, kNorm);
  }
}

TEST(Transformer, FirstReadRowsAreTheFirstScoredOnes) {
  const std::vector<int64_t> offsets{0, 3, 7, 9, 12};
  const std::vector<model::ScoredToken> scored{{1, 5}, {7, 6}, {9, 7}, {10, 7}};
  EXPECT_EQ(model::first_read_rows(scored, offsets), (std::vector<int64_t>{1, 7, 7, 9}));
}

// Layers of a block may have widths of their own.
TEST(Transformer, LayersOfUnequalWidths) {
  model::Model model = model::tiny_model({.layers = 3});
  const model::Model narrow = model::tiny_model({.heads = 2, .kv_heads = 1, .ffn = 40, .seed = 4});
  model.layers[1] = narrow.layers[0];
  Adapter adapter = model::make_adapter(model, {.rank = 3, .targets = model::parse_targets("all")}, 0);
  model::randomise(adapter, 1);
  const auto sequences = random_sequences(3, model.config.vocab, 2);
  const auto kept = loss_and_gradients(model, {&adapter, true}, sequences, Activations::kKeep);
  const auto again = loss_and_gradients(model, {&adapter, true}, sequences, Activations::kRecompute);
  EXPECT_EQ(kept.loss, again.loss);
  EXPECT_TRUE(same_bits(kept.gradients, again.gradients));

  // Without training there is one set of buffers for all layers; a cache is as wide as each layer.
  const data::TokenSequence& first = sequences[2];
  kernels::Context context;
  const auto count = static_cast<int64_t>(first.ids.size());
  model::Transformer trained(model, context, count, true), plain(model, context, count),
      stepwise(model, context, count, 3);
  const std::vector<int64_t> offsets{0, count};
  const tensor::MatView wanted = trained.forward({first.ids, offsets}, {&adapter});
  const tensor::MatView whole = plain.forward({first.ids, offsets}, {&adapter});
  model::KvCache cache(model, count);
  for (int64_t t = 0; t < count; ++t) {
    const tensor::MatView one = stepwise.extend(std::span(first.ids).subspan(size_t(t), 1), {&adapter}, cache);
    for (int64_t i = 0; i < wanted.cols; ++i) {
      ASSERT_EQ(whole(t, i), wanted(t, i)) << t;
      ASSERT_NEAR(one(0, i), wanted(t, i), 1e-4) << t;  // float32; other kernels for one row
    }
  }
}

}  // namespace
}  // namespace brick::train
