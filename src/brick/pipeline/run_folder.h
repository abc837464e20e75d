// A run on disk and how it resumes. Work is cut into units; each writes its artifacts atomically and then one line to
// metrics.jsonl. A unit whose line stands there is done; any other is done again from its start, and since every unit
// is a pure function of the configuration, the seed and earlier artifacts, an interrupted run ends in the same bits.
#pragma once

#include <deque>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

namespace brick::pipeline {

// {"tool_version", "isa", "threads", "kernels"}: what any resumed run must share with its beginning for the same bits.
nlohmann::json run_conditions();

class RunFolder {
 public:
  // Whether `resume` goes on with what is there.
  static bool is_begun(const std::filesystem::path& path);

  // A new folder, or with `resume` one that has the same `identity` (Error(kMismatch) otherwise; a missing folder is
  // begun). An existing folder needs `resume` or `force`. Error(kCorrupt) for lines of metrics.jsonl that are no
  // events.
  RunFolder(const std::filesystem::path& path, const std::string& config_text, const std::string& identity, bool resume,
            bool force);

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path round(int64_t round) const;

  // Runs `work` unless its event is recorded. `key` ({"event", "round", "client", ...}) identifies the unit; the event
  // is the key, what `work` returned and, unless that says them, its "seconds".
  const nlohmann::json& once(const nlohmann::json& key, const std::function<nlohmann::json()>& work);

  // The event of a unit that is done; null where it is not. Lives as long as this.
  const nlohmann::json* find(const nlohmann::json& key) const;

  // Objects with strings "event" and "unit"; what else they have, a damaged file may lack.
  const std::deque<nlohmann::json>& events() const { return events_; }

 private:
  void read_events();

  std::filesystem::path path_;
  std::deque<nlohmann::json> events_;    // references stay valid
  std::map<std::string, size_t> index_;  // compact key -> event
};

}  // namespace brick::pipeline
