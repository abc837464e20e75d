// Cross-entropy mixed with the forward KL divergence from a teacher's distribution (kernels/forward_kl.h), and the
// difference from its hidden states.
#include "brick/kernels/forward_kl.h"

#include <fmt/format.h>

#include "brick/base/error.h"
#include "brick/kernels/norm.h"
#include "brick/kernels/vector_ops.h"
#include "brick/tensor/tensor.h"
#include "brick/train/objective.h"

namespace brick::train {
namespace {

class ForwardKl : public Objective {
 public:
  explicit ForwardKl(const ObjectiveSettings& settings)
      : teacher_(*settings.teacher), share_(settings.share), hidden_weight_(settings.hidden_weight) {}

  void backward(kernels::Context& context, const model::Model& model, const ForwardPart& part, float weight,
                std::span<float> losses, tensor::MatView d_hidden) override {
    top_.clear();
    if (teacher_.gives_hidden()) top_.hidden.reserve(part.scored.size() * static_cast<size_t>(part.hidden.cols));
    const data::Batch& batch = part.batch;
    for (size_t i = 0; i + 1 < batch.offsets.size(); ++i) {
      const auto begin = static_cast<size_t>(batch.offsets[i]), end = static_cast<size_t>(batch.offsets[i + 1]);
      teacher_.append(std::span(batch.ids).subspan(begin, end - begin),
                      std::span(batch.supervised).subspan(begin, end - begin), top_);
    }
    const int64_t k = teacher_.top();
    model::for_each_logits(
        context, model, part.hidden, part.scored,
        [&](int64_t begin, const int32_t* targets, tensor::MatView logits) {
          const kernels::TopTokens teacher{k, top_.ids.data() + begin * k, top_.probabilities.data() + begin * (k + 1)};
          kernels::forward_kl_backward(logits, targets, teacher, static_cast<float>(share_), weight,
                                       losses.data() + begin);
        },
        d_hidden);
    if (hidden_weight_ > 0) add_hidden(model, part, weight, losses, d_hidden);
  }
  int64_t planned_bytes(std::span<const data::TokenSequence> sequences, int64_t part_tokens) const override {
    return teacher_.planned_bytes(sequences, part_tokens);
  }
  std::string identity() const override {
    return fmt::format("forward-kl {} of {}", share_, teacher_.identity()) +
           (hidden_weight_ > 0 ? fmt::format(", hidden {}", hidden_weight_) : "");
  }

 private:
  // losses += w mean_j (z_j - teacher's z_j)^2, z = norm(x); d_hidden gains its gradient.
  void add_hidden(const model::Model& model, const ForwardPart& part, float weight, std::span<float> losses,
                  tensor::MatView d_hidden) {
    const int64_t width = part.hidden.cols;
    BRICK_ASSERT(top_.hidden.size() == part.scored.size() * static_cast<size_t>(width));
    const auto share = static_cast<float>(hidden_weight_ / static_cast<double>(width));
    tensor::Tensor buffer = tensor::matrix(1, width);
    const tensor::MatView z = buffer.mat();
    for (size_t i = 0; i < part.scored.size(); ++i) {
      const int64_t row = part.scored[i].row;
      const tensor::ConstMatView x = part.hidden.row_range(row, row + 1);
      float inverse_rms = 0;
      kernels::rms_norm(x, model.final_norm.data(), model.config.norm_eps, z, &inverse_rms);
      kernels::axpy(-1.0f, top_.hidden.data() + static_cast<int64_t>(i) * width, z.data, width);
      losses[i] += share * kernels::sum_squares(z.data, width);
      kernels::scale(2 * weight * share, z.data, width);
      kernels::rms_norm_backward(x, model.final_norm.data(), &inverse_rms, z, d_hidden.row_range(row, row + 1));
    }
  }

  Teacher& teacher_;
  double share_, hidden_weight_;
  TopProbabilities top_;  // of the part at hand
};

}  // namespace

std::unique_ptr<Objective> make_forward_kl(const ObjectiveSettings& settings) {
  return std::make_unique<ForwardKl>(settings);
}

}  // namespace brick::train
