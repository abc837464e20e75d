#include "brick/train/teacher.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include "brick/base/error.h"
#include "brick/base/process.h"
#include "brick/base/sha256.h"
#include "brick/io/atomic_output.h"
#include "brick/io/json_file.h"
#include "brick/kernels/forward_kl.h"
#include "brick/kernels/norm.h"
#include "brick/kernels/vector_ops.h"
#include "brick/tensor/pack.h"

namespace brick::train {
namespace {

using tensor::DType;
using tensor::Tensor;
using tensor::TensorView;

constexpr const char* kProvenance = "teacher.json";
constexpr const char* kExtension = ".safetensors";
constexpr const char* kIds = ".ids";
constexpr const char* kLogProbabilities = ".log_probabilities";
constexpr const char* kHidden = ".hidden";
constexpr int64_t kUnsavedTokens = 8192;  // about a megabyte, and 16 kB a channel of hidden states
constexpr int64_t kShortIds = int64_t{1} << 16;
constexpr double kRounding = 0.02;  // float16 logarithms down to -16 are within 2^-7

io::Provenance provenance_of(const model::Model& model, const TeacherOptions& options, kernels::Compute compute) {
  nlohmann::json config = {{"top", options.top}, {"vocab", model.config.vocab}, {"compute", kernels::name(compute)}};
  if (options.hidden) config["hidden"] = model.config.hidden;
  return {options.tool_version, options.model_hash, io::compact_json(config), 0};
}

std::string key_of(std::span<const int32_t> ids, std::span<const uint8_t> supervised) {
  return Sha256().update(std::as_bytes(ids)).update(std::as_bytes(supervised)).hex();
}

// Two bytes an id where these suffice.
Tensor encode_ids(std::span<const int32_t> ids, int64_t k, int64_t vocab) {
  const int64_t tokens = static_cast<int64_t>(ids.size()) / k;
  if (vocab > kShortIds) {
    Tensor out(DType::kI32, {tokens, k});
    std::memcpy(out.bytes().data(), ids.data(), ids.size_bytes());
    return out;
  }
  Tensor out(DType::kU8, {tokens, 2 * k});
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto id = static_cast<uint16_t>(ids[i]);
    std::memcpy(out.bytes().data() + 2 * i, &id, sizeof id);
  }
  return out;
}

int32_t decode_id(const TensorView& ids, int64_t i) {
  if (ids.dtype == DType::kI32) {
    int32_t id = 0;
    std::memcpy(&id, ids.bytes.data() + 4 * i, sizeof id);
    return id;
  }
  uint16_t id = 0;
  std::memcpy(&id, ids.bytes.data() + 2 * i, sizeof id);
  return id;
}

// Sorted; a hidden name is an unfinished write.
std::vector<std::filesystem::path> visible_entries(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    if (entry.path().filename().string().front() != '.') paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  return paths;
}

void check_folder(const std::filesystem::path& folder, const io::Provenance& ours) {
  if (!std::filesystem::exists(folder / kProvenance))
    fail(ErrorCode::kExists, "{} exists and is no folder of a teacher's logits (it has no {})", folder.string(),
         kProvenance);
  const auto stored = io::read_json_file(folder / kProvenance).get<io::Provenance>();
  if (stored.parent_hash != ours.parent_hash)
    fail(ErrorCode::kMismatch, "{} holds the logits of another teacher; choose another folder or remove it",
         folder.string());
  if (stored.config != ours.config)
    fail(ErrorCode::kMismatch, "{} holds logits made with {}, not {}; choose another folder or remove it",
         folder.string(), stored.config, ours.config);
}

}  // namespace

Teacher::Teacher(const model::Model& model, const TeacherOptions& options, kernels::Context& context)
    : model_(model),
      context_(context),
      options_(options),
      provenance_(provenance_of(model, options, context.compute())) {
  const int64_t most = std::min(kernels::kMostTopTokens, model.config.vocab);
  if (options.top < 1 || options.top > most)
    fail(ErrorCode::kInvalidInput, "top_tokens = {}: expected 1 to {}", options.top, most);
  const std::filesystem::path& folder = options.folder;
  std::vector<std::filesystem::path> paths;
  if (std::filesystem::is_directory(folder)) paths = visible_entries(folder);
  if (paths.empty()) {  // save() begins it
    io::check_output(folder / kProvenance, false);
    return;
  }
  check_folder(folder, provenance_);
  for (const std::filesystem::path& path : paths)
    if (path.extension() == kExtension) add_file(path);
}

