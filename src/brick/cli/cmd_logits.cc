#include "brick/base/error.h"
#include "brick/cli/command.h"
#include "brick/io/atomic_output.h"
#include "brick/io/npy.h"
#include "brick/kernels/vector_ops.h"
#include "brick/model/loss.h"
#include "brick/model/transformer.h"

namespace brick::cli {
namespace {

struct LogitsOptions {
  std::string model, adapter, out;
  std::vector<int32_t> ids;
};

nlohmann::json write_logits(const LogitsOptions& options, const Globals& globals) {
  io::check_output(options.out, globals.settings.force, {options.model, options.adapter});
  const pipeline::Workbench bench(options.model, globals.settings, false);
  const auto sink = make_terminal_sink(globals.json);
  const auto adapter = pipeline::load_fitting_adapter(options.adapter, bench.model(), *sink);
  kernels::Context context(kernels::choose_compute(globals.settings.compute));
  const auto count = static_cast<int64_t>(options.ids.size()), vocab = bench.model().config.vocab;
  model::Transformer transformer(bench.model(), context, count);
  const int64_t offsets[2] = {0, count};
  const tensor::MatView hidden = transformer.forward({options.ids, offsets}, {adapter ? &*adapter : nullptr});
  constexpr int64_t kRows = 64;
  tensor::Tensor piece = tensor::matrix(std::min(kRows, count), vocab);
  io::NpyWriter file(options.out, count, vocab, globals.settings.force);
  for (int64_t begin = 0; begin < count; begin += kRows) {
    const int64_t rows = std::min(kRows, count - begin);
    model::logits(context, bench.model(), hidden.row_range(begin, begin + rows), {piece.f32(), rows, vocab});
    if (!kernels::all_finite(piece.f32(), rows * vocab))
      fail(ErrorCode::kNumeric, "{}: logits are not finite: weights of the model or the adapter are damaged",
           options.model);
    file.append({piece.f32(), static_cast<size_t>(rows * vocab)});
  }
  file.commit();
  return {{"shape", {count, vocab}}, {"out", options.out}};
}

}  // namespace

void add_logits(CLI::App& app, Globals& globals) {
  const auto options = std::make_shared<LogitsOptions>();
  CLI::App* command = add_command(app, globals, "logits", "logits of token ids as a float32 NumPy array [T, V]",
                                  "brick logits model.gguf --ids 1,2,3 --out logits.npy");
  command->add_option("model", options->model, "GGUF file, Hugging Face folder or block")->required();
  command->add_option("--adapter", options->adapter, "PEFT folder");
  add_list(command, "--ids", options->ids, "token ids, separated by commas")->required();
  command->add_option("--out", options->out, "file to write")->required();
  add_force(command, globals);
  command->callback(
      [=, &globals] { globals.run = [=, &globals] { print_result(globals, write_logits(*options, globals)); }; });
}

}  // namespace brick::cli
