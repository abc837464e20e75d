#include "brick/federate/check_update.h"

#include <gtest/gtest.h>

#include "brick/base/error.h"
#include "federate/rounds.h"
#include "model/tiny_model.h"

namespace brick::federate {
namespace {

const std::vector<Target> kTiny{{Proj::kQ, 32, 32}, {Proj::kDown, 32, 64}};

class CheckUpdate : public testing::Test {
 protected:
  CheckUpdate() : model_(model::tiny_model()), block_(model::tiny_block(model_)), reference_(reference_of(model_)) {
    for (int k = 0; k < 4; ++k) {
      Adapter adapter = random_adapter(4, 8, static_cast<uint64_t>(k), kTiny);
      adapter.config.base_fingerprint = reference_.fingerprint;
      f_.add("client" + std::to_string(k), std::move(adapter), 0.0, 10);
    }
    ClientUpdate& masked = f_.updates[1];
    masks_ = masks_of(block_);
    masked.masks = masks_;
    masked.mask_hash = model::mask_hash(block_);
    f_.adapters[1].config.masked = true;
    f_.adapters[1].config.mask_hash = masked.mask_hash;
  }

  // The reason for the update of client `k`, empty where it is accepted.
  std::string reason(size_t k = 0) const { return reject_reason(f_.updates[k], reference_).value_or(""); }
  void expect(const std::string& part, size_t k = 0) const {
    EXPECT_NE(reason(k).find(part), std::string::npos) << "'" << reason(k) << "'";
  }