void Teacher::add_file(const std::filesystem::path& path) {
  files_.push_back(io::SafetensorsFile::open(path));
  for (const io::SafetensorInfo& info : files_.back().tensors())
    if (info.name.ends_with(kIds))
      file_of_.emplace(info.name.substr(0, info.name.size() - std::strlen(kIds)), files_.size() - 1);
}

std::string Teacher::identity() const { return provenance_.parent_hash + " " + provenance_.config; }

Teacher::Record Teacher::compute(std::span<const int32_t> ids, std::span<const model::ScoredToken> scored,
                                 std::span<const int64_t> offsets) {
  const Stopwatch watch;
  if (!transformer_ || transformer_->max_tokens() < offsets.back())
    transformer_.emplace(model_, context_, offsets.back());
  const std::vector<int64_t> first_read = model::first_read_rows(scored, offsets);
  const auto tokens = static_cast<int64_t>(scored.size());
  const int64_t k = top();
  std::vector<int32_t> likeliest(static_cast<size_t>(tokens * k));
  Tensor log_probabilities = tensor::matrix(tokens, k + 1);
  const tensor::ConstMatView stream = transformer_->forward({ids, offsets, first_read});
  model::for_each_logits(context_, model_, stream, scored, [&](int64_t begin, const int32_t*, tensor::MatView logits) {
    kernels::top_tokens(logits, k, likeliest.data() + begin * k, log_probabilities.mat().row(begin));
  });
  computed_tokens_ += offsets.back();
  seconds_ += watch.seconds();
  for (int64_t t = 0; t < tokens; ++t)
    if (!std::isfinite(log_probabilities.mat()(t, 0)))
      fail(ErrorCode::kNumeric, "the teacher {} gives logits that are no numbers", model_.source);
  return {encode_ids(likeliest, k, model_.config.vocab), tensor::convert(log_probabilities.view(), DType::kF16),
          gives_hidden() ? encode_hidden(stream, scored) : Tensor()};
}

Tensor Teacher::encode_hidden(tensor::ConstMatView stream, std::span<const model::ScoredToken> scored) const {
  Tensor out(DType::kBF16, {static_cast<int64_t>(scored.size()), stream.cols});
  Tensor row = tensor::matrix(1, stream.cols);
  std::byte* at = out.bytes().data();
  for (const model::ScoredToken& token : scored) {
    float inverse_rms = 0;
    kernels::rms_norm(stream.row_range(token.row, token.row + 1), model_.final_norm.data(), model_.config.norm_eps,
                      row.mat(), &inverse_rms);
    tensor::pack(DType::kBF16, row.f32(), stream.cols, at);
    at += 2 * stream.cols;
  }
  return out;
}

int64_t Teacher::planned_bytes(std::span<const data::TokenSequence> sequences, int64_t part_tokens) const {
  size_t longest = 0;
  for (const data::TokenSequence& sequence : sequences)
    if (sequence.ids.size() > longest)
      if (const std::string key = key_of(sequence.ids, sequence.supervised);
          !file_of_.contains(key) && !unsaved_.contains(key))
        longest = sequence.ids.size();
  const model::ModelConfig& c = model_.config;
  const int64_t read = gives_hidden() ? 4 * c.hidden * part_tokens : 0;
  if (longest == 0) return read;
  const int64_t floats = 4 * c.hidden + 2 * (c.heads + c.kv_heads) * c.head_dim + 3 * c.ffn + c.heads + 2;  // a token
  const int64_t unsaved = gives_hidden() ? 2 * c.hidden * (kUnsavedTokens + static_cast<int64_t>(longest)) : 0;
  return model_.weight_bytes() + 4 * static_cast<int64_t>(longest) * floats + unsaved + read;
}

