// Cross-entropy mixed with the forward KL divergence from a teacher's distribution (kernels/forward_kl.h).
#include "brick/kernels/forward_kl.h"

#include <fmt/format.h>

#include "brick/train/objective.h"

namespace brick::train {
namespace {

class ForwardKl : public Objective {
 public:
  explicit ForwardKl(const ObjectiveSettings& settings) : teacher_(*settings.teacher), share_(settings.share) {}

  void backward(kernels::Context& context, const model::Model& model, const ForwardPart& part, float weight,
                std::span<float> losses, tensor::MatView d_hidden) override {
    top_.clear();
    const data::Batch& batch = part.batch;
    for (size_t i = 0; i + 1 < batch.offsets.size(); ++i) {
      const auto begin = static_cast<size_t>(batch.offsets[i]), end = static_cast<size_t>(batch.offsets[i + 1]);
      teacher_.append(std::span(batch.ids).subspan(begin, end - begin),
                      std::span(batch.supervised).subspan(begin, end - begin), top_);
    }
    const std::vector<int32_t> targets = model::targets_of(part.scored);
    const int64_t k = teacher_.top();
    model::for_each_logits(
        context, model, part.hidden, part.scored,
        [&](int64_t begin, tensor::MatView logits) {
          const kernels::TopTokens teacher{k, top_.ids.data() + begin * k, top_.probabilities.data() + begin * (k + 1)};
          kernels::forward_kl_backward(logits, targets.data() + begin, teacher, static_cast<float>(share_), weight,
                                       losses.data() + begin);
        },
        d_hidden);
  }
  int64_t planned_bytes(std::span<const data::TokenSequence> sequences) const override {
    return teacher_.planned_bytes(sequences);
  }
  std::string identity() const override { return fmt::format("forward-kl {} of {}", share_, teacher_.identity()); }

 private:
  Teacher& teacher_;
  double share_;
  TopProbabilities top_;  // of the part at hand
};

}  // namespace

std::unique_ptr<Objective> make_forward_kl(const ObjectiveSettings& settings) {
  return std::make_unique<ForwardKl>(settings);
}

}  // namespace brick::train
