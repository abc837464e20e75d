// What a training step allocates. This test program's own malloc and its kin count and go on to glibc's; Tensor calls
// calloc, or mmap for what is large. (Sanitizers bring theirs.)
#ifndef BRICK_SANITIZED
#include <dlfcn.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "brick/base/cpu.h"
#include "brick/base/parallel.h"
#include "brick/train/trainer.h"
#include "model/tiny_model.h"
#include "train/gradients.h"

namespace brick::train {
namespace {

struct Allocations {
  int64_t count = 0, largest = 0;  // bytes
};

std::atomic<bool> counting{false};
std::atomic<int64_t> counted{0}, largest{0};

// oneDNN takes memory for each product, OpenMP for some parallel regions.
bool is_of_others(const void* caller) {
  Dl_info info;
  if (dladdr(caller, &info) == 0 || info.dli_fname == nullptr) return false;
  for (const char* library : {"libdnnl.", "libgomp.", "libomp."})
    if (std::strstr(info.dli_fname, library) != nullptr) return true;
  return false;
}

void count(size_t bytes, const void* caller) {
  if (!counting || is_of_others(caller)) return;
  ++counted;
  for (int64_t seen = largest; static_cast<int64_t>(bytes) > seen;)
    if (largest.compare_exchange_weak(seen, static_cast<int64_t>(bytes))) break;
}

void start() {
  counted = largest = 0;
  counting = true;
}
Allocations stop() {
  counting = false;
  return {counted, largest};
}

}  // namespace
}  // namespace brick::train

extern "C" {
// NOLINTBEGIN(bugprone-reserved-identifier): glibc's own, under their other names.
void* __libc_malloc(size_t bytes);
void* __libc_calloc(size_t items, size_t bytes);
void* __libc_realloc(void* memory, size_t bytes);
void* __libc_memalign(size_t alignment, size_t bytes);
// NOLINTEND(bugprone-reserved-identifier)

void* malloc(size_t bytes) noexcept {
  brick::train::count(bytes, __builtin_return_address(0));
  return __libc_malloc(bytes);
}
void* calloc(size_t items, size_t bytes) noexcept {
  brick::train::count(items * bytes, __builtin_return_address(0));
  return __libc_calloc(items, bytes);
}
void* realloc(void* memory, size_t bytes) noexcept {
  brick::train::count(bytes, __builtin_return_address(0));
  return __libc_realloc(memory, bytes);
}
void* aligned_alloc(size_t alignment, size_t bytes) noexcept {
  brick::train::count(bytes, __builtin_return_address(0));
  return __libc_memalign(alignment, bytes);
}
int posix_memalign(void** memory, size_t alignment, size_t bytes) noexcept {
  brick::train::count(bytes, __builtin_return_address(0));
  *memory = __libc_memalign(alignment, bytes);
  return *memory != nullptr ? 0 : ENOMEM;
}
void* mmap(void* address, size_t bytes, int protection, int flags, int file, off_t offset) noexcept {
  brick::train::count(bytes, __builtin_return_address(0));
  return reinterpret_cast<void*>(::syscall(SYS_mmap, address, bytes, protection, flags, file, offset));
}
}

// The standard library's calls malloc, which then does not see who asked for the object.
void* operator new(size_t bytes) {
  brick::train::count(bytes, __builtin_return_address(0));
  if (void* memory = __libc_malloc(bytes)) return memory;
  throw std::bad_alloc();
}