  model::Model model_, block_;
  Reference reference_;
  Federation f_;
  std::vector<LayerMasks> masks_;
};

TEST_F(CheckUpdate, GoodOnesPass) {
  for (size_t k = 0; k < 4; ++k) EXPECT_EQ(reason(k), "");
  const Review all = review(f_.updates, reference_);
  EXPECT_EQ(all.accepted.size(), 4u);
  EXPECT_GT(all.norms[2], 0.0);
}

TEST_F(CheckUpdate, ReferenceHoldsTheNormsOfTheWeights) {
  const tensor::Tensor w = model_.layers[1][Proj::kDown].to_f32();
  double squares = 0;
  for (int64_t i = 0; i < w.size(); ++i) squares += static_cast<double>(w.f32()[i]) * w.f32()[i];
  constexpr double kRowInFloat = 1e-7;  // of the norm: a row's squares are summed in float32
  EXPECT_NEAR(reference_.weights[1][static_cast<size_t>(Proj::kDown)].norm, std::sqrt(squares),
              kRowInFloat * std::sqrt(squares));
  EXPECT_EQ(reference_.fingerprint, model::fingerprint(block_));
}

TEST_F(CheckUpdate, NoAdapter) {
  f_.updates[0].adapter = nullptr;
  expect("no adapter");
}

TEST_F(CheckUpdate, NoOrStrangeWeight) {
  for (double records : {0.0, -3.0, static_cast<double>(NAN), static_cast<double>(INFINITY)}) {
    f_.updates[0].records = records;
    expect("records");
  }
}

TEST_F(CheckUpdate, ForeignBase) {
  f_.adapters[0].config.base_fingerprint = "another";
  expect("another base model");
  f_.adapters[0].config.base_fingerprint.clear();
  EXPECT_EQ(reason(), "");
  f_.updates[0].base_fingerprint = "another";
  expect("another base model");
}

TEST_F(CheckUpdate, MaskOfAnotherBlock) {
  f_.adapters[1].config.mask_hash = "another";
  expect("masked for another block", 1);
  f_.adapters[1].config.mask_hash.clear();
  expect("masked for another block", 1);
  f_.adapters[0].config.masked = true;
  expect("masked for another block", 0);
}

TEST_F(CheckUpdate, MasksOfAnotherShape) {
  BlockMasks wrong = random_masks(0.5, 1, {{Proj::kQ, 32, 31}});
  f_.updates[0].masks = wrong.views();
  expect("mask of model.layers.0.self_attn.q_proj is [32, 31]");
  f_.updates[0].masks = f_.updates[0].masks.first(1);
  expect("masks for 1 layers");
}

TEST_F(CheckUpdate, WrongLayersTargetsAndShapes) {
  f_.adapters[0] = zero_adapter(4, 8, kTiny, 3);
  expect("3 layers");
  f_.adapters[0] = random_adapter(4, 8, 1, {{Proj::kQ, 32, 32}, {Proj::kDown, 32, 63}});
  expect("model.layers.0.mlp.down_proj.lora_A.weight is f32 [4, 63]");
  f_.adapters[0] = random_adapter(4, 8, 1, {{Proj::kQ, 31, 32}});
  expect("model.layers.0.self_attn.q_proj.lora_B.weight is f32 [31, 4]");
  f_.adapters[0] = random_adapter(4, 8, 1, kTiny);
  f_.adapters[0].config.rank = 5;
  expect("expected f32 [5, 32]");
  f_.adapters[0].config.rank = 0;
  expect("rank is 0");
  f_.adapters[0] = zero_adapter(4, 8, {});
  expect("no matrices");
}

TEST_F(CheckUpdate, TargetsUnlikeTheOthers) {
  f_.adapters[0] = random_adapter(4, 8, 1, {{Proj::kQ, 32, 32}});
  EXPECT_EQ(reason(), "");
  const Review all = review(f_.updates, reference_);
  ASSERT_TRUE(all.reasons[0].has_value());
  EXPECT_NE(all.reasons[0]->find("mlp.down_proj is missing"), std::string::npos) << *all.reasons[0];
  EXPECT_EQ(all.accepted.size(), 3u);
  reference_.targets = reference_of(model_, &f_.adapters[0]).targets;
  EXPECT_EQ(reason(), "");
  expect("mlp.down_proj is not among them", 2);
}

TEST_F(CheckUpdate, StrangeScale) {
  for (double alpha : {0.0, -1.0, static_cast<double>(NAN)}) {
    f_.adapters[0].config.alpha = alpha;
    expect("scale");
  }
}

TEST_F(CheckUpdate, StartOfAnotherRank) {
  const Adapter sent = random_adapter(2, 4, 1, kTiny);
  f_.updates[0].sent = &sent;
  expect("sent rank 2 and returned rank 4");
}

TEST_F(CheckUpdate, ValuesThatAreNotFiniteNameTheTensor) {
  for (float bad : {NAN, INFINITY}) {
    f_.adapters[0].at(1, Proj::kDown).b.f32()[5] = bad;
    expect("model.layers.1.mlp.down_proj.lora_B.weight has values that are not finite");
  }
}

TEST_F(CheckUpdate, AbsurdlyLargeForTheWeight) {
  f_.adapters[0].at(1, Proj::kDown).b.f32()[5] = 1e3f;
  expect("its change of model.layers.1.mlp.down_proj has norm");
  for (int64_t i = 0; i < 4 * 32; ++i) f_.adapters[0].at(0, Proj::kQ).b.f32()[i] = 3e38f;
  for (int64_t i = 0; i < 4 * 32; ++i) f_.adapters[0].at(0, Proj::kQ).a.f32()[i] = 3e38f;
  expect("q_proj");
  // Alone it is caught as well: the limit is the weight's.
  EXPECT_THROW(review({&f_.updates[0], 1}, reference_), Error);
}

TEST_F(CheckUpdate, AbsurdlyLargeForTheMedian) {
  for (size_t k : {1, 2, 3}) {
    Adapter& adapter = f_.adapters[k];
    model::for_each_pair(adapter, [](int64_t, Proj, model::LoraPair& pair) {
      for (int64_t i = 0; i < pair.b.size(); ++i) pair.b.f32()[i] *= 0.02f;
    });
  }
  EXPECT_EQ(reason(), "");
  const Review all = review(f_.updates, reference_);
  ASSERT_TRUE(all.reasons[0].has_value());
  EXPECT_NE(all.reasons[0]->find("median"), std::string::npos);
  EXPECT_EQ(all.accepted.size(), 3u);
  // Of two clients none is the measure of the other, and clients that changed nothing don't count.
  EXPECT_EQ(review({f_.updates.data(), 2}, reference_).accepted.size(), 2u);
  for (size_t k : {2, 3})
    model::for_each_pair(f_.adapters[k],
                         [](int64_t, Proj, model::LoraPair& pair) { std::fill_n(pair.b.f32(), pair.b.size(), 0.0f); });
  EXPECT_EQ(review(f_.updates, reference_).accepted.size(), 4u);
}

TEST_F(CheckUpdate, NormIsOfTheChange) {
  const Adapter sent = f_.adapters[0].clone();
  f_.updates[0].sent = &sent;
  EXPECT_NEAR(update_norm(f_.updates[0]), 0.0, 1e-6);
  f_.adapters[0] = random_adapter(4, 8, 99, kTiny);
  double squares = 0;
  for (const Target& target : kTiny)
    for (int64_t layer = 0; layer < 2; ++layer) {
      const auto x = product(f_.adapters[0], layer, target.proj), y = product(sent, layer, target.proj);
      for (size_t i = 0; i < x.size(); ++i) squares += (x[i] - y[i]) * (x[i] - y[i]);
    }
  EXPECT_NEAR(update_norm(f_.updates[0]), std::sqrt(squares), 1e-6);
}

TEST_F(CheckUpdate, TheRoundGoesOnWithoutTheRejected) {
  f_.adapters[2].at(0, Proj::kQ).a.f32()[0] = NAN;
  const Review all = review(f_.updates, reference_);
  EXPECT_EQ(all.accepted.size(), 3u);
  const Adapter g = aggregate(nullptr, all.accepted, {}, 0);
  EXPECT_TRUE(std::isfinite(g.at(0, Proj::kQ).a.f32()[0]));
  ASSERT_EQ(all.reasons.size(), 4u);
  for (size_t k : {0, 1, 3}) EXPECT_FALSE(all.reasons[k]) << k;
  EXPECT_NE(all.reasons[2].value_or("").find("not finite"), std::string::npos);
}

TEST_F(CheckUpdate, NoAcceptableClientNamesThemAll) {
  for (ClientUpdate& update : f_.updates) update.records = 0;
  try {
    review(f_.updates, reference_);
    FAIL();
  } catch (const Error& error) {
    for (int k = 0; k < 4; ++k)
      EXPECT_NE(std::string(error.what()).find("client" + std::to_string(k)), std::string::npos);
  }
  EXPECT_THROW(review({}, reference_), Error);
}

}  // namespace
}  // namespace brick::federate