void Teacher::append(std::span<const int32_t> ids, std::span<const uint8_t> supervised, TopProbabilities& out) {
  const std::array<int64_t, 2> offsets{0, static_cast<int64_t>(ids.size())};
  const std::vector<model::ScoredToken> scored = model::scored_tokens(ids, supervised, offsets);
  const auto tokens = static_cast<int64_t>(scored.size());
  const std::string key = key_of(ids, supervised);
  if (const auto at = file_of_.find(key); at != file_of_.end()) {
    const io::SafetensorsFile& file = files_[at->second];
    const auto stored = [&](const char* what) {
      const io::SafetensorInfo* info = file.find_tensor(key + what);
      if (info == nullptr) refuse_damage();
      return file.tensor(*info);
    };
    decode(tokens, stored(kIds), stored(kLogProbabilities), out);
    if (gives_hidden()) decode_hidden(tokens, stored(kHidden), out);
    return;
  }
  auto at = unsaved_.find(key);
  if (at == unsaved_.end()) {
    at = unsaved_.emplace(key, compute(ids, scored, offsets)).first;
    unsaved_tokens_ += tokens;
  }
  decode(tokens, at->second.ids.view(), at->second.log_probabilities.view(), out);
  if (gives_hidden()) decode_hidden(tokens, at->second.hidden.view(), out);
  if (unsaved_tokens_ >= kUnsavedTokens) save();
}

void Teacher::refuse_damage() const {
  fail(ErrorCode::kCorrupt,
       "{} is damaged: a sequence's tokens, probabilities or hidden states make no sense; remove the folder",
       options_.folder.string());
}

void Teacher::decode_hidden(int64_t tokens, const TensorView& hidden, TopProbabilities& out) const {
  if (hidden.dtype != DType::kBF16 || hidden.shape != tensor::Shape{tokens, model_.config.hidden}) refuse_damage();
  const int64_t count = tokens * model_.config.hidden;
  const size_t before = out.hidden.size();
  out.hidden.resize(before + static_cast<size_t>(count));
  float* values = out.hidden.data() + before;
  tensor::unpack(DType::kBF16, hidden.bytes.data(), count, values);
  if (!kernels::all_finite(values, count)) refuse_damage();
}

void Teacher::decode(int64_t tokens, const TensorView& ids, const TensorView& log_probabilities,
                     TopProbabilities& out) const {
  const int64_t k = top();
  const bool is_short = model_.config.vocab <= kShortIds;
  if (ids.dtype != (is_short ? DType::kU8 : DType::kI32) || ids.shape != tensor::Shape{tokens, is_short ? 2 * k : k} ||
      log_probabilities.dtype != DType::kF16 || log_probabilities.shape != tensor::Shape{tokens, k + 1})
    refuse_damage();
  for (int64_t i = 0; i < tokens * k; ++i) {
    const int32_t id = decode_id(ids, i);
    if (id < 0 || id >= model_.config.vocab) refuse_damage();
    out.ids.push_back(id);
  }
  const Tensor logs = tensor::to_f32(log_probabilities);
  for (int64_t t = 0; t < tokens; ++t) {
    double sum = 0;
    for (int64_t i = 0; i <= k; ++i) sum += std::exp(double{logs.mat()(t, i)});
    if (!(std::abs(sum - 1) < kRounding)) refuse_damage();
    for (int64_t i = 0; i <= k; ++i)
      out.probabilities.push_back(static_cast<float>(std::exp(double{logs.mat()(t, i)}) / sum));
  }
}

void Teacher::save() {
  if (unsaved_.empty()) return;
  const std::filesystem::path path = options_.folder / (unsaved_.begin()->first.substr(0, 16) + kExtension);
  io::SafetensorsWriter writer;
  for (const auto& [key, record] : unsaved_) {
    writer.add_tensor(key + kIds, record.ids.view());
    writer.add_tensor(key + kLogProbabilities, record.log_probabilities.view());
    if (gives_hidden()) writer.add_tensor(key + kHidden, record.hidden.view());
  }
  if (!std::filesystem::exists(options_.folder / kProvenance))
    io::write_json_file(options_.folder / kProvenance, provenance_);
  check_folder(options_.folder, provenance_);  // another run may have begun it since
  writer.write(path, true);
  add_file(path);
  unsaved_.clear();
  unsaved_tokens_ = 0;
}

}  // namespace brick::train
