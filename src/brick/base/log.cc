#include "brick/base/log.h"

namespace brick {

ProgressSink& silent_sink() {
  static ProgressSink sink;
  return sink;
}

}  // namespace brick
