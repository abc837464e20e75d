#include "brick/cli/command.h"
#include "brick/model/load.h"

namespace brick::cli {

void add_info(CLI::App& app, Globals& globals) {
  struct Options {
    std::string model;
    bool scan = false;
  };
  const auto options = std::make_shared<Options>();
  CLI::App* command = add_command(app, globals, "info", "what a model or block is", "brick info model.gguf");
  command->add_option("model", options->model, "GGUF file, Hugging Face folder or block")->required();
  command->add_flag("--scan", options->scan, "look at every weight and count the zeros");
  command->callback([options, &globals] {
    globals.run = [options, &globals] {
      const model::ModelSummary s = model::summarise(options->model, options->scan);
      nlohmann::json out{{"architecture", s.architecture},
                         {"parameters", s.parameters},
                         {"nonzeros", s.nonzeros},
                         {"bytes", s.bytes},
                         {"layers", s.layers},
                         {"hidden", s.hidden},
                         {"heads", s.heads},
                         {"kv_heads", s.kv_heads},
                         {"ffn", s.ffn},
                         {"vocab", s.vocab},
                         {"dtype", s.dtype},
                         {"tensors", s.tensors_by_dtype}};
      if (s.block.is_block())
        out["block"] = {{"method", s.block.method}, {"sparsity", s.block.sparsity}, {"pattern", s.block.pattern},
                        {"values", s.block.values}, {"parent", s.block.parent},     {"mask_hash", s.block.mask_hash}};
      print_result(globals, out);
    };
  });
}

}  // namespace brick::cli
