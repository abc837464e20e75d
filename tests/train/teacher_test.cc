// A teacher's logits on disk, and training by them.
#include "brick/train/teacher.h"

#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <functional>
#include <stdexcept>

#include "brick/io/provenance.h"
#include "brick/io/safetensors.h"
#include "brick/train/trainer.h"
#include "model/expect_error.h"
#include "model/tiny_model.h"
#include "train/gradients.h"

namespace brick::train {
namespace {

using model::expect_error;

constexpr double kHalf = 2e-3;  // of probabilities whose logarithms, down to -8, are kept in float16

struct Fixture {
  model::Model model = model::tiny_model();
  std::vector<data::TokenSequence> sequences = random_sequences(7, model.config.vocab, 1);
  TempFolder folder;
  kernels::Context context;
  bool hidden;

  explicit Fixture(bool with_hidden = false) : hidden(with_hidden) {}
  TeacherOptions options(const std::string& hash = "a", int64_t top = 8) const {
    return {top, folder.file("cache"), hash, "test", hidden};
  }
  Teacher teacher(const std::string& hash = "a", int64_t top = 8) { return {model, options(hash, top), context}; }
  TopProbabilities of_all(Teacher& teacher) {
    TopProbabilities out;
    for (const data::TokenSequence& s : sequences) teacher.append(s.ids, s.supervised, out);
    return out;
  }
  // The cache's one file, of all sequences.
  std::filesystem::path saved() {
    Teacher teacher = this->teacher();
    of_all(teacher);
    teacher.save();
    for (const auto& entry : std::filesystem::directory_iterator(folder.file("cache")))
      if (entry.path().extension() == ".safetensors") return entry.path();
    return {};
  }
};

// What the head reads of a row [D] of the residual stream.
std::vector<double> last_norm(const model::Model& model, const float* x) {
  const size_t width = model.final_norm.size();
  double squares = 0;
  for (size_t c = 0; c < width; ++c) squares += double{x[c]} * double{x[c]};
  const double rms = std::sqrt(squares / static_cast<double>(width) + double{model.config.norm_eps});
  std::vector<double> z;
  for (size_t c = 0; c < width; ++c) z.push_back(double{x[c]} / rms * double{model.final_norm[c]});
  return z;
}

TEST(Teacher, GivesTheModelsLikeliestTokens) {
  Fixture f;
  Teacher teacher = f.teacher();
  const data::TokenSequence& sequence = f.sequences[2];
  TopProbabilities got;
  teacher.append(sequence.ids, sequence.supervised, got);
  const std::vector<int64_t> offsets{0, static_cast<int64_t>(sequence.ids.size())};
  const auto scored = model::scored_tokens(sequence.ids, sequence.supervised, offsets);
  ASSERT_EQ(got.ids.size(), scored.size() * 8);
  ASSERT_EQ(got.probabilities.size(), scored.size() * 9);
  model::Transformer transformer(f.model, f.context, offsets[1]);
  const tensor::MatView hidden = transformer.forward({sequence.ids, offsets});
  tensor::Tensor logits = tensor::matrix(hidden.rows, f.model.config.vocab);
  model::logits(f.context, f.model, hidden, logits.mat());
  for (size_t t = 0; t < scored.size(); ++t) {
    const float* row = logits.mat().row(scored[t].row);
    double sum = 0, total = 0;
    for (int64_t v = 0; v < f.model.config.vocab; ++v) sum += std::exp(double{row[v]});
    for (size_t i = 0; i < 8; ++i)
      EXPECT_NEAR(got.probabilities[9 * t + i], std::exp(double{row[got.ids[8 * t + i]]}) / sum, kHalf);
    for (size_t i = 0; i < 9; ++i) total += got.probabilities[9 * t + i];
    EXPECT_NEAR(total, 1, 1e-6);
  }
}

TEST(Teacher, IsAskedOnce) {
  Fixture f;
  TopProbabilities first;
  {
    Teacher teacher = f.teacher();
    first = f.of_all(teacher);
    EXPECT_EQ(teacher.computed_tokens(), data::count_tokens(f.sequences));
    f.of_all(teacher);  // not saved yet: from memory
    EXPECT_EQ(teacher.computed_tokens(), data::count_tokens(f.sequences));
    teacher.save();
  }
  std::reverse(f.sequences.begin(), f.sequences.end());
  Teacher again = f.teacher();
  f.of_all(again);
  std::reverse(f.sequences.begin(), f.sequences.end());
  const TopProbabilities second = f.of_all(again);
  EXPECT_EQ(again.computed_tokens(), 0);
  EXPECT_EQ(first.ids, second.ids);
  EXPECT_EQ(first.probabilities, second.probabilities);
  f.sequences[0].ids.back() ^= 1;  // another text
  f.of_all(again);
  EXPECT_EQ(again.computed_tokens(), static_cast<int64_t>(f.sequences[0].ids.size()));
}

TEST(Teacher, KeepsHiddenStatesIfAsked) {
  Fixture f;
  {
    Teacher plain = f.teacher();
    EXPECT_TRUE(f.of_all(plain).hidden.empty());
    plain.save();
  }
  f.hidden = true;
  expect_error(ErrorCode::kMismatch, "hidden", [&] { f.teacher(); });  // that cache has none
  std::filesystem::remove_all(f.folder.file("cache"));
  for (const bool from_cache : {false, true}) {
    Teacher teacher = f.teacher();
    const data::TokenSequence& sequence = f.sequences[2];
    TopProbabilities got;
    teacher.append(sequence.ids, sequence.supervised, got);
    EXPECT_EQ(teacher.computed_tokens() == 0, from_cache);
    teacher.save();
    const std::vector<int64_t> offsets{0, static_cast<int64_t>(sequence.ids.size())};
    const auto scored = model::scored_tokens(sequence.ids, sequence.supervised, offsets);
    ASSERT_EQ(got.hidden.size(), scored.size() * f.model.final_norm.size());
    model::Transformer transformer(f.model, f.context, offsets[1]);
    const tensor::MatView stream = transformer.forward({sequence.ids, offsets});
    for (size_t i = 0; i < scored.size(); ++i) {
      const std::vector<double> z = last_norm(f.model, stream.row(scored[i].row));
      for (size_t c = 0; c < z.size(); ++c)
        EXPECT_NEAR(got.hidden[i * z.size() + c], z[c], std::fabs(z[c]) / 200 + 1e-6);
    }
  }
}

TEST(Teacher, PlansForWhatItDoesNotKnow) {
  constexpr int64_t kPart = 20, kUnsaved = 8192;
  for (const bool hidden : {false, true}) {
    Fixture f(hidden);
    const int64_t width = hidden ? f.model.config.hidden : 0, part = 4 * kPart * width;
    const auto held = [&] {
      const std::vector<int64_t> lengths = data::lengths_of(f.sequences);
      const int64_t longest = *std::max_element(lengths.begin(), lengths.end());
      return f.model.weight_bytes() + model::Transformer(f.model, f.context, longest).buffer_bytes() +
             2 * width * (kUnsaved + longest) + part;
    };
    {
      Teacher teacher = f.teacher();
      EXPECT_EQ(teacher.planned_bytes(f.sequences, kPart), held());
      f.of_all(teacher);
      EXPECT_EQ(teacher.planned_bytes(f.sequences, kPart), part);
      teacher.save();
    }
    Teacher again = f.teacher();
    EXPECT_EQ(again.planned_bytes(f.sequences, kPart), part);
    f.sequences[1].ids.resize(4);  // what is known says nothing of another
    f.sequences[1].supervised.resize(4);
    const int64_t planned = again.planned_bytes(f.sequences, kPart);
    const std::vector<data::TokenSequence> all = f.sequences;
    f.sequences = {f.sequences[1]};
    EXPECT_EQ(planned, held());

    const model::Model block = model::tiny_block(f.model, 0.5);
    const auto objective = make_objective("forward-kl", {&again});
    TuneOptions options;
    const MemoryPlan without = plan_memory(block, all, {}, options, kernels::Compute::kF32);
    options.objective = objective.get();
    const MemoryPlan with = plan_memory(block, all, {}, options, kernels::Compute::kF32);
    EXPECT_EQ(with.bytes(), without.bytes() + again.planned_bytes(all, with.part_tokens));
  }
}

TEST(Teacher, NumbersDoNotDependOnWhatElseIsAsked) {
  Fixture f;
  Teacher teacher = f.teacher();
  const TopProbabilities all = f.of_all(teacher);
  std::filesystem::remove_all(f.folder.file("cache"));
  Teacher other = f.teacher();
  f.sequences.erase(f.sequences.begin(), f.sequences.end() - 1);
  const TopProbabilities last = f.of_all(other);
  EXPECT_TRUE(std::equal(last.probabilities.rbegin(), last.probabilities.rend(), all.probabilities.rbegin()));
}

TEST(Teacher, RefusesWhatIsNotItsOwn) {
  Fixture f;
  Teacher teacher = f.teacher();
  f.of_all(teacher);
  teacher.save();
  expect_error(ErrorCode::kMismatch, "another teacher", [&] { f.teacher("b"); });
  expect_error(ErrorCode::kMismatch, "\"top\":8", [&] { f.teacher("a", 9); });
  kernels::Context bf16(kernels::Compute::kBf16);
  expect_error(ErrorCode::kMismatch, "bf16", [&] { Teacher(f.model, f.options(), bf16); });
  expect_error(ErrorCode::kInvalidInput, "top_tokens = 0", [&] { f.teacher("a", 0); });
  expect_error(ErrorCode::kInvalidInput, "top_tokens = 97", [&] { f.teacher("a", 97); });
  std::filesystem::remove(f.folder.path() / "cache" / "teacher.json");
  expect_error(ErrorCode::kExists, "teacher.json", [&] { f.teacher(); });
}

TEST(Teacher, RefusesDamage) {
  Fixture f;
  const std::filesystem::path file = f.saved();
  const auto size = std::filesystem::file_size(file);
  {
    std::fstream bytes(file, std::ios::in | std::ios::out | std::ios::binary);
    bytes.seekp(static_cast<std::streamoff>(size) - 1);  // the high byte of an id
    bytes.put('\x7f');
  }
  Teacher damaged = f.teacher();
  expect_error(ErrorCode::kCorrupt, "damaged", [&] { f.of_all(damaged); });
  std::filesystem::resize_file(file, size - 1);
  expect_error(ErrorCode::kCorrupt, file.filename().string(), [&] { f.teacher(); });
}

TEST(Teacher, RefusesDamagedHiddenStates) {
  using tensor::DType, tensor::Tensor;
  Fixture f;
  f.hidden = true;
  const std::filesystem::path path = f.saved();
  const io::SafetensorsFile whole = io::SafetensorsFile::open(path);
  // Of a cache with other hidden states, or without them.
  const auto read = [&](const std::function<Tensor(Tensor states)>& changed) {
    io::SafetensorsWriter writer;
    std::vector<Tensor> written;
    for (const io::SafetensorInfo& info : whole.tensors()) {
      if (!info.name.ends_with(".hidden")) {
        writer.add_tensor(info.name, whole.tensor(info));
        continue;
      }
      written.push_back(changed(tensor::to_f32(whole.tensor(info))));
      if (!written.back().empty()) writer.add_tensor(info.name, written.back().view());
    }
    writer.write(path, true);
    Teacher teacher = f.teacher();
    return f.of_all(teacher).hidden;
  };
  const auto bf16 = [](const Tensor& states) { return tensor::convert(states.view(), DType::kBF16); };
  EXPECT_FALSE(read(bf16).empty());
  const auto refuse = [&](const std::function<Tensor(Tensor states)>& changed) {
    expect_error(ErrorCode::kCorrupt, "hidden states make no sense; remove the folder", [&] { read(changed); });
  };
  refuse([&](const Tensor& states) { return bf16(tensor::matrix(states.shape()[0], f.model.config.hidden - 1)); });
  refuse([](const Tensor& states) { return tensor::convert(states.view(), DType::kF16); });
  refuse([&](Tensor states) {
    states.f32()[5] = NAN;
    return bf16(states);
  });
  refuse([](const Tensor&) { return Tensor(); });
}

TEST(Teacher, RefusesLogitsThatAreNoNumbers) {
  Fixture f;
  f.model.final_norm[3] = NAN;
  Teacher teacher = f.teacher();
  expect_error(ErrorCode::kNumeric, "no numbers", [&] { f.of_all(teacher); });
}

TEST(Objective, NamesAreKnown) {
  expect_error(ErrorCode::kInvalidInput, "cross-entropy, forward-kl", [] { make_objective("reverse-kl"); });
  expect_error(ErrorCode::kInvalidInput, "needs a teacher", [] { make_objective("forward-kl"); });
  Fixture f;
  Teacher teacher = f.teacher();
  expect_error(ErrorCode::kInvalidInput, "distill = 1.5", [&] { make_objective("forward-kl", {&teacher, 1.5}); });
  EXPECT_NE(make_objective("forward-kl", {&teacher, 0.5})->identity(),
            make_objective("forward-kl", {&teacher, 0.25})->identity());
}

TEST(Objective, HiddenWeightsNeedATeacher) {
  Fixture f;
  Teacher teacher = f.teacher();
  const auto make = [&](std::string_view name, double weight) {
    make_objective(name, {.teacher = &teacher, .hidden_weight = weight});
  };
  expect_error(ErrorCode::kInvalidInput, "hidden_weight = -1", [&] { make("forward-kl", -1); });
  expect_error(ErrorCode::kInvalidInput, "hidden_weight = 2", [&] { make("cross-entropy", 2); });
}

// Two sequences' losses beside a teacher's hidden states.
struct HiddenTerm : Fixture {
  data::Batch batch = data::make_batch(sequences, std::vector<int64_t>{0, 1});
  std::vector<model::ScoredToken> scored = model::scored_tokens(batch.ids, batch.supervised, batch.offsets);
  tensor::Tensor x = tensor::matrix(batch.tokens(), model.config.hidden), d = x.clone();
  Teacher asked = teacher();

