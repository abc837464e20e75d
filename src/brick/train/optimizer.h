// AdamW (Loshchilov and Hutter 2019) over an adapter's matrices, and the learning rate's course.
#pragma once

#include <string>

#include "brick/model/adapter.h"

namespace brick::train {

struct AdamWConfig {
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0;
};

class AdamW {
 public:
  AdamW(const model::Adapter& parameters, const AdamWConfig& config)
      : config_(config), first_(zeros_like(parameters)), second_(zeros_like(parameters)) {}

  // m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, p -= lr (wd p + m^ / (sqrt(v^) + eps)), with ^ the bias-corrected
  // moments; g = gradient_scale * gradients.
  void step(model::Adapter& parameters, const model::Adapter& gradients, double gradient_scale, double lr);

  // For checkpoints.
  model::Adapter& first() { return first_; }
  model::Adapter& second() { return second_; }
  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }

 private:
  AdamWConfig config_;
  model::Adapter first_, second_;
  int64_t steps_ = 0;
};

// Square root of the sum of squares of all gradients, summed in double; infinite or NaN if any is.
double gradient_norm(const model::Adapter& gradients);
void zero(model::Adapter& gradients);
// Of the same matrices.
void copy_values(const model::Adapter& from, model::Adapter& to);

// lr at `step` (from 0) of `total`: linear from lr / warm-up steps up to lr, then constant, linear or half a cosine
// down to 0.
double learning_rate(const std::string& schedule, double lr, double warmup, int64_t step, int64_t total);

// How many steps `minutes` hold where the first `steps` (1 or more) took `seconds`: at least those.
int64_t foreseen_steps(double minutes, int64_t steps, double seconds);

}  // namespace brick::train
