#include "brick/base/error.h"
#include "brick/cli/command.h"

namespace brick::cli {

void add_help(CLI::App& app, Globals& globals) {
  const auto verb = std::make_shared<std::string>();
  CLI::App* command = app.add_subcommand("help", "a command's flags and an example");
  command->add_option("command", *verb, "which command; all, where none is named");
  command->footer("Example:\n  brick help tune");
  command->callback([verb, &app, &globals] {
    globals.run = [verb, &app] {
      if (verb->empty())  // app.help() is that of the command which was parsed
        return fmt::print("{}", app.get_formatter()->make_help(&app, app.get_name(), CLI::AppFormatMode::Normal));
      for (const CLI::App* other : app.get_subcommands([](CLI::App*) { return true; }))
        if (other->get_name() == *verb) return fmt::print("{}", other->help("brick"));
      fail(ErrorCode::kNotFound, "there is no command '{}'; brick help lists them", *verb);
    };
  });
}

}  // namespace brick::cli
