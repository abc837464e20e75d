#include <fmt/format.h>
#include <fmt/ranges.h>

#include "brick/cli/command.h"

namespace brick::cli {
namespace {

struct Verb {
  std::string name, purpose;
  std::vector<std::string> flags;
};

std::vector<Verb> verbs_of(CLI::App& app) {
  std::vector<Verb> verbs;
  for (const CLI::App* command : app.get_subcommands([](CLI::App*) { return true; })) {
    Verb verb{command->get_name(), command->get_description(), {}};
    std::vector<const CLI::App*> groups =
        command->get_subcommands([](const CLI::App* a) { return a->get_name().empty(); });
    groups.insert(groups.begin(), command);
    for (const CLI::App* group : groups)
      for (const CLI::Option* option : group->get_options())
        for (const std::string& flag : option->get_lnames()) verb.flags.push_back("--" + flag);
    verbs.push_back(std::move(verb));
  }
  return verbs;
}

std::string bash_script(const std::vector<Verb>& verbs) {
  std::string names, cases;
  for (const Verb& verb : verbs) {
    names += verb.name + " ";
    cases += fmt::format("    {}) words=\"{}\" ;;\n", verb.name, fmt::join(verb.flags, " "));
  }
  return fmt::format(
      "_brick() {{\n  local current=\"${{COMP_WORDS[COMP_CWORD]}}\" words=\"\"\n"
      "  if [ \"$COMP_CWORD\" -eq 1 ]; then words=\"{}\"; else case \"${{COMP_WORDS[1]}}\" in\n{}  esac; fi\n"
      "  if [ \"$COMP_CWORD\" -eq 1 ] || [[ \"$current\" == -* ]]; then\n"
      "    COMPREPLY=($(compgen -W \"$words\" -- \"$current\"))\n"
      "  else COMPREPLY=(); fi\n}}\ncomplete -o default -F _brick brick\n",
      names, cases);
}

std::string zsh_script(const std::vector<Verb>& verbs) {
  return "autoload -U +X bashcompinit && bashcompinit\n" + bash_script(verbs);
}

std::string in_quotes(const std::string& text) {
  std::string out = "'";
  for (const char c : text) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c;
  }
  return out + "'";
}

std::string fish_script(const std::vector<Verb>& verbs) {
  std::string out;
  for (const Verb& verb : verbs) {
    out += fmt::format("complete -c brick -n __fish_use_subcommand -a {} -d {}\n", verb.name, in_quotes(verb.purpose));
    for (const std::string& flag : verb.flags)
      out += fmt::format("complete -c brick -n '__fish_seen_subcommand_from {}' -l {}\n", verb.name, flag.substr(2));
  }
  return out;
}

}  // namespace

void add_completion(CLI::App& app, Globals& globals) {
  const auto shell = std::make_shared<std::string>();
  CLI::App* command =
      add_command(app, globals, "completion", "completion script for a shell", "source <(brick completion bash)");
  command->remove_option(command->get_option("--json"));  // a script is no object
  command->add_option("shell", *shell, "bash, zsh or fish")->check(CLI::IsMember({"bash", "zsh", "fish"}))->required();
  command->callback([shell, &app, &globals] {
    globals.run = [shell, &app] {
      const std::vector<Verb> verbs = verbs_of(app);
      fmt::print("{}", *shell == "fish"  ? fish_script(verbs)
                       : *shell == "zsh" ? zsh_script(verbs)
                                         : bash_script(verbs));
    };
  });
}

}  // namespace brick::cli
