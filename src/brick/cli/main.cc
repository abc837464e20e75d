// brick: one command, a verb for each job (docs/tour.md). Exit status 0 on success, 1 on an error of input or
// environment, 2 on wrong usage.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <new>

#include "brick/base/cpu.h"
#include "brick/base/error.h"
#include "brick/base/parallel.h"
#include "brick/cli/command.h"
#include "brick/kernels/context.h"
#include "brick/pipeline/kernel_table_file.h"
#include "brick/report/table.h"
#include "brick/text/utf8.h"

namespace {

// So that no file takes the place of a standard stream that was closed before. What is written there still fails.
void fill_closed_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (fcntl(stream, F_GETFD) == -1) open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

void check_output_written() {
  std::fflush(stdout);
  if (std::ferror(stdout)) brick::fail(brick::ErrorCode::kIo, "standard output cannot be written");
}

void report_error(std::string_view what) {
  brick::cli::say(fmt::format("brick: {}\n", brick::report::without_controls(what)));
}

// Whether nothing but this process keeps wanting to run; false where the system doesn't say.
bool is_machine_idle() {
  for (int look = 0; look < 4; ++look) {
    if (look > 0) usleep(2000);  // who only passes by has gone
    double average[3];
    int64_t running = 0;
    if (!(std::ifstream("/proc/loadavg") >> average[0] >> average[1] >> average[2] >> running)) return false;
    if (running <= 1) return true;
  }
  return false;
}

// libgomp's idle threads spin for milliseconds, which starves a machine that does other work too: beside one busy
// neighbour decoding was six times slower and training three times. Threads that sleep at once cost an idle machine up
// to a tenth of its training speed. It reads its setting before main(), hence the second start.
void limit_spinning(char** argv) {
  if (std::getenv("GOMP_SPINCOUNT") != nullptr || std::getenv("OMP_WAIT_POLICY") != nullptr) return;
  if (setenv("GOMP_SPINCOUNT", is_machine_idle() ? "20000" : "1000", 0) == 0) execv("/proc/self/exe", argv);
}

int run(int argc, char** argv) {
  using namespace brick;
  cli::Globals globals;
  CLI::App app("Brickwork: prune one language model into blocks, tune each where its data lives, recombine them.",
               "brick");
  app.set_version_flag("--version", "brick " + pipeline::tool_version());
  app.footer("brick COMMAND --help shows a command's flags and an example.");
  for (const auto add : {cli::add_info,   cli::add_tokenize, cli::add_logits, cli::add_prune,      cli::add_blocks,
                         cli::add_tune,   cli::add_recover,  cli::add_shrink, cli::add_aggregate,  cli::add_merge,
                         cli::add_eval,   cli::add_generate, cli::add_chat,   cli::add_simulate,   cli::add_compare,
                         cli::add_export, cli::add_bench,    cli::add_cpu,    cli::add_completion, cli::add_help})
    add(app, globals);
  // The parser would say of a misspelt command that one is required, and of what follows it that it was not expected.
  app.require_subcommand(0, 1);
  app.allow_extras();
  app.callback([&app] {
    if (app.remaining_size() > 0) throw CLI::ExtrasError({app.remaining().front()});
    if (app.get_subcommands().empty()) throw CLI::RequiredError::Subcommand(1);
  });
  try {
    app.parse(argc, argv);
    cli::refuse_empty_numbers(app);
  } catch (const CLI::ParseError& e) {
    if (app.exit(e) != 0) return 2;
    check_output_written();
    return 0;
  }
  kernels::apply_isa_limit();
  set_threads(globals.threads > 0 ? globals.threads : physical_cores());
  pipeline::use_kernel_table_of_environment();
  globals.run();
  check_output_written();
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  fill_closed_streams();
  limit_spinning(argv);
  try {
    return run(argc, argv);
  } catch (const std::bad_alloc&) {
    brick::cli::say("brick: out of memory\n");
  } catch (const std::filesystem::filesystem_error& e) {
    report_error(fmt::format("{}: {}", brick::text::printable(e.path1().string()), e.code().message()));
  } catch (const std::exception& e) {
    report_error(e.what());
  }
  return 1;
}