  HiddenTerm() : Fixture(true) {}
  // x, the trained model's stream.
  void pass(const model::Model& trained) {
    model::Transformer transformer(trained, context, batch.tokens());
    const tensor::MatView stream = transformer.forward({batch.ids, batch.offsets});
    std::copy(stream.data, stream.data + x.size(), x.f32());
  }
  // Of x; d is their gradient.
  std::vector<float> losses(const model::Model& trained, double weight) {
    const auto objective = make_objective("forward-kl", {.teacher = &asked, .hidden_weight = weight});
    std::vector<float> each(scored.size());
    objective->backward(context, trained, {batch, scored, x.mat()}, 0.5f, each, d.mat());
    return each;
  }
  // What the term adds to each.
  std::vector<double> added(const model::Model& trained, double weight) {
    const std::vector<float> without = losses(trained, 0), with = losses(trained, weight);
    std::vector<double> out;
    for (size_t i = 0; i < with.size(); ++i) out.push_back(double{with[i]} - double{without[i]});
    return out;
  }
};

// By the term in double, from the teacher's own pass of each sequence; other rows' states would not pass.
TEST(Objective, HiddenStatesHaveTheirValue) {
  constexpr double kWeight = 3;
  HiddenTerm t;
  std::vector<std::vector<double>> wanted;  // z*, a row each
  for (const data::TokenSequence& s : {t.sequences[0], t.sequences[1]}) {
    const std::vector<int64_t> offsets{0, static_cast<int64_t>(s.ids.size())};
    model::Transformer transformer(t.model, t.context, offsets[1]);
    const tensor::MatView stream = transformer.forward({s.ids, offsets});
    for (const model::ScoredToken& token : model::scored_tokens(s.ids, s.supervised, offsets))
      wanted.push_back(last_norm(t.model, stream.row(token.row)));
  }
  const size_t count = t.scored.size();
  ASSERT_EQ(wanted.size(), count);
  const auto worst = [&](const std::vector<double>& added, size_t shift) {
    double largest = 0;
    for (size_t i = 0; i < count; ++i) {
      const std::vector<double> z = last_norm(t.model, t.x.mat().row(t.scored[i].row));
      double squares = 0;
      for (size_t c = 0; c < z.size(); ++c) squares += std::pow(z[c] - wanted[(i + shift) % count][c], 2);
      const double want = kWeight * squares / static_cast<double>(z.size());
      largest = std::max(largest, std::fabs(added[i] - want));
    }
    return largest;
  };
  constexpr double kTolerance = 2e-2;  // of about 3, the teacher's states in bfloat16
  const model::Model block = model::tiny_block(t.model, 0.5);
  t.pass(block);
  const std::vector<double> added = t.added(block, kWeight);
  EXPECT_GT(*std::min_element(added.begin(), added.end()), 10 * kTolerance);
  EXPECT_LT(worst(added, 0), kTolerance);
  EXPECT_GT(worst(added, 1), 10 * kTolerance);
  t.pass(t.model);
  for (const double one : t.added(t.model, kWeight)) EXPECT_NEAR(one, 0, 1e-4);
}

// The gradient of the loss by central differences, and what the term adds to it.
TEST(Objective, HiddenStatesHaveTheirGradient) {
  constexpr double kWeight = 3, kStep = 1e-2, kTolerance = 2e-3;  // float32 losses of about 10
  HiddenTerm t;
  const model::Model block = model::tiny_block(t.model, 0.5);
  t.pass(block);
  const std::vector<double> once = t.added(block, kWeight), twice = t.added(block, 2 * kWeight);
  for (size_t i = 0; i < once.size(); ++i) {
    EXPECT_GT(once[i], 0);
    EXPECT_NEAR(twice[i], 2 * once[i], 1e-4);
  }
  t.losses(block, kWeight);
  const tensor::Tensor gradient = t.d.clone();
  const int64_t row = t.scored.front().row;
  double largest = 0;
  for (int64_t c = 0; c < block.config.hidden; ++c) {
    float& entry = t.x.mat()(row, c);
    const float middle = entry;
    const auto sum = [&](double step) {
      entry = middle + static_cast<float>(step);
      double total = 0;
      for (const float loss : t.losses(block, kWeight)) total += double{loss};
      entry = middle;
      return total;
    };
    const double want = 0.5 * (sum(kStep) - sum(-kStep)) / (2 * kStep);
    EXPECT_NEAR(gradient.mat()(row, c), want, kTolerance) << c;
    largest = std::max(largest, std::fabs(want));
  }
  EXPECT_GT(largest, 20 * kTolerance);
}

// A block learns to agree with the model that it was cut from.
struct Distillation : Fixture {
  model::Model block = model::tiny_block(model, 0.5);
  TuneConfig config;
  TuneOptions options;
  std::vector<StepRecord> steps;

