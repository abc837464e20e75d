#include "brick/train/optimizer.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>

#include "brick/base/parallel.h"

namespace brick::train {
namespace {

using model::Adapter;
using model::LoraPair;
using tensor::Tensor;

constexpr int64_t kGrain = 4096;

template <class Visit>
void for_each_matrix(Adapter& adapter, Visit&& visit) {
  for_each_pair(adapter, [&](int64_t layer, model::Proj proj, LoraPair& pair) {
    visit(layer, proj, pair.a, &LoraPair::a);
    visit(layer, proj, pair.b, &LoraPair::b);
  });
}

}  // namespace

void AdamW::step(Adapter& parameters, const Adapter& gradients, double gradient_scale, double lr) {
  ++steps_;
  const double correction1 = 1 - std::pow(config_.beta1, static_cast<double>(steps_));
  const double correction2 = 1 - std::pow(config_.beta2, static_cast<double>(steps_));
  const auto b1 = static_cast<float>(config_.beta1), b2 = static_cast<float>(config_.beta2);
  // Rounded once: 1 - 0.999f is off by 1e-5.
  const auto rest1 = static_cast<float>(1 - config_.beta1), rest2 = static_cast<float>(1 - config_.beta2);
  const auto rate = static_cast<float>(lr / correction1), root = static_cast<float>(1 / std::sqrt(correction2));
  const auto epsilon = static_cast<float>(config_.epsilon), keep = static_cast<float>(1 - lr * config_.weight_decay);
  const auto scale = static_cast<float>(gradient_scale);
  for_each_matrix(parameters, [&](int64_t layer, model::Proj proj, Tensor& parameter, Tensor LoraPair::*part) {
    float* p = parameter.f32();
    const float* g = (gradients.at(layer, proj).*part).f32();
    float* m = (first_.at(layer, proj).*part).f32();
    float* v = (second_.at(layer, proj).*part).f32();
    parallel_ranges(parameter.size(), kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const float gradient = scale * g[i];
        m[i] = b1 * m[i] + rest1 * gradient;
        v[i] = b2 * v[i] + rest2 * gradient * gradient;
        p[i] = keep * p[i] - rate * m[i] / (std::sqrt(v[i]) * root + epsilon);
      }
    });
  });
}

double gradient_norm(const Adapter& gradients) {
  double sum = 0;
  for_each_pair(gradients, [&](int64_t, model::Proj, const LoraPair& pair) {
    for (const Tensor* t : {&pair.a, &pair.b})
      for (int64_t i = 0; i < t->size(); ++i) sum += static_cast<double>(t->f32()[i]) * t->f32()[i];
  });
  return std::sqrt(sum);
}

void copy_values(const Adapter& from, Adapter& to) {
  for_each_pair(from, [&](int64_t layer, model::Proj proj, const model::LoraPair& pair) {
    std::copy_n(pair.a.f32(), pair.a.size(), to.at(layer, proj).a.f32());
    std::copy_n(pair.b.f32(), pair.b.size(), to.at(layer, proj).b.f32());
  });
}

void zero(Adapter& gradients) {
  for_each_matrix(gradients, [](int64_t, model::Proj, Tensor& tensor, Tensor LoraPair::*) {
    std::memset(tensor.bytes().data(), 0, tensor.bytes().size());
  });
}

double learning_rate(const std::string& schedule, double lr, double warmup, int64_t step, int64_t total) {
  const auto warm = static_cast<int64_t>(std::ceil(warmup * static_cast<double>(total)));
  if (step < warm) return lr * static_cast<double>(step + 1) / static_cast<double>(warm);
  if (schedule == "constant") return lr;
  const double progress = static_cast<double>(step - warm) / static_cast<double>(std::max<int64_t>(1, total - warm));
  if (schedule == "linear") return lr * (1 - progress);
  return lr * 0.5 * (1 + std::cos(std::numbers::pi * progress));
}

int64_t foreseen_steps(double minutes, int64_t steps, double seconds) {
  return std::max(steps, static_cast<int64_t>(static_cast<double>(steps) * 60 * minutes / seconds));
}

}  // namespace brick::train
