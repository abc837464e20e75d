#include "brick/prune/registry.h"

#include <array>

#include "brick/base/error.h"

namespace brick::prune {
namespace {

constexpr std::array kMethods{
    Method{"magnitude", "smallest weights of each matrix; needs no text", Needs::kNothing, true, nullptr,
           prune_magnitude},
    Method{"wanda", "smallest weights times the norm of their inputs, row by row", Needs::kColumnNorms, true, nullptr,
           prune_wanda},
    Method{"ria", "smallest shares of their row and column, weighed by their inputs", Needs::kColumnNorms, true,
           nullptr, prune_ria},
    Method{"sparsegpt", "least second-order loss; kept weights make up for dropped ones", Needs::kHessian, false,
           prepare_sparsegpt, prune_sparsegpt},
};

}  // namespace

std::span<const Method> methods() { return kMethods; }

std::string known_methods() {
  std::string known;
  for (const Method& method : kMethods) {
    known += known.empty() ? "" : ", ";
    known += method.name;
  }
  return known;
}

const Method& find_method(std::string_view name) {
  for (const Method& method : kMethods)
    if (method.name == name) return method;
  fail(ErrorCode::kUnsupported, "pruning method '{}' is not known; known: {}", name, known_methods());
}

void check_groups(const MatrixProblem& problem) {
  if (problem.pattern.unstructured() || problem.weight.cols % problem.pattern.group == 0) return;
  fail(ErrorCode::kInvalidInput, "{}: its {} inputs are no multiple of {}, as pattern {} asks", problem.name,
       problem.weight.cols, problem.pattern.group, name(problem.pattern));
}

}  // namespace brick::prune
