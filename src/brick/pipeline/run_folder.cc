#include "brick/pipeline/run_folder.h"

#include <fmt/format.h>

#include "brick/base/cpu.h"
#include "brick/base/error.h"
#include "brick/base/parallel.h"
#include "brick/base/process.h"
#include "brick/io/atomic_output.h"
#include "brick/io/json_file.h"
#include "brick/io/text_file.h"
#include "brick/pipeline/kernel_table_file.h"
#include "brick/pipeline/workbench.h"

namespace brick::pipeline {
namespace {

constexpr const char* kMetrics = "metrics.jsonl";
constexpr const char* kIdentity = "identity.json";

}  // namespace

nlohmann::json run_conditions() {
  return {{"tool_version", tool_version()},
          {"isa", name(active_isa())},
          {"threads", threads()},
          {"kernels", table_rows(kernels::kernel_table())}};
}

bool RunFolder::is_begun(const std::filesystem::path& path) { return std::filesystem::exists(path / kIdentity); }

RunFolder::RunFolder(const std::filesystem::path& path, const std::string& config_text, const std::string& identity,
                     bool resume, bool force)
    : path_(path) {
  const bool begun = is_begun(path_);
  if (resume && begun) {
    const nlohmann::json stored = io::read_json_file(path_ / kIdentity);
    if (const auto found = stored.find("identity"); found == stored.end() || *found != nlohmann::json(identity))
      fail(ErrorCode::kMismatch,
           "{}: begun with another configuration, model, data, seed or version; choose another folder or begin anew "
           "with --force",
           path_.string());
    read_events();
    return;
  }
  if (begun && !force)
    fail(ErrorCode::kExists, "{} holds a run that was begun: continue it with --resume or discard it with --force",
         path_.string());
  if (!resume || std::filesystem::exists(path_)) io::check_output(path_, force);
  io::AtomicFolder fresh(path_, true);
  io::write_file_atomic(fresh.path() / "config.toml", config_text);
  io::write_json_file(fresh.path() / kIdentity, {{"identity", identity}});
  io::write_file_atomic(fresh.path() / kMetrics, "");
  fresh.commit();
}

std::filesystem::path RunFolder::round(int64_t round) const { return path_ / "rounds" / fmt::format("{:03}", round); }

void RunFolder::read_events() {
  const std::string text = io::read_text(path_ / kMetrics);
  // A line without its newline was cut by a crash: its unit is done again.
  const size_t whole = text.rfind('\n') == std::string::npos ? 0 : text.rfind('\n') + 1;
  if (whole != text.size()) io::write_file_atomic(path_ / kMetrics, text.substr(0, whole));
  io::for_each_line_in(std::string_view(text).substr(0, whole), [&](int64_t number, std::string_view line) {
    const std::string where = fmt::format("line {} of {}", number, (path_ / kMetrics).string());
    nlohmann::json event = io::parse_json(line, where);
    for (const char* key : {"event", "unit"})
      if (const auto found = event.find(key); found == event.end() || !found->is_string())
        fail(ErrorCode::kCorrupt, "{}: is no event: it lacks the string '{}'", where, key);
    index_[event["unit"].get<std::string>()] = events_.size();
    events_.push_back(std::move(event));
  });
}

const nlohmann::json* RunFolder::find(const nlohmann::json& key) const {
  const auto found = index_.find(io::compact_json(key));
  return found == index_.end() ? nullptr : &events_[found->second];
}

const nlohmann::json& RunFolder::once(const nlohmann::json& key, const std::function<nlohmann::json()>& work) {
  if (const nlohmann::json* event = find(key)) return *event;
  const std::string unit = io::compact_json(key);
  const Stopwatch watch;
  nlohmann::json event = key;
  event.update(work());
  event.emplace("seconds", watch.seconds());
  event["unit"] = unit;
  io::append_line_durable(path_ / kMetrics, io::compact_json(event));
  index_[unit] = events_.size();
  return events_.emplace_back(std::move(event));
}

}  // namespace brick::pipeline
