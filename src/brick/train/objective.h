// What training minimises. An objective is one file and one line in kObjectives (objective.cc).
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "brick/data/batches.h"
#include "brick/kernels/context.h"
#include "brick/model/loss.h"
#include "brick/train/teacher.h"

namespace brick::train {

// Records that went through the model that is trained.
struct ForwardPart {
  const data::Batch& batch;
  std::span<const model::ScoredToken> scored;  // their supervised tokens
  tensor::ConstMatView hidden;                 // [T, D], the residual stream after the last layer
};

class Objective {
 public:
  virtual ~Objective() = default;

  // losses[i] of scored[i]; d_hidden [T, D], overwritten: d(weight * sum of the losses) / d hidden.
  virtual void backward(kernels::Context& context, const model::Model& model, const ForwardPart& part, float weight,
                        std::span<float> losses, tensor::MatView d_hidden) = 0;
  // Bytes that it will take beside the model, its activations and logits to train on these in parts of so many tokens.
  virtual int64_t planned_bytes(std::span<const data::TokenSequence>, int64_t) const { return 0; }
  // Everything about it that a run's result depends on, for checkpoints.
  virtual std::string identity() const = 0;
};

struct ObjectiveSettings {
  Teacher* teacher = nullptr;  // outlives the objective
  double share = 0.5;          // of the teacher's term, in [0, 1]; the rest is cross-entropy
  // Of what is added for the mean squared difference of what the head reads, the last norm's outputs, from the
  // teacher's (as TinyBERT, Jiao et al. 2020, of its layers). That state alone, as layers of a block need not be the
  // teacher's. Above 0 the teacher gives hidden states, and the trained model has its width.
  double hidden_weight = 0;
};

// "cross-entropy", or "forward-kl" (forward_kl.h in kernels/). Error(kInvalidInput) for another name, naming all; for
// a share outside [0, 1] or a weight below 0; where a teacher is needed and there is none, or a weight has no use.
std::unique_ptr<Objective> make_objective(std::string_view name, const ObjectiveSettings& settings = {});
bool needs_teacher(std::string_view name);
std::string known_objectives();  // "cross-entropy, forward-kl"

// One a file, for the registry.
std::unique_ptr<Objective> make_cross_entropy(const ObjectiveSettings&);
std::unique_ptr<Objective> make_forward_kl(const ObjectiveSettings&);

}  // namespace brick::train
