// Runs this test program again with other arguments and another BRICK_ISA: what a process reads once can only
// be tested from a new one.
#pragma once

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstring>
#include <string>
#include <vector>

namespace brick {

struct SelfRun {
  int exit_code = -1;  // -1: could not start, or ended by a signal
  std::string output;  // standard output and error together
};

inline SelfRun run_self(std::vector<std::string> arguments, const std::string& isa) {
  std::vector<std::string> variables{"BRICK_ISA=" + isa};
  for (char** variable = environ; *variable != nullptr; ++variable)
    if (std::strncmp(*variable, "BRICK_ISA=", 10) != 0) variables.emplace_back(*variable);
  arguments.insert(arguments.begin(), "/proc/self/exe");
  const auto pointers = [](std::vector<std::string>& strings) {
    std::vector<char*> out;
    for (std::string& text : strings) out.push_back(text.data());
    out.push_back(nullptr);
    return out;
  };

  SelfRun run;
  std::array<int, 2> ends{};
  if (pipe(ends.data()) != 0) return run;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, ends[1], STDERR_FILENO);
  posix_spawn_file_actions_addclose(&actions, ends[0]);
  pid_t child = 0;
  const int refused =
      posix_spawn(&child, "/proc/self/exe", &actions, nullptr, pointers(arguments).data(), pointers(variables).data());
  posix_spawn_file_actions_destroy(&actions);
  close(ends[1]);
  std::array<char, 4096> buffer{};
  for (ssize_t n = 0; (n = read(ends[0], buffer.data(), buffer.size())) > 0;)
    run.output.append(buffer.data(), static_cast<size_t>(n));
  close(ends[0]);
  int status = 0;
  if (refused == 0 && waitpid(child, &status, 0) == child && WIFEXITED(status)) run.exit_code = WEXITSTATUS(status);
  return run;
}

}  // namespace brick
