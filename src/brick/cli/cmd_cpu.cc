#include "brick/base/cpu.h"
#include "brick/cli/command.h"
#include "brick/kernels/vector_ops.h"

namespace brick::cli {

void add_cpu(CLI::App& app, Globals& globals) {
  CLI::App* command =
      add_command(app, globals, "cpu", "instruction sets found and chosen (BRICK_ISA forces a lower one)",
                  "BRICK_ISA=avx2 brick cpu");
  command->callback([&globals] {
    globals.run = [&globals] {
      nlohmann::json available = nlohmann::json::array();
      for (Isa isa : available_isas()) available.push_back(name(isa));
      print_result(globals, {{"isa", name(active_isa())},
                             {"available", available},
                             {"simd", kernels::simd_target()},
                             {"bf16", has_bf16_arithmetic()},
                             {"model", cpu_model()},
                             {"physical_cores", physical_cores()}});
    };
  });
}

}  // namespace brick::cli
