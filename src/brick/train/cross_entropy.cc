#include "brick/train/objective.h"

namespace brick::train {
namespace {

class CrossEntropy : public Objective {
 public:
  void backward(kernels::Context& context, const model::Model& model, const ForwardPart& part, float weight,
                std::span<float> losses, tensor::MatView d_hidden) override {
    model::token_losses(context, model, part.hidden, part.scored, losses, weight, d_hidden);
  }
  std::string identity() const override { return "cross-entropy"; }
};

}  // namespace

std::unique_ptr<Objective> make_cross_entropy(const ObjectiveSettings&) { return std::make_unique<CrossEntropy>(); }

}  // namespace brick::train
