#include "brick/pipeline/federation_config.h"

#include <gtest/gtest.h>

#include "brick/base/error.h"
#include "brick/io/atomic_output.h"
#include "io/temp_files.h"

namespace brick::pipeline {
namespace {

const std::string kGood =
    "model = \"m.gguf\"\nrounds = 2\n[tune]\nrank = 4\nlr = 1e-3\n[aggregate]\nrule = \"hete-tau\"\ntau = "
    "0.3\n"
    "[[client]]\nname = \"a\"\ndata = \"a.jsonl\"\nsparsity = 0.5\nrank = 2\ndropout = 0.25\n";

class FederationFile : public testing::Test {
 protected:
  FederationConfig load(const std::string& text) {
    io::write_file_atomic(folder_.path() / "f.toml", text);
    return load_federation(folder_.path() / "f.toml");
  }
  std::string error_of(const std::string& text) {
    try {
      load(text);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  }
  brick::TempFolder folder_;
};

TEST_F(FederationFile, TakesEachPart) {
  const FederationConfig config = load(kGood);
  EXPECT_EQ(config.rounds, 2);
  EXPECT_EQ(config.model, folder_.path() / "m.gguf");
  EXPECT_EQ(config.tau, "0.3");
  ASSERT_EQ(config.clients.size(), 1u);
  EXPECT_EQ(config.clients[0].tune.rank, 2);
  EXPECT_EQ(config.clients[0].tune.lr, 1e-3);
  EXPECT_EQ(config.clients[0].dropout, 0.25);
  EXPECT_EQ(config.clients[0].tune.dropout, 0);  // a lost upload is not LoRA's dropout
}

TEST_F(FederationFile, AnotherSeedStandsInTheText) {
  load(kGood);
  EXPECT_EQ(load_federation(folder_.path() / "f.toml", 5).seed, 5u);
  EXPECT_EQ(load_federation(folder_.path() / "f.toml", 5).text, "seed = 5\n" + kGood);
  const std::string rest = kGood.substr(kGood.find('\n'));
  EXPECT_EQ(load("model = \"m.gguf\"\nseed = 3  # three" + rest).seed, 3u);
  const FederationConfig config = load_federation(folder_.path() / "f.toml", 5);
  EXPECT_EQ(config.seed, 5u);
  EXPECT_EQ(config.text, "model = \"m.gguf\"\nseed = 5" + rest);
  load("\xEF\xBB\xBF" + kGood);  // a byte order mark
  EXPECT_EQ(load_federation(folder_.path() / "f.toml", 5).text, "seed = 5\n" + kGood);
}

TEST_F(FederationFile, KeysMayBeSpeltAsFlags) {
  const auto tune = [](const std::string& keys) {
    return "model = \"m.gguf\"\n[tune]\n" + keys + "[[client]]\nname = \"a\"\ndata = \"a.jsonl\"\n";
  };
  const FederationConfig config = load(tune("batch-tokens = 64\nno-shuffle = true\n") + "weight-decay = 0.5\n");
  EXPECT_EQ(config.tune.batch_tokens, 64);
  EXPECT_FALSE(config.tune.shuffle);
  EXPECT_EQ(config.clients[0].tune.weight_decay, 0.5);
  EXPECT_TRUE(load(tune("no_shuffle = true\n") + "shuffle = true\n").clients[0].tune.shuffle);
  EXPECT_NE(error_of(tune("batch_tokens = 64\nbatch-tokens = 32\n")).find("'batch-tokens'"), std::string::npos);
}

TEST_F(FederationFile, AClientsBlockIsAFolderOrCutForIt) {
  const std::string head = "model = \"m.gguf\"\n[[client]]\nname = \"a\"\ndata = \"a.jsonl\"\n";
  EXPECT_EQ(load(head + "sparsity = 0.5\nmethod = \"wanda\"\n").clients[0].method, "wanda");
  EXPECT_EQ(load(head + "block = \"b\"\n").clients[0].block, folder_.path() / "b");
  EXPECT_NE(error_of(head + "method = \"wanda\"\n").find("without a sparsity"), std::string::npos);
  EXPECT_NE(error_of(head + "sparsity = 0.5\nmethod = \"nosuch\"\n").find("nosuch"), std::string::npos);
  for (const char* other : {"sparsity = 0.5\n", "method = \"wanda\"\n"})
    EXPECT_NE(error_of(head + "block = \"b\"\n" + other).find("not both"), std::string::npos);
}

TEST_F(FederationFile, BlocksTakeWhatSteersTheirMethod) {
  const auto with = [](const std::string& keys) {
    return "model = \"m.gguf\"\n[blocks]\n" + keys + "[[client]]\nname = \"a\"\ndata = \"a.jsonl\"\nsparsity = 0.5\n";
  };
  const prune::PruneConfig defaults = load(with("")).blocks.prune;
  EXPECT_EQ(defaults.method, "sparsegpt");
  EXPECT_EQ(defaults.damping, prune::PruneConfig().damping);
  const prune::PruneConfig given =
      load(with("method = \"owl+sparsegpt+reconstruct\"\nvalues = \"q4\"\ndamping = 0.1\nowl_outlier = 7\n"
                "refit_steps = 3\ndescent_rate = 1e-4\nregional_rounds = 2\nglobal_ranking = true\n"))
          .blocks.prune;
  EXPECT_EQ(given.method, "owl+sparsegpt+reconstruct");
  EXPECT_EQ(given.values, "q4");
  EXPECT_EQ(given.damping, 0.1);
  EXPECT_EQ(given.owl_outlier, 7);
  EXPECT_EQ(given.refit_steps, 3);
  EXPECT_EQ(given.descent_rate, 1e-4);
  EXPECT_EQ(given.regional_rounds, 2);
  EXPECT_TRUE(given.global_ranking);
  for (const char* foreign : {"sparsity", "seed", "owl_outliers"})  // clients give the first, the file the second
    EXPECT_NE(error_of(with(std::string(foreign) + " = 1\n")).find(foreign), std::string::npos);
}

TEST_F(FederationFile, BlocksMustBeSuchAsPruneMakes) {
  const auto with = [&](const std::string& keys, const std::string& client = "sparsity = 0.5\n") {
    return error_of("model = \"m.gguf\"\n[blocks]\n" + keys + "[[client]]\nname = \"a\"\ndata = \"a.jsonl\"\n" +
                    client);
  };
  const std::string flap = "method = \"flap\"\n", groups = "pattern = \"2:4\"\n";
  for (const auto& [keys, said] : {std::pair<std::string, const char*>{"damping = -1\n", "[blocks]: damping -1"},
                                   {"block_columns = 0\n", "block_columns 0"},
                                   {"owl_spread = 1.5\n", "owl_spread 1.5"},
                                   {"descent_batch = 0\n", "descent_batch 0"},
                                   {"regional_rate = nan\n", "regional_rate nan"},
                                   {"pattern = \"4:2\"\n", "pattern '4:2'"},
                                   {"method = \"llm-pruner\"\nimportance = \"taylor\"\n", "importance 'taylor'"},
                                   {flap + groups, "no choice of structures"},
                                   {"method = \"owl+wanda\"\n" + groups, "the layers' sparsities"}})
    EXPECT_NE(with(keys).find(said), std::string::npos) << keys << with(keys);
  EXPECT_EQ(with(groups), "");
  EXPECT_NE(with(groups, "sparsity = 0.6\n").find("[[client]] 1: sparsity 0.6: pattern 2:4 removes 0.5"),
            std::string::npos);
  EXPECT_NE(with(groups, "sparsity = 0.5\n" + flap).find("[[client]] 1: flap: pattern 2:4"), std::string::npos);
}

TEST_F(FederationFile, AveragedFactorsAreOfOneRank) {
  const std::string file =
      "model = \"m.gguf\"\n[aggregate]\nrule = \"fedit\"\n[[client]]\nname = \"a\"\ndata = "
      "\"a.jsonl\"\n[[client]]\nname = "
      "\"b\"\ndata = \"b.jsonl\"\n";
  EXPECT_EQ(error_of(file), "");
  EXPECT_NE(error_of(file + "rank = 4\n").find("client a: rank 8, client b: rank 4, and fedit"), std::string::npos);
}

TEST_F(FederationFile, StructuredBlocksNeedARuleThatTakesThem) {
  const auto with = [&](const std::string& rule, const std::string& blocks, const std::string& client) {
    return error_of("model = \"m.gguf\"\n" + blocks + "[aggregate]\nrule = \"" + rule +
                    "\"\n[[client]]\nname = \"a\"\ndata = \"a.jsonl\"\n" + client);
  };
  const std::string flap = "[blocks]\nmethod = \"flap\"\n", half = "sparsity = 0.5\n";
  for (const char* rule : {"fedit", "zero-pad"}) {
    EXPECT_NE(with(rule, flap, half).find("client a: what flap makes is structured, and "), std::string::npos);
    EXPECT_NE(with(rule, "", half + "method = \"shortgpt\"\n").find("shortgpt"), std::string::npos);
    EXPECT_EQ(with(rule, flap, half + "method = \"wanda\"\n"), "");
    EXPECT_EQ(with(rule, flap, ""), "");
    EXPECT_EQ(with(rule, flap, "block = \"b\"\n"), "");
  }
  EXPECT_EQ(with("flexlora", flap, half), "");
}

TEST_F(FederationFile, RotatedBlocksHaveNoPlace) {
  const auto with = [&](const std::string& blocks, const std::string& client) {
    return error_of("model = \"m.gguf\"\n[blocks]\n" + blocks +
                    "[[client]]\nname = \"a\"\ndata = \"a.jsonl\"\nsparsity = 0.5\n" + client);
  };
  const std::string channels = "mode = \"channel\"\n", llm_pruner = "method = \"llm-pruner\"\n";
  for (const std::string& error : {with("method = \"slicegpt\"\n", ""), with("", "method = \"slicegpt\"\n")})
    EXPECT_NE(error.find("rotated"), std::string::npos) << error;
  const std::string flexlora = "[aggregate]\nrule = \"flexlora\"\n";
  EXPECT_EQ(with(llm_pruner + flexlora, ""), "");
  EXPECT_EQ(with(llm_pruner + channels + flexlora, ""), "");
}

TEST_F(FederationFile, BlocksThatAreCutAndMaskedNeedBothShares) {
  const auto with = [&](const std::string& blocks, const std::string& client) {
    return error_of("model = \"m.gguf\"\n" + blocks + "[[client]]\nname = \"a\"\ndata = \"a.jsonl\"\nsparsity = 0.5\n" +
                    client);
  };
  const std::string share = "[blocks]\nstructured_sparsity = 0.2\n", mixed = "method = \"flap+wanda\"\n";
  EXPECT_EQ(with(share + mixed, ""), "");
  EXPECT_EQ(with(share, mixed), "");
  EXPECT_EQ(with(share, ""), "");  // of clients that say so
  EXPECT_NE(with("", mixed).find("structured_sparsity 0"), std::string::npos);
  EXPECT_NE(with("[blocks]\n" + mixed, "").find("structured_sparsity 0"), std::string::npos);
  EXPECT_NE(with(share + mixed + "[aggregate]\nrule = \"fedit\"\n", "").find("is structured"), std::string::npos);
}

TEST_F(FederationFile, NamesWhatIsWrong) {
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = kGood;
    text.replace(text.find(from), from.size(), to);
    return error_of(text);
  };
  EXPECT_EQ(error_of(kGood), "");
  EXPECT_NE(with("rounds = 2", "roundz = 2").find("line 2: unknown key 'roundz'"), std::string::npos);
  EXPECT_NE(with("rank = 4", "rank = \"x\"").find("rank"), std::string::npos);
  EXPECT_NE(with("rounds = 2", "rounds = 0").find("rounds"), std::string::npos);
  EXPECT_NE(with("rounds = 2", "rounds = -1").find("line 2: rounds"), std::string::npos);
  EXPECT_NE(with("hete-tau", "nosuch").find("nosuch"), std::string::npos);
  EXPECT_NE(with("sparsity = 0.5", "sparsity = 1.0").find("sparsity"), std::string::npos);
  EXPECT_NE(with("tau = 0.3", "tau = \"auto\"").find("validation"), std::string::npos);
  EXPECT_NE(with("tau = 0.3", "tau = 1.5").find("tau"), std::string::npos);
  EXPECT_NE(with("tau = 0.3", "anchor = -1.0").find("[aggregate]: aggregate: anchor is -1"), std::string::npos);
  EXPECT_NE(with("tau = 0.3", "rank = 5000").find("rank is 5000"), std::string::npos);
  EXPECT_NE(with("rank = 4", "rank = 0").find("[tune]: rank = 0"), std::string::npos);
  EXPECT_NE(with("rank = 2", "lr = -1.0").find("[[client]] 1: lr = -1"), std::string::npos);
  EXPECT_NE(with("name = \"a\"", "name = \"../a\"").find("folder"), std::string::npos);
  EXPECT_NE(with("name = \"a\"", "name = \"a\\u0000b\"").find("cannot name a folder"), std::string::npos);
  EXPECT_NE(with("[[client]]", "[client]").find("client"), std::string::npos);
  EXPECT_NE(error_of("model = ").find("line 1"), std::string::npos);
  EXPECT_NE(with("rank = 4", "targets = \"nothing\"").find("'nothing'"), std::string::npos);
  EXPECT_NE(with("rank = 2", "targets = \"nothing\"").find("'nothing'"), std::string::npos);
  std::string deep = kGood + "[a";
  for (int i = 0; i < 100000; ++i) deep += ".a";
  EXPECT_NE(error_of(deep + "]\n").find("line 15: more than 1000 dots"), std::string::npos);
  EXPECT_NE(error_of(kGood + "[[client]]\nname = \"a\"\ndata = \"b.jsonl\"\n").find("two clients"), std::string::npos);
}

}  // namespace
}  // namespace brick::pipeline
