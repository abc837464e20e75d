#include "brick/prune/layer_problem.h"

namespace brick::prune {

size_t input_index(model::Proj proj) {
  using model::Proj;
  switch (proj) {
    case Proj::kQ:
    case Proj::kK:
    case Proj::kV:
      return 0;
    case Proj::kO:
      return 1;
    case Proj::kGate:
    case Proj::kUp:
      return 2;
    case Proj::kDown:
      return 3;
  }
  return 0;
}

}  // namespace brick::prune
