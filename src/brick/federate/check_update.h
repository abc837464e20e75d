// Which clients' updates a round may use. A rejected one is named with its reason, and the round goes on.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "brick/federate/update.h"

namespace brick::federate {

// What every update of a federation must fit.
struct Reference {
  struct Weight {
    int64_t rows = 0, cols = 0;
    double norm = 0;  // ||W||_F; 0: not known, and no limit then
  };
  std::string fingerprint;  // of the parent model; empty: not checked
  std::string cut_hash;     // of a parent that is a structured block itself
  std::vector<std::array<Weight, model::kProjCount>> weights;
  // Matrices that an adapter must cover, all and only; empty: any.
  std::vector<std::array<bool, model::kProjCount>> targets;
};

// Shapes and norms of the parent model (reads every weight once), targets of `like`, null: any.
Reference reference_of(const model::Model& parent, const model::Adapter* like = nullptr);

// Our choice. LoRA moves a weight by a few per cent of its norm in a whole training.
struct UpdateLimits {
  // ||c B A||_F and ||c B A - sent||_F of a matrix are at most this share of ||W||_F,
  double of_weight = 1.0;
  // ||c B A - sent||_F over all matrices is at most this multiple of the clients' median.
  double of_median = 10.0;
  // With fewer clients that changed anything, the median says little and only of_weight holds.
  int64_t median_clients = 3;
};

// Why this update must not be used, by itself; none: it may. In this order: no adapter, weight, base model,
// cut, mask, shapes and targets; then matrix by matrix, read once: non-finite values (the tensor is named), size.
// Shapes are those of the client's own block, and include those of `sent` and of the masks.
std::optional<std::string> reject_reason(const ClientUpdate& update, const Reference& reference,
                                         const UpdateLimits& limits = {});

// ||c B A - sent||_F over all matrices, from r x r Gram matrices in double. For updates whose shapes have
// been checked.
double update_norm(const ClientUpdate& update);

struct Review {
  std::vector<ClientUpdate> accepted;
  std::vector<std::optional<std::string>> reasons;  // of each update, in their order; none: accepted
  std::vector<double> norms;                        // update_norm; 0 where the update failed before
};

// reject_reason for each, then the limit of the median among those that passed. Where `reference` leaves the
// targets open, they are those that most clients have. Error(kInvalidInput) with every reason if no client is
// acceptable.
Review review(std::span<const ClientUpdate> updates, const Reference& reference, const UpdateLimits& limits = {});

}  // namespace brick::federate
