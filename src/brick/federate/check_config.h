// What a round's configuration gets wrong, before there are clients.
#pragma once

#include "brick/federate/rules.h"

namespace brick::federate {

// Error(kInvalidInput) for an unknown rule, naming all, or a value out of range.
void check_config(const AggregateConfig& config);

}  // namespace brick::federate
