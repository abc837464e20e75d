// What this process has used and the machine could still give.
#pragma once

#include <cstdint>

namespace brick {

int64_t peak_rss_bytes();          // largest resident set so far
int64_t resident_bytes();          // of now
int64_t available_memory_bytes();  // what the machine could still give, MemAvailable

// Wall-clock seconds since construction.
class Stopwatch {
 public:
  Stopwatch();
  double seconds() const;

 private:
  int64_t start_ns_;
};

}  // namespace brick
