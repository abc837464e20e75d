#include <fmt/format.h>
#include <fmt/ranges.h>

#include "brick/base/error.h"
#include "brick/cli/command.h"
#include "brick/io/text_file.h"

namespace brick::cli {

void add_tokenize(CLI::App& app, Globals& globals) {
  struct Options {
    std::string model, text, file;
    std::vector<int32_t> decode;
    bool special = false;
  };
  const auto options = std::make_shared<Options>();
  CLI::App* command =
      add_command(app, globals, "tokenize", "text to ids and back", "brick tokenize model.gguf --text \"Hello world\"");
  command->add_option("model", options->model, "model whose tokenizer to use")->required();
  CLI::Option* text = command->add_option("--text", options->text, "text to encode");
  CLI::Option* file = command->add_option("--file", options->file, "file to encode")->excludes(text);
  add_list(command, "--decode", options->decode, "ids, separated by commas")->excludes(text)->excludes(file);
  command->add_flag("--special", options->special, "parse special tokens in the text (show them, when decoding)");
  command->add_option("--tokenizer", globals.settings.tokenizer_file, "tokenizer file instead of the model's own");
  command->callback([=, &globals] {
    const bool decoding = command->count("--decode") > 0;
    if (!decoding && text->count() + file->count() == 0) throw CLI::RequiredError("--text, --file or --decode");
    globals.run = [=, &globals] {
      const pipeline::Workbench bench(options->model, globals.settings);
      if (decoding) {
        for (int32_t id : options->decode)
          if (id < 0 || id >= bench.tokenizer().vocab_size())
            fail(ErrorCode::kInvalidInput, "token id {}: the vocabulary has {}", id, bench.tokenizer().vocab_size());
        const std::string decoded = bench.tokenizer().decode(options->decode, options->special);
        if (globals.json) return print_result(globals, {{"text", decoded}});
        return fmt::print("{}\n", decoded);
      }
      const std::vector<int32_t> ids = bench.tokenizer().encode(
          options->file.empty() ? options->text : io::read_text(options->file), options->special);
      if (globals.json) return print_result(globals, {{"ids", ids}});
      fmt::print("{}\n", fmt::join(ids, ","));
    };
  });
}

}  // namespace brick::cli
