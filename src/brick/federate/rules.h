// Aggregation rules: pure functions from the round's accepted adapters to the next global adapter. Registry
// and entry.
//
// Notation (docs/method.md#aggregation): P_k = c_k B_k A_k with each client's own c_k; P_g what the global adapter
// adds, P_g^(k) what client k was sent of it; weights w_k = n_k / sum n; M_k the kept weights of its block, all ones
// where it is dense. What a client contributes is always the difference to what it was sent: P_k := P_g
// + (c_k B_k A_k - P_g^(k)). Of what a structured block lacks its client says "as it was": its factors and P_g^(k) are
// zero there (placement.h), and M_k is.
//
// Result: rank r, not masked, in the global adapter's convention (without one: the largest client's): c stays
// as it was, alpha = c r, and B carries the rest. The clients are put into the order of their names first, so
// that their order changes no bit.
//
// Memory: matrix by matrix, streaming over the clients, so that it does not grow with them; small matrices one
// a thread, large ones one at a time. The rules in weight space hold factors of up to a matrix's size; flexlora
// one float32 array [out, in] beside them where the clients' ranks sum to more than half the matrix's smaller
// side, the hete rules three (T, C and the sum of one block's clients). Clients of one block share the work on
// its mask.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "brick/federate/update.h"

namespace brick::federate {

struct AggregateConfig {
  std::string rule = "hete-tau";
  int64_t rank = 0;            // of the result; 0: the largest of the accepted clients' and the global adapter's
                               // (fedit: the clients')
  double tau = 0.1;            // hete-tau: trust in what a client says of weights that its block lacks, [0, 1]
  int64_t em_iterations = 20;  // hete-h2, hete-tau
  double anchor = 0.01;        // hete-h2: pull of P_g on an entry, times the share of clients that lack it
  bool coverage = false;       // hete-h0: divide by the weight of the clients whose mask has the entry

  template <class V>
  void fields(V&& visit) {
    visit("rule", rule, "fedit, zero-pad, flexlora, hete-h0, hete-h0-axis, hete-h1, hete-h2 or hete-tau");
    visit("rank", rank, "rank of the result; 0: the largest of the clients' and the global adapter's");
    visit("tau", tau, "hete-tau: trust in what a client says of weights its block lacks, 0 to 1");
    visit("em_iterations", em_iterations, "hete-h2 and hete-tau: steps of the low-rank fit");
    visit("anchor", anchor, "hete-h2: pull of the global adapter where clients lack an entry");
    visit("coverage", coverage, "hete-h0: average over the clients that have an entry");
  }
};

// `global` null: there is none yet, P_g = 0. In round one pass the adapter that the clients started from:
// hete-h0 counts everything beyond it as update. Updates must have passed check_update.h.
using RuleFunction = model::Adapter (*)(const model::Adapter* global, std::span<const ClientUpdate> updates,
                                        const AggregateConfig& config, uint64_t seed);

struct Rule {
  std::string_view name, description;
  RuleFunction run;
  bool needs_equal_ranks;  // of the clients
  bool takes_structured;   // clients with structured blocks
};

std::span<const Rule> all_rules();
const Rule* find_rule(std::string_view name);

// Before there are clients: Error(kInvalidInput) for an unknown rule, naming all, or a value out of range.
void check_config(const AggregateConfig& config);

// Finds the rule, checks the configuration and runs it. Error(kInvalidInput) for no updates, an unknown rule,
// or a configuration out of range; Error(kMismatch), naming the client, for ranks or blocks that the rule cannot take.
model::Adapter aggregate(const model::Adapter* global, std::span<const ClientUpdate> updates,
                         const AggregateConfig& config, uint64_t seed);

// The rules themselves, each in its own file with its formula.
model::Adapter fedit(const model::Adapter*, std::span<const ClientUpdate>, const AggregateConfig&, uint64_t seed);
model::Adapter zero_pad(const model::Adapter*, std::span<const ClientUpdate>, const AggregateConfig&, uint64_t seed);
model::Adapter flexlora(const model::Adapter*, std::span<const ClientUpdate>, const AggregateConfig&, uint64_t seed);
model::Adapter hete_h0(const model::Adapter*, std::span<const ClientUpdate>, const AggregateConfig&, uint64_t seed);
model::Adapter hete_h0_axis(const model::Adapter*, std::span<const ClientUpdate>, const AggregateConfig&,
                            uint64_t seed);
model::Adapter hete_h1(const model::Adapter*, std::span<const ClientUpdate>, const AggregateConfig&, uint64_t seed);
model::Adapter hete_h2(const model::Adapter*, std::span<const ClientUpdate>, const AggregateConfig&, uint64_t seed);
model::Adapter hete_tau(const model::Adapter*, std::span<const ClientUpdate>, const AggregateConfig&, uint64_t seed);

}  // namespace brick::federate
