#include <algorithm>

#include "brick/cli/command.h"
#include "brick/model/load.h"

namespace brick::cli {
namespace {

// "heads 6-9, kv_heads 2-3, ffn 1024-1536"
std::string span_of(const std::vector<model::LayerShape>& layers) {
  const auto of = [&](const char* name, int64_t model::LayerShape::*field) {
    const auto [least, most] = std::minmax_element(layers.begin(), layers.end(),
                                                   [&](const auto& a, const auto& b) { return a.*field < b.*field; });
    return (*least).*field == (*most).*field ? fmt::format("{} {}", name, (*least).*field)
                                             : fmt::format("{} {}-{}", name, (*least).*field, (*most).*field);
  };
  return fmt::format("{}, {}, {}", of("heads", &model::LayerShape::heads), of("kv_heads", &model::LayerShape::kv_heads),
                     of("ffn", &model::LayerShape::ffn));
}

}  // namespace

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
      if (!s.widths.empty()) out["widths"] = span_of(s.widths);
      for (size_t i = 0; i < s.widths.size(); ++i) {
        const model::LayerShape& w = s.widths[i];
        nlohmann::json layer{{"heads", w.heads}, {"kv_heads", w.kv_heads}, {"ffn", w.ffn}};
        if (s.block.cut) layer["of"] = s.block.cut->layers[i].layer;
        out["layer_widths"].push_back(layer);
      }
      if (s.block.cut) out["block"]["parent_layers"] = s.block.cut->parent_layers;
      if (s.block.cut && s.block.cut->stream) out["block"]["parent_hidden"] = s.block.cut->stream->parent;
      print_result(globals, out);
    };
  });
}

}  // namespace brick::cli
