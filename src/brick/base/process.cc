#include "brick/base/process.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <fstream>
#include <limits>
#include <string>
#include <string_view>

namespace brick {
namespace {

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

constexpr int64_t kUnknown = std::numeric_limits<int64_t>::max();

// The number behind `key` in a file of "key number" lines, or the file's only one without a key.
int64_t number_in(const std::filesystem::path& path, std::string_view key = {}) {
  std::ifstream file(path);
  std::string word;
  while (key.empty() || file >> word) {
    int64_t number = 0;
    if (!(file >> number)) break;
    if (key.empty() || word == key) return number;
    std::getline(file, word);
  }
  return kUnknown;
}

struct GroupFiles {
  std::string_view limit, usage;
  std::string_view active, inactive;  // keys in memory.stat of pages of files, which can be given back
};
constexpr GroupFiles kVersion1{"memory.limit_in_bytes", "memory.usage_in_bytes", "total_active_file",
                               "total_inactive_file"};
constexpr GroupFiles kVersion2{"memory.max", "memory.current", "active_file", "inactive_file"};

// What the group `name` and those around it leave. Within a container the name may be that of outside; what is mounted
// is then the container's own group.
int64_t group_room(const std::filesystem::path& mount, const std::string& name, const GroupFiles& files) {
  int64_t room = kUnknown;
  std::filesystem::path inner = std::filesystem::path(name).relative_path();
  for (bool more = true; more; inner = inner.parent_path()) {
    more = !inner.empty();
    const std::filesystem::path group = mount / inner;
    const int64_t limit = number_in(group / files.limit), usage = number_in(group / files.usage);
    if (limit == kUnknown || usage == kUnknown) continue;
    int64_t used = usage;
    for (const std::string_view key : {files.active, files.inactive})
      if (const int64_t cache = number_in(group / "memory.stat", key); cache != kUnknown) used -= cache;
    room = std::min(room, std::max<int64_t>(0, limit - std::max<int64_t>(0, used)));
  }
  return room;
}

int64_t groups_room(const std::filesystem::path& root) {
  const std::filesystem::path mount = root / "sys/fs/cgroup";
  std::ifstream file(root / "proc/self/cgroup");
  int64_t room = kUnknown;
  for (std::string line; std::getline(file, line);) {  // number:controllers:name
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    if (controllers == ",,") room = std::min(room, group_room(mount, line.substr(second + 1), kVersion2));
    if (controllers.find(",memory,") != std::string::npos)
      room = std::min(room, group_room(mount / "memory", line.substr(second + 1), kVersion1));
  }
  return room;
}

}  // namespace

int64_t peak_rss_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return int64_t{usage.ru_maxrss} * 1024;
}

int64_t resident_bytes() {
  std::ifstream file("/proc/self/statm");
  int64_t size = 0, resident = 0;
  file >> size >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

int64_t available_memory_bytes(const std::filesystem::path& root) {
  const int64_t kilobytes = number_in(root / "proc/meminfo", "MemAvailable:");
  const int64_t available = std::min(kilobytes == kUnknown ? kUnknown : kilobytes * 1024, groups_room(root));
  return available == kUnknown ? 0 : std::max<int64_t>(1, available);  // 0 says unknown
}

Stopwatch::Stopwatch() : start_ns_(now_ns()) {}
double Stopwatch::seconds() const { return static_cast<double>(now_ns() - start_ns_) * 1e-9; }

}  // namespace brick
