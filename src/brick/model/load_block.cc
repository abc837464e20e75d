#include "brick/base/error.h"
#include "brick/model/load_parts.h"

namespace brick::model {

Model load_block_weights(const std::string& folder, const nlohmann::json&) {
  fail(ErrorCode::kUnsupported, "{}: blocks are not read yet", folder);
}

}  // namespace brick::model
