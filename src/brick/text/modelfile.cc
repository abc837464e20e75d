#include "brick/text/modelfile.h"

#include <set>

#include "brick/base/error.h"

namespace brick::text {
namespace {

std::string open_turn(const TurnStyle& turn) { return turn.marker + turn.header; }

// Go's text/template writes text between actions as it stands, newlines too; so nothing is trimmed.
std::string go_template(const ChatTemplate& style, const std::string& eos) {
  const auto turn = [&](const TurnStyle& role) {
    return open_turn(role) + role.lead + "{{ .Content }}" + role.trail + role.end_marker +
           (role.ends_with_eos ? eos : "") + role.footer;
  };
  return "{{ range .Messages }}{{ if eq .Role \"system\" }}" + turn(style.system) + "{{ else if eq .Role \"user\" }}" +
         turn(style.user) + "{{ else }}" + turn(style.assistant) + "{{ end }}{{ end }}" + open_turn(style.assistant);
}

void refuse_quotes(const std::string& text, const char* what) {
  if (text.find("\"\"\"") != std::string::npos)
    fail(ErrorCode::kUnsupported, "Modelfile: the {} has three quotes, which would end it", what);
}

}  // namespace

std::string ollama_modelfile(const std::string& from, const std::optional<ChatTemplate>& style,
                             const std::string& eos) {
  std::string out = "FROM " + from + "\n";
  if (!style) return out;
  if (style->system_within_user)
    fail(ErrorCode::kUnsupported, "Modelfile: the chat template {} nests the system message in the user's",
         style->name);
  for (const TurnStyle* turn : {&style->system, &style->user, &style->assistant})
    for (const std::string* text :
         {&turn->marker, &turn->header, &turn->lead, &turn->trail, &turn->end_marker, &turn->footer})
      if (text->find("{{") != std::string::npos)
        fail(ErrorCode::kUnsupported, "Modelfile: the chat template {} has braces, which Ollama would evaluate",
             style->name);
  std::set<std::string> stops;
  for (const TurnStyle* turn : {&style->system, &style->user, &style->assistant})
    for (const std::string* marker : {&turn->marker, &turn->end_marker})
      if (!marker->empty()) stops.insert(*marker);
  const std::string source = go_template(*style, eos);
  refuse_quotes(source, "chat template");
  refuse_quotes(style->default_system, "default system message");
  out += "TEMPLATE \"\"\"" + source + "\"\"\"\n";
  if (!style->default_system.empty()) out += "SYSTEM \"\"\"" + style->default_system + "\"\"\"\n";
  for (const std::string& stop : stops) out += "PARAMETER stop \"" + stop + "\"\n";
  return out;
}

}  // namespace brick::text
