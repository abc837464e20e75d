#include "brick/prune/registry.h"

#include <algorithm>
#include <array>

#include "brick/base/error.h"
#include "brick/prune/structured.h"

namespace brick::prune {
namespace {

constexpr std::array kMethods{
    Method{"magnitude", "smallest weights of each matrix; needs no text", Needs::kNothing, true, nullptr,
           prune_magnitude},
    Method{"wanda", "smallest weights times the norm of their inputs, row by row", Needs::kColumnNorms, true, nullptr,
           prune_wanda, true},
    Method{"wanda++", "Wanda with gradients of the layer's output, and descent towards it between prunings",
           Needs::kColumnNorms, false, nullptr, nullptr, true, prune_wanda_plus},
    Method{"ria", "smallest shares of their row and column, weighed by their inputs", Needs::kColumnNorms, true,
           nullptr, prune_ria},
    Method{"sparsegpt",
           "least second-order loss; kept weights make up for dropped ones",
           Needs::kHessian,
           false,
           prepare_sparsegpt,
           prune_sparsegpt,
           false,
           nullptr,
           {"damping", "block_columns"}},
    Method{"alps",
           "the support of least output error by ADMM; kept weights make up for dropped ones",
           Needs::kHessian,
           false,
           nullptr,
           prune_alps,
           false,
           nullptr,
           {"damping"}},
    Method{"dsnot",
           "Wanda's choice, then weights trade places to even out the outputs' means",
           Needs::kColumnNorms,
           true,
           nullptr,
           prune_dsnot,
           true,
           nullptr,
           {"dsnot_skip"}},
};

constexpr std::array kStructuredMethods{
    StructuredMethod{"llm-pruner", "heads and neurons, or channels of the stream, of least importance to the loss",
                     llm_pruner_needs, llm_pruner_settings, expect_llm_pruner, prune_llm_pruner, check_llm_pruner},
    StructuredMethod{"flap", "heads and neurons whose inputs fluctuate least; biases make up for their mean",
                     flap_needs, flap_settings, expect_flap, prune_flap},
    StructuredMethod{"shortgpt", "layers that turn the residual stream least", shortgpt_needs, shortgpt_settings,
                     expect_shortgpt, prune_shortgpt},
    StructuredMethod{"slicegpt", "directions of the residual stream with the least energy", slicegpt_needs,
                     slicegpt_settings, nullptr, prune_slicegpt, check_slicegpt},
};

template <class Methods>
std::string names(const Methods& methods) {
  std::string known;
  for (const auto& method : methods) {
    known += known.empty() ? "" : ", ";
    known += method.name;
  }
  return known;
}

constexpr std::string_view kOwl = "owl+";
constexpr std::string_view kReconstruct = "+reconstruct";

}  // namespace

std::span<const Method> methods() { return kMethods; }

std::span<const StructuredMethod> structured_methods() { return kStructuredMethods; }

std::string known_methods() { return names(kMethods); }

std::string known_structured_methods() { return names(kStructuredMethods); }

Needs Recipe::needs() const {
  return owl || reconstruct ? std::max(method->needs, Needs::kColumnNorms) : method->needs;
}

Recipe parse_recipe(std::string_view name) {
  Recipe recipe;
  std::string_view rest = name;
  for (const StructuredMethod& method : kStructuredMethods) {
    if (name != method.name && !name.starts_with(fmt::format("{}+", method.name))) continue;
    recipe.structured = &method;
    if (name == method.name) return recipe;
    rest.remove_prefix(method.name.size() + 1);
  }
  if (rest.starts_with(kOwl)) {
    recipe.owl = true;
    rest.remove_prefix(kOwl.size());
  }
  if (rest.ends_with(kReconstruct)) {
    recipe.reconstruct = true;
    rest.remove_suffix(kReconstruct.size());
  }
  for (const Method& method : kMethods)
    if (method.name == rest) recipe.method = &method;
  if (recipe.method == nullptr)
    fail(ErrorCode::kUnsupported,
         "pruning method '{}' is not known; known: {}; each may follow {} and be followed by {}; structured: {}; "
         "cut, then masked: flap+sparsegpt",
         name, known_methods(), kOwl, kReconstruct, known_structured_methods());
  return recipe;
}

void check_groups(const MatrixProblem& problem) {
  if (problem.pattern.unstructured() || problem.weight.cols % problem.pattern.group == 0) return;
  fail(ErrorCode::kInvalidInput, "{}: its {} inputs are no multiple of {}, as pattern {} asks", problem.name,
       problem.weight.cols, problem.pattern.group, name(problem.pattern));
}

}  // namespace brick::prune
