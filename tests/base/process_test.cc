#include "brick/base/process.h"

#include <gtest/gtest.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "base/temp_folder.h"

namespace brick {
namespace {

TEST(Process, ReportsMemoryAndTime) {
  EXPECT_GT(peak_rss_bytes(), 1 << 20);
  EXPECT_GT(resident_bytes(), 1 << 20);
  EXPECT_GT(available_memory_bytes(), 0);
  const Stopwatch watch;
  const double first = watch.seconds();
  std::this_thread::sleep_for(std::chrono::milliseconds(2));
  EXPECT_GE(first, 0.0);
  EXPECT_GE(watch.seconds() - first, 0.002);
}

// A machine with 1000 kB available, and control groups as a test lays them out.
class AvailableMemory : public testing::Test {
 protected:
  AvailableMemory() { write("proc/meminfo", "MemTotal: 4000 kB\nMemAvailable: 1000 kB\nHugePages_Total: 0\n"); }

  void write(const std::filesystem::path& name, const std::string& text) {
    const std::filesystem::path path = root_.path() / name;
    std::filesystem::create_directories(path.parent_path());
    std::ofstream(path) << text;
  }
  int64_t bytes() const { return available_memory_bytes(root_.path()); }

  TempFolder root_;
};

TEST_F(AvailableMemory, IsTheMachinesWhereNoGroupLimitsIt) {
  EXPECT_EQ(bytes(), 1000 * 1024);
  write("proc/self/cgroup", "0::/user\n");
  write("sys/fs/cgroup/user/memory.max", "max\n");
  write("sys/fs/cgroup/user/memory.current", "5000\n");
  EXPECT_EQ(bytes(), 1000 * 1024);
}

TEST_F(AvailableMemory, IsWhatTheTightestGroupAroundLeaves) {
  write("proc/self/cgroup", "0::/pod/job\n");
  write("sys/fs/cgroup/pod/job/memory.max", "600000\n");
  write("sys/fs/cgroup/pod/job/memory.current", "100000\n");
  EXPECT_EQ(bytes(), 500000);
  write("sys/fs/cgroup/pod/memory.max", "400000\n");
  write("sys/fs/cgroup/pod/memory.current", "300000\n");
  EXPECT_EQ(bytes(), 100000);
  write("sys/fs/cgroup/pod/memory.stat", "anon 1\ninactive_file 200000\nactive_file 50000\n");  // can be given back
  EXPECT_EQ(bytes(), 350000);
  write("sys/fs/cgroup/pod/memory.current", "900000\n");
  EXPECT_EQ(bytes(), 1);  // nothing is not "unknown"
}

TEST_F(AvailableMemory, OfAContainerIsThatOfTheGroupMountedThere) {
  write("proc/self/cgroup", "0::/../../outside\n");
  write("sys/fs/cgroup/memory.max", "600000\n");
  write("sys/fs/cgroup/memory.current", "100000\n");
  EXPECT_EQ(bytes(), 500000);
}

TEST_F(AvailableMemory, KnowsVersionOne) {
  write("proc/self/cgroup", "5:cpu,cpuacct:/job\n4:memory:/job\n1:name=systemd:/\n");
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  write("sys/fs/cgroup/memory/memory.usage_in_bytes", "77\n");
  write("sys/fs/cgroup/memory/job/memory.limit_in_bytes", "600000\n");
  write("sys/fs/cgroup/memory/job/memory.usage_in_bytes", "200000\n");
  write("sys/fs/cgroup/memory/job/memory.stat",
        "inactive_file 1\ntotal_inactive_file 40000\ntotal_active_file 10000\n");
  EXPECT_EQ(bytes(), 450000);
}

TEST_F(AvailableMemory, IsUnknownWhereNothingSays) {
  write("proc/meminfo", "MemTotal: 4000 kB\n");
  EXPECT_EQ(bytes(), 0);
}

}  // namespace
}  // namespace brick
