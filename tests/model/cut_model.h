// A small structured block, for the tests of model/ and of everything above it.
#pragma once

#include "brick/model/cut.h"
#include "model/tiny_model.h"

namespace brick::model {

// Of tiny_model with three layers: one of two key/value heads and every other neuron of the first layer, one of two
// query heads of either key/value head in the last, and no layer between.
inline Cut tiny_cut() {
  Cut cut = whole_cut(tiny_model({.layers = 3}));
  cut.layers.erase(cut.layers.begin() + 1);
  cut.layers[0].heads = {2, 3};
  cut.layers[0].kv_heads = {1};
  std::erase_if(cut.layers[0].neurons, [](int32_t i) { return i % 2 == 0; });
  cut.layers[1].heads = {0, 3};
  return cut;
}

// tiny_cut() in a residual stream without every fourth channel.
inline Cut tiny_narrow_cut(const Model& parent) {
  std::vector<int32_t> channels;
  for (int32_t i = 0; i < parent.config.hidden; ++i)
    if (i % 4 != 0) channels.push_back(i);
  Cut cut = tiny_cut();
  cut.stream = channel_cut(parent, channels).stream;
  return cut;
}

// With a bias of o in the first layer and of down in the last.
inline Model tiny_cut_block(uint64_t seed = 0) {
  const Model parent = tiny_model({.layers = 3, .seed = seed});
  Model block = slice(parent, tiny_cut(), "f32");
  Rng rng(seed, stream_id({0x74}));
  for (std::vector<float>* bias : {&block.layers[0].o_bias, &block.layers[1].down_bias})
    for (int64_t i = 0; i < block.config.hidden; ++i) bias->push_back(static_cast<float>(0.1 * rng.normal()));
  block.block.method = "flap";
  block.block.sparsity = 0.5;
  block.block.values = "f32";
  block.block.parent = fingerprint(parent);
  block.block.provenance = "{}";
  return block;
}

}  // namespace brick::model