namespace brick::train {
namespace {

constexpr int64_t kSmall = 256;  // bytes: a line of progress, a function object
constexpr int64_t kLength = 100;

// Of steps 3 and 4 of four in one epoch, each of 400 tokens: two parts, or one with --memory fast.
Allocations of_steps(const model::Model& model, const TuneConfig& config, Objective* objective = nullptr,
                     kernels::Compute compute = kernels::Compute::kF32) {
  std::vector<data::TokenSequence> sequences = random_sequences(16, model.config.vocab, 1, kLength);
  for (data::TokenSequence& sequence : sequences) {
    sequence.ids.resize(kLength);
    sequence.supervised.assign(kLength, 1);
    std::fill_n(sequence.supervised.begin(), kLength / 2, uint8_t{0});
  }
  Allocations seen;
  TuneOptions options;
  options.objective = objective;
  options.on_step = [&](const StepRecord& step) {
    if (step.step == 2) start();
    if (step.step == 4) seen = stop();
  };
  kernels::Context context(compute);
  tune(model, sequences, config, options, context, silent_sink());
  return seen;
}

TuneConfig four_steps() {
  TuneConfig config;
  config.rank = 3;
  config.batch_records = 4;
  config.steps = 4;
  return config;
}

// Teams of other sizes would come and go, and their threads' own memory with them.
struct TwoThreads {
  int before = threads();
  TwoThreads() { set_threads(2); }
  ~TwoThreads() { set_threads(before); }
};

TEST(Allocations, AStepTakesNoMemoryButForAFewWords) {
  struct Case {
    const char* memory = "auto";
    double sparsity = 0, dropout = 0;
    bool masked = false;
    kernels::Compute compute = kernels::Compute::kF32;
  };
  constexpr kernels::Compute kBf16 = kernels::Compute::kBf16;
  const TwoThreads two;
  for (const Case& c :
       {Case{}, Case{"low"}, Case{"fast"}, Case{"auto", 0, 0.1}, Case{"auto", 0.75}, Case{"auto", 0.5, 0, true},
        Case{"auto", 0.75, 0, true}, Case{"auto", 0.75, 0.1, true}, Case{"auto", 0, 0, false, kBf16},
        Case{"low", 0.75, 0, false, kBf16}, Case{"auto", 0.75, 0, true, kBf16}}) {
    if (c.compute == kBf16 && !has_bf16_arithmetic()) continue;
    TuneConfig config = four_steps();
    config.memory = c.memory;
    config.dropout = c.dropout;
    config.masked = c.masked;
    const auto with_layers = [&](int64_t layers) {
      const model::Model model = model::tiny_model({.layers = layers});
      return of_steps(c.sparsity > 0 ? model::tiny_block(model, c.sparsity) : model, config, nullptr, c.compute);
    };
    const Allocations few = with_layers(1), more = with_layers(2);
    const std::string what = std::string(c.memory) + ", sparsity " + std::to_string(c.sparsity) + ", dropout " +
                             std::to_string(c.dropout) + (c.masked ? ", masked, " : ", ") +
                             std::string(kernels::name(c.compute));
    EXPECT_LE(more.largest, kSmall) << what;
    EXPECT_EQ(few.count, more.count) << what;  // none is made for a layer
  }
}

// Cross-entropy that takes memory for each part.
struct Wasteful : Objective {
  std::unique_ptr<Objective> own = make_objective("cross-entropy");
  void backward(kernels::Context& context, const model::Model& model, const ForwardPart& part, float weight,
                std::span<float> losses, tensor::MatView d_hidden) override {
    const tensor::Tensor wasted = tensor::matrix(d_hidden.rows, d_hidden.cols);
    own->backward(context, model, part, weight, losses, d_hidden);
  }
  std::string identity() const override { return "wasteful"; }
};

TEST(Allocations, NegativeControlATensorInAStepIsSeen) {
  const TwoThreads two;
  Wasteful wasteful;
  const model::Model model = model::tiny_model();
  const Allocations usual = of_steps(model, four_steps()), more = of_steps(model, four_steps(), &wasteful);
  EXPECT_EQ(more.count - usual.count, 2 * 2 * 2);  // memory and shape of one in each of two parts, twice
  EXPECT_GE(more.largest, 2 * kLength * model.config.hidden * int64_t{sizeof(float)});
}

TEST(Allocations, NegativeControlEveryKindIsSeen) {
  constexpr size_t kBytes = 4096;
  const auto seen = [](auto&& allocate) {
    start();
    void* memory = allocate();
    const Allocations all = stop();
    EXPECT_NE(memory, nullptr);
    std::free(memory);
    return all.count == 1 && all.largest == kBytes;
  };
  EXPECT_TRUE(seen([] { return std::malloc(kBytes); }));
  EXPECT_TRUE(seen([] { return std::calloc(kBytes / 8, 8); }));
  EXPECT_TRUE(seen([] { return std::realloc(nullptr, kBytes); }));
  EXPECT_TRUE(seen([] { return std::aligned_alloc(64, kBytes); }));
  EXPECT_TRUE(seen([] {
    void* memory = nullptr;
    return posix_memalign(&memory, 64, kBytes) == 0 ? memory : nullptr;
  }));
  start();
  const std::vector<std::byte> vector(kBytes);
  EXPECT_EQ(stop().largest, kBytes);
  constexpr int64_t kRows = 1024;  // so many that they are mapped
  start();
  const tensor::Tensor large = tensor::matrix(kRows, kRows);
  EXPECT_EQ(stop().largest, kRows * kRows * int64_t{sizeof(float)});
}

}  // namespace
}  // namespace brick::train
#endif