  Distillation() {
    config.rank = 4;
    config.lr = 2e-2;
    config.batch_tokens = 48;
    config.masked = true;
    config.steps = 40;
  }
  TuneResult run(double share, const std::string& memory = "auto") {
    config.memory = memory;
    Teacher teacher(model, Fixture::options(), context);
    const auto objective = make_objective("forward-kl", {&teacher, share});
    options.objective = objective.get();
    TuneResult result = tune(block, sequences, config, options, context, silent_sink());
    teacher.save();
    return result;
  }
};

TEST(Distillation, LowersTheDivergenceFromTheTeacher) {
  Distillation d;
  const TuneResult result = d.run(1.0);
  EXPECT_LT(result.loss_last, 0.5 * result.loss_first);
  EXPECT_GT(result.loss_last, 0);
  EXPECT_TRUE(result.adapter.config.masked);
}

TEST(Distillation, OfTheTeacherItselfHasNothingToLearn) {
  Distillation d;
  d.block = d.model;
  d.config.masked = false;
  d.config.steps = 1;
  EXPECT_NEAR(d.run(1.0).loss_first, 0, 1e-5);  // float16 of the teacher's logarithms, squared
}

TEST(Distillation, SameBitsInEveryMemoryModeThatKeepsTheParts) {
  Distillation d;
  d.config.steps = 5;
  const TuneResult first = d.run(0.5);
  EXPECT_TRUE(same_bits(first.adapter, d.run(0.5).adapter));  // from the cache
  EXPECT_TRUE(same_bits(first.adapter, d.run(0.5, "low").adapter));
  EXPECT_TRUE(same_bits(first.adapter, d.run(0.5, "fast").adapter));
  EXPECT_FALSE(same_bits(first.adapter, d.run(0.25).adapter));
}

TEST(Distillation, ResumedIsUnbroken) {
  Distillation d;
  d.config.steps = 9;
  const TuneResult unbroken = d.run(0.5);
  d.options.checkpoint = d.folder.file("checkpoint");
  d.options.save_every = 2;
  d.options.on_step = [](const StepRecord& step) {
    if (step.step == 5) throw std::runtime_error("interrupted");
  };
  std::filesystem::remove_all(d.folder.file("cache"));  // what was computed after the last save is lost too
  EXPECT_THROW(d.run(0.5), std::runtime_error);
  d.options.on_step = nullptr;
  d.options.resume = true;
  EXPECT_TRUE(same_bits(d.run(0.5).adapter, unbroken.adapter));
}

TEST(Distillation, RefusesACheckpointOfAnotherObjective) {
  Distillation d;
  d.options.checkpoint = d.folder.file("checkpoint");
  d.options.save_every = 1;
  d.options.on_step = [](const StepRecord& step) {
    if (step.step == 2) throw std::runtime_error("interrupted");
  };
  EXPECT_THROW(d.run(0.5), std::runtime_error);
  d.options.resume = true;
  expect_error(ErrorCode::kMismatch, "belongs to another run", [&] { d.run(0.25); });
}

TEST(Distillation, ATimeTooShortIsOneStep) {
  Distillation d;
  d.options.minutes = 1e-9;
  EXPECT_EQ(d.run(0.5).steps, 1);
}

}  // namespace
}  // namespace brick::train
