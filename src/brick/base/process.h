// What this process has used and the machine could still give.
#pragma once

#include <cstdint>
#include <filesystem>

namespace brick {

int64_t peak_rss_bytes();  // largest resident set so far
int64_t resident_bytes();  // of now

// What this process could still take: the machine's MemAvailable, or what the limits of its control groups (versions 1
// and 2; a container's are such) leave if that is less; 0 where neither is known. `root` has proc/ and sys/.
int64_t available_memory_bytes(const std::filesystem::path& root = "/");

// Wall-clock seconds since construction.
class Stopwatch {
 public:
  Stopwatch();
  double seconds() const;

 private:
  int64_t start_ns_;
};

}  // namespace brick
