"""The command as scripts see it: keys, exit codes, whole runs on a small random model."""
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from tiny_model import read_npy, write_model, write_records, write_text  # noqa: E402

BRICK = os.environ["BRICK"]


def brick(*arguments, check=True, **options):
    result = subprocess.run([BRICK, *map(str, arguments)], capture_output=True, text=True, errors="replace", timeout=600, **options)
    if check and result.returncode != 0:
        raise AssertionError(f"brick {' '.join(map(str, arguments))}: exit {result.returncode}\n{result.stderr}")
    return result


def brick_json(*arguments):
    result = brick(*arguments, "--json")
    return json.loads(result.stdout)


def run_until(reached, *arguments):
    """Kills the command as soon as `reached()` holds, if it has not ended by then."""
    process = subprocess.Popen([BRICK, *map(str, arguments)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None and not reached():
        time.sleep(0.002)
    process.kill()
    process.wait()


def simulate_killed(config, out, seconds, times, seed):
    """Runs to its end what takes so many seconds, killed now and then at random before."""
    command = ("simulate", config, "--out", out, "--resume")
    rng = random.Random(seed)
    for _ in range(times):
        end = time.time() + rng.uniform(0.05, 0.5) * seconds
        run_until(lambda: time.time() > end, *command)
    brick(*command)


def tree_bytes(folder, leave_out=()):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(Path(folder).rglob("*"))
            if p.is_file() and p.name not in leave_out}


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.temporary = tempfile.TemporaryDirectory()
        cls.folder = Path(cls.temporary.name)
        cls.model = write_model(cls.folder / "model")
        cls.text = write_text(cls.folder / "text.txt")
        cls.data = write_records(cls.folder / "data.jsonl", 24)
        cls.test = write_records(cls.folder / "test.jsonl", 6, seed=9)

    @classmethod
    def tearDownClass(cls):
        cls.temporary.cleanup()

    def path(self, name):
        return self.folder / f"{self.id().split('.')[-1]}-{name}"

    def logits(self, model, ids="5,6,7,40,41,42,43,9", adapter=None):
        out = self.path(f"logits-{random.random()}.npy")
        extra = ["--adapter", adapter] if adapter else []
        brick("logits", model, "--ids", ids, "--out", out, "--compute", "f32", *extra)
        return read_npy(out)[1]

    def assert_close(self, a, b, tolerance):
        self.assertEqual(len(a), len(b))
        self.assertLess(max(abs(x - y) for x, y in zip(a, b)), tolerance)


class Basics(Case):
    def test_info_has_its_keys(self):
        info = brick_json("info", self.model)
        for key in "architecture parameters nonzeros bytes layers hidden heads kv_heads ffn vocab dtype".split():
            self.assertIn(key, info)
        self.assertEqual((info["layers"], info["hidden"], info["kv_heads"]), (2, 64, 2))
        self.assertEqual(info["nonzeros"], info["parameters"])

    def test_results_are_read_by_people_too(self):
        family = brick("blocks", self.model, "--method", "magnitude", "--sparsities", ".25,.5", "--out", self.path("family")).stdout
        self.assertRegex(family, r"(?m)^method +magnitude$")
        self.assertRegex(family, r"(?m)\nblocks\n +bytes  .*  path .*\n-.*\n.*/25 .*\n.*/50 .*\n\Z")
        info = brick("info", self.path("family") / "50").stdout
        self.assertRegex(info, r"(?m)^block\.sparsity +0\.5$")
        self.assertNotIn("{", family + info)

    def test_tokenize_there_and_back(self):
        text = "Grüße, 42 forms\n"
        ids = brick_json("tokenize", self.model, "--text", text)["ids"]
        self.assertEqual(brick_json("tokenize", self.model, "--decode", ",".join(map(str, ids)))["text"], text)

    def test_user_text_cannot_forge_a_marker(self):
        forged = "<|im_end|>"
        self.assertNotIn(2, brick_json("tokenize", self.model, "--text", forged)["ids"])
        self.assertEqual(brick_json("tokenize", self.model, "--text", forged, "--special")["ids"], [2])

    def test_eval_of_text_and_records(self):
        score = brick_json("eval", self.model, "--text", self.text, "--length", 64, "--samples", 4, "--compute", "f32")
        self.assertEqual(score["tokens"], 4 * 63)
        self.assertGreater(score["perplexity"], 1)
        records = brick_json("eval", self.model, "--data", self.test, "--compute", "f32")
        self.assertEqual(records["records"], 6)
        self.assertGreater(records["nll"], 0)

    def test_generate_is_greedy_and_leaves_out_the_prompt(self):
        a = brick_json("generate", self.model, "--prompt", "The river", "--max-tokens", 8)
        b = brick_json("generate", self.model, "--prompt", "The river", "--max-tokens", 8)
        self.assertEqual(a["text"], b["text"])
        self.assertLessEqual(a["tokens"], 8)
        self.assertNotIn("The river", a["text"])
        c = brick_json("generate", self.model, "--prompt", "The river", "--max-tokens", 8, "--temperature", 1.5, "--seed", 1)
        d = brick_json("generate", self.model, "--prompt", "The river", "--max-tokens", 8, "--temperature", 1.5, "--seed", 2)
        self.assertNotEqual(c["text"], d["text"])

    def test_a_prompt_cache_changes_nothing_but_time(self):
        cache = os.path.join(self.folder, "prompt.cache")
        run = lambda prompt, *more: brick_json("generate", self.model, "--prompt", prompt, "--max-tokens", 8, *more)["text"]
        plain = run("The river is long")
        for _ in range(2):
            self.assertEqual(run("The river is long", "--prompt-cache", cache), plain)
        self.assertEqual(run("The river ends", "--prompt-cache", cache), run("The river ends"))
        before = open(cache, "rb").read()
        refused = brick("generate", self.model, "--prompt", "x", "--prompt-cache", cache, "--compute", "f32", check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("another model, adapter or arithmetic", refused.stderr)
        self.assertEqual(refused.stderr.count("\n"), 1)
        self.assertEqual(open(cache, "rb").read(), before)

    def test_chat_reads_standard_input(self):
        result = brick("chat", self.model, "--max-tokens", 4, input="hello\n/new\nagain\n")
        self.assertEqual(result.stdout.count("\n") >= 2, True)

    def test_cpu_lists_what_is_there(self):
        cpu = brick_json("cpu")
        self.assertIn(cpu["isa"], cpu["available"])
        lowest = brick("cpu", "--json", env={**os.environ, "BRICK_ISA": cpu["available"][0]})
        self.assertEqual(json.loads(lowest.stdout)["isa"], cpu["available"][0])

    def test_every_command_has_help_with_an_example(self):
        verbs = ("info tokenize logits prune blocks tune recover shrink aggregate merge eval generate chat simulate compare export bench cpu "
                 "completion help").split()
        for verb in verbs:
            help = brick(verb, "--help").stdout
            self.assertIn(f"brick {verb}", help.split("Example:")[1])
            self.assertEqual(brick("help", verb).stdout, help)
        self.assertEqual(brick("help").stdout, brick("--help").stdout)

    def test_completion_scripts_parse(self):
        for shell in ("bash", "zsh", "fish"):
            self.assertIn("simulate", brick("completion", shell).stdout)
        subprocess.run(["bash", "-n"], input=brick("completion", "bash").stdout, text=True, check=True)
        for line in brick("completion", "fish").stdout.splitlines():
            self.assertEqual(line.replace("\\'", "").count("'") % 2, 0, line)


class Failures(Case):
    def one_line(self, *arguments, status=1, mention=""):
        result = brick(*arguments, check=False)
        self.assertEqual(result.returncode, status, result.stderr)
        if status == 1:
            self.assertEqual(result.stderr.strip().count("\n"), 0, result.stderr)
            self.assertTrue(result.stderr.startswith("brick: "))
            self.assertNotIn("Traceback", result.stderr)
        self.assertIn(mention, result.stderr)
        self.assertEqual(result.stdout, "")
        return result

    def test_wrong_usage_is_two(self):
        self.one_line("frobnicate", status=2, mention="frobnicate")
        self.one_line("prun", self.model, "--sparsity", .5, status=2, mention="expected: prun\n")
        self.one_line("--frobnicate", "cpu", status=2, mention="--frobnicate")
        self.one_line(status=2, mention="subcommand")
        self.one_line("help", "frobnicate", mention="frobnicate")
        self.one_line("eval", status=2)
        self.one_line("eval", self.model, "--lenght", 3, status=2)
        self.one_line("tokenize", self.model, status=2)
        self.one_line("generate", self.model, "--prompt", "a", "--context", -1, status=2)
        self.one_line("generate", self.model, "--prompt", "a", "--max-tokens", -1, status=2)
        self.one_line("eval", self.model, "--text", self.text, "--seed", -1, status=2)
        self.one_line("tune", self.model, "--data", self.data, "--save-every", -1, "--out", self.path("a"), status=2)

    def test_missing_and_broken_files(self):
        self.one_line("info", self.folder / "absent.gguf", mention="absent.gguf")
        cut = self.path("cut")
        cut.mkdir()
        for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
            (cut / name).write_bytes((self.model / name).read_bytes())
        (cut / "model.safetensors").write_bytes((self.model / "model.safetensors").read_bytes()[:5000])
        self.one_line("eval", cut, "--text", self.text, mention="model.safetensors")

    def test_a_weight_that_is_no_number_gives_no_figures(self):
        broken = write_model(self.path("broken"))
        weights = broken / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-4] + b"\xff" * 4)
        self.one_line("eval", broken, "--text", self.text, "--length", 64, mention="loss is not finite")
        self.one_line("eval", broken, "--data", self.data, mention="loss is not finite")
        self.one_line("generate", broken, "--prompt", "a", mention="logits are not finite")

    def test_other_architectures_are_refused_by_name(self):
        other = write_model(self.path("other"))
        config = json.loads((other / "config.json").read_text())
        config.update(architectures=["Qwen2ForCausalLM"], model_type="qwen2")
        (other / "config.json").write_text(json.dumps(config))
        self.assertIn("wen2", self.one_line("info", other).stderr)

    def test_bad_ids_data_and_settings(self):
        self.one_line("logits", self.model, "--ids", "1,99999", "--out", self.path("x.npy"), mention="99999")
        self.assertFalse(self.path("x.npy").exists())
        bad = self.path("bad.jsonl")
        bad.write_text('{"instruction": "a", "response": "b"}\n{"instruction": 3}\n')
        self.one_line("tune", self.model, "--data", bad, "--out", self.path("a"), mention="line 2")
        self.one_line("tune", self.model, "--data", self.data, "--out", self.path("a"), "--rank", 0, mention="rank")
        self.one_line("tune", self.model, "--data", self.data, "--out", self.path("a"), "--targets", "nothing", mention="nothing")
        self.assertFalse(self.path("a").exists())
        self.one_line("prune", self.model, "--method", "sparsegpt", "--sparsity", 0.5, "--out", self.path("b"), mention="calibration")
        self.one_line("prune", self.model, "--method", "nosuch", "--sparsity", 0.5, "--out", self.path("b"), mention="nosuch")
        self.one_line("prune", self.model, "--method", "llm-pruner", "--importance", "l1", "--sparsity", 0.5, "--out", self.path("b"),
                      mention="--protect-first")
        self.one_line("prune", self.model, "--method", "magnitude", "--sparsity", 1.5, "--out", self.path("b"), mention="1.5")
        for flag, value, mention in (("--damping", -1, "damping -1"), ("--block-columns", 0, "block_columns 0"),
                                     ("--owl-outlier", 0, "owl_outlier 0")):
            self.one_line("prune", self.model, "--method", "magnitude", "--sparsity", 0.5, flag, value, "--out", self.path("b"),
                          mention=mention)

    def test_existing_output_is_kept_without_force(self):
        out = self.path("out")
        out.mkdir()
        (out / "precious").write_text("x")
        self.one_line("prune", self.model, "--method", "magnitude", "--sparsity", 0.5, "--out", out, mention="--force")
        self.assertTrue((out / "precious").exists())

    def test_targets_that_make_no_sense_or_are_out_of_reach(self):
        prune = ("prune", self.model, "--method", "magnitude", "--out", self.path("b"))
        self.one_line(*prune, status=2)
        self.one_line(*prune, "--sparsity", 0.5, "--target", "40 MB", status=2)
        self.one_line(*prune, "--sparsity", 0.5, "--profile", "p.json", status=2)
        self.one_line(*prune, "--target", "40 elephants", mention="40 MB")
        self.one_line(*prune, "--target", "1 kB", mention="the nearest is")
        self.one_line(*prune, "--target", "2x decode", "--profile", self.path("p.json"), mention="p.json")
        self.one_line(*prune, "--sparsity", 0.5, "--pattern", "auto", mention="--target")
        self.one_line(*prune, "--sparsity", 0.5, "--structured-sparsity", 0.2, mention="magnitude has one sparsity")
        self.one_line("blocks", *prune[1:], "--sparsities", 0.5, "--pattern", "auto", mention="--target")
        self.assertFalse(self.path("b").exists())

    def test_comparisons_of_what_is_not_there(self):
        self.one_line("compare", status=2)
        self.one_line("compare", self.model, self.folder / "absent", mention="absent")
        self.one_line("compare", self.model, self.model, mention="twice")
        run = self.path("run")
        run.mkdir()
        (run / "metrics.jsonl").write_text("")
        self.one_line("compare", run, mention="--resume")
        (run / "page.html").write_text("x")
        self.one_line("compare", self.model, "--out", run / "page.html", mention="--force")
        self.one_line("compare", self.model, "--cache", run, mention="not begun by brick compare")

    def test_unknown_keys_in_a_federation(self):
        config = self.path("f.toml")
        config.write_text(f'model = "{self.model}"\nroundz = 2\n[[client]]\nname = "a"\ndata = "{self.data}"\n')
        self.one_line("simulate", config, "--out", self.path("run"), mention="roundz")

    def test_full_disk_is_one_line(self):
        if not Path("/dev/full").exists():
            self.skipTest("no /dev/full")
        with open("/dev/full", "w") as full:
            result = subprocess.run([BRICK, "cpu", "--json"], stdout=full, stderr=subprocess.PIPE, text=True)
        self.assertEqual(result.returncode, 1)
        self.assertIn("standard output", result.stderr)


class Blocks(Case):
    def test_family_sizes_and_reload(self):
        family = brick_json("blocks", self.model, "--method", "sparsegpt", "--sparsities", "0,.25,.5,.75", "--calibration",
                            self.text, "--samples", 4, "--length", 64, "--values", "f32", "--out", self.path("family"))
        self.assertEqual([round(b["linear_sparsity"], 2) for b in family["blocks"]], [0, .25, .5, .75])
        for block in family["blocks"]:
            self.assertEqual(brick_json("info", block["path"], "--scan")["nonzeros"], block["nonzeros"])
            brick_json("eval", block["path"], "--text", self.text, "--length", 64, "--samples", 2)
        single = brick_json("prune", self.model, "--method", "sparsegpt", "--sparsity", .5, "--calibration", self.text,
                            "--samples", 4, "--length", 64, "--values", "f32", "--out", self.path("single"))
        self.assertEqual(single["nonzeros"], family["blocks"][2]["nonzeros"])
        self.assertEqual(self.logits(self.path("single")), self.logits(family["blocks"][2]["path"]))

    def test_masked_tune_merge_and_refusal(self):
        for name, sparsity in (("half", .5), ("quarter", .75)):
            brick("prune", self.model, "--method", "wanda", "--sparsity", sparsity, "--calibration", self.text, "--samples", 4,
                  "--length", 64, "--values", "f32", "--out", self.path(name))
        tuned = brick_json("tune", self.path("half"), "--data", self.data, "--masked", "--steps", 4, "--lr", 1e-2, "--compute",
                           "f32", "--out", self.path("adapter"))
        self.assertLess(tuned["loss_last"], tuned["loss_first"])
        merged = brick_json("merge", self.path("half"), self.path("adapter"), "--values", "f32", "--out", self.path("merged"))
        self.assertEqual(merged["nonzeros"], brick_json("info", self.path("half"))["nonzeros"])
        on_block = self.logits(self.path("half"), adapter=self.path("adapter"))
        self.assert_close(self.logits(self.path("merged")), on_block, 1e-4)
        with self.assertRaises(AssertionError):  # negative control: the adapter did change the block
            self.assert_close(self.logits(self.path("half")), on_block, 1e-4)
        refused = brick("eval", self.path("quarter"), "--adapter", self.path("adapter"), "--text", self.text, check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("mask", refused.stderr)

    def test_targets_are_met(self):
        common = ("--method", "wanda", "--calibration", self.text, "--samples", 4, "--length", 64)
        whole = brick_json("prune", self.model, "--method", "magnitude", "--sparsity", 0, "--out", self.path("whole"))["bytes"]
        share = brick_json("prune", self.model, *common, "--target", "80% parameters", "--out", self.path("share"))
        self.assertLessEqual(share["nonzeros"] / share["parameters"], .8)
        self.assertGreater(share["nonzeros"] / share["parameters"], .77)
        asked = f"{round(whole / 2000)} kB"
        small = brick("prune", self.model, *common, "--target", asked, "--out", self.path("small"))
        self.assertIn(f"target {asked}: sparsity 0.", small.stderr)
        target = brick_json("prune", self.model, *common, "--target", asked, "--out", self.path("again"))["target"]
        size = sum(f.stat().st_size for f in self.path("small").iterdir())
        self.assertLessEqual(size, 1.01 * whole / 2)
        self.assertLess(abs(target["predicted_bytes"] - size), .01 * size)
        self.assertTrue(target["reached"])
        self.assertEqual(tree_bytes(self.path("small")), tree_bytes(self.path("again")))

    def test_a_speed_is_looked_up_in_the_profile(self):
        brick("prune", self.model, "--method", "magnitude", "--sparsity", 0, "--out", self.path("whole"))
        cpu = brick_json("cpu")
        profile = self.path("profile.json")
        profile.write_text(json.dumps({"decode": {
            "model": brick_json("info", self.path("whole"))["block"]["parent"],
            "isa": cpu["isa"], "compute": "auto", "threads": 1, "dense_tokens_per_second": 100.0,
            "points": [{"values": "bf16", "sparsity": s, "tokens_per_second": v, "pattern": p}
                       for s, v, p in ((.25, 80.0, "unstructured"), (.75, 240.0, "unstructured"), (.5, 260.0, "2:4"))]}}))
        prune = ("prune", self.model, "--method", "magnitude", "--threads", 1, "--profile", profile)
        fast = brick_json(*prune, "--target", "2x decode", "--out", self.path("fast"))
        self.assertLess(abs(fast["target"]["predicted_speedup"] - 2), .02)
        self.assertTrue(.25 < fast["sparsity"] < .75)
        groups = brick_json(*prune, "--pattern", "auto", "--target", "2x decode", "--out", self.path("groups"))
        self.assertEqual((groups["pattern"], groups["target"]["pattern"], groups["sparsity"]), ("2:4", "2:4", .5))
        refused = brick(*prune, "--target", "3x decode", "--out", self.path("x"), check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("the nearest is 2.40 times", refused.stderr)

    def test_blocks_carry_a_model_card(self):
        brick("prune", self.model, "--method", "magnitude", "--sparsity", .5, "--out", self.path("block"))
        brick("tune", self.path("block"), "--data", self.data, "--masked", "--steps", 1, "--out", self.path("adapter"))
        brick("merge", self.path("block"), self.path("adapter"), "--out", self.path("merged"))
        brick("export", self.path("merged"), "--format", "hf", "--dtype", "f32", "--out", self.path("hf"))
        brick("export", self.path("hf"), "--format", "block", "--dtype", "f32", "--out", self.path("found"))
        cards = {name: (self.path(name) / "README.md").read_text() for name in ("block", "merged", "hf", "found")}
        for card in cards.values():
            self.assertTrue(card.startswith("---\nlibrary_name: "), card)
            self.assertNotIn(str(self.folder), card)
        self.assertIn("`model` with 50 % of its layers' linear weights removed by `magnitude`", cards["block"])
        self.assertIn("adapter merged into it", cards["merged"])
        self.assertIn("adapter merged into it", cards["hf"])
        self.assertIn("from_pretrained", cards["hf"])
        self.assertNotIn("adapter merged into it", cards["block"])

    def test_structured_blocks_are_masked_further_and_exported(self):
        options = ("--samples", 4, "--length", 64, "--values", "f32", "--calibration", self.text, "--width-multiple", 16)
        cut = brick_json("prune", self.model, "--method", "flap", "--sparsity", .3, *options, "--out", self.path("cut"))
        self.assertAlmostEqual(cut["linear_sparsity"], .3, delta=.06)
        again = brick_json("prune", self.path("cut"), "--method", "wanda", "--sparsity", .5, *options, "--out", self.path("both"))
        self.assertAlmostEqual(again["linear_sparsity"], .5)
        info = brick_json("info", self.path("both"))
        self.assertEqual((info["block"]["method"], info["block"]["parent_layers"]), ("flap+wanda", 2))
        self.assertEqual(info["layer_widths"], brick_json("info", self.path("cut"))["layer_widths"])
        once = brick_json("prune", self.model, "--method", "flap+wanda", "--structured-sparsity", .3, "--sparsity", .5, *options,
                          "--out", self.path("once"))
        self.assertAlmostEqual(once["linear_sparsity"], 1 - .5 * (1 - cut["linear_sparsity"]))
        weights = [(self.path(name) / "model.safetensors").read_bytes() for name in ("both", "once")]
        self.assertEqual(*weights)
        self.assertIn("what a cut left of its layers' linear weights removed by `flap+wanda`", (self.path("once") / "README.md").read_text())
        brick("export", self.path("both"), "--format", "gguf", "--dtype", "f32", "--out", self.path("both.gguf"))
        self.assert_close(self.logits(self.path("both.gguf")), self.logits(self.path("both")), 1e-5)
        brick("export", self.path("both"), "--format", "hf", "--dtype", "f32", "--out", self.path("hf"))
        self.assertTrue(json.loads((self.path("hf") / "config.json").read_text())["mlp_bias"])
        self.assert_close(self.logits(self.path("hf")), self.logits(self.path("both")), 1e-5)
        family = brick_json("blocks", self.model, "--method", "llm-pruner", "--sparsities", "0,.25,.5", *options, "--protect-first",
                            0, "--protect-last", 0, "--out", self.path("family"))
        for block, share in zip(family["blocks"], (0, .25, .5)):
            self.assertAlmostEqual(block["linear_sparsity"], share, delta=.06)
            brick_json("eval", block["path"], "--text", self.text, "--length", 64, "--samples", 2)

    def test_layers_of_unequal_width_go_to_transformers_if_padded(self):
        brick("prune", self.model, "--method", "llm-pruner", "--importance", "l1", "--sparsity", .25, "--protect-first", 1,
              "--protect-last", 0, "--width-multiple", 16, "--values", "f32", "--out", self.path("block"))
        whole, cut = brick_json("info", self.path("block"))["layer_widths"]
        folder = ("export", self.path("block"), "--dtype", "f32", "--out", self.path("hf"))
        refused = brick(*folder, "--format", "hf", check=False)
        self.assertEqual((refused.returncode, "--pad" in refused.stderr, self.path("hf").exists()), (1, True, False))
        self.assertEqual(brick(*folder, "--format", "gguf", "--pad", check=False).returncode, 1)
        made = brick_json(*folder, "--format", "hf", "--pad")
        added = {key: whole[key] - cut[key] for key in ("heads", "kv_heads", "ffn")}
        self.assertEqual(made["padded_bytes"], 4 * 64 * (2 * 16 * (added["heads"] + added["kv_heads"]) + 3 * added["ffn"]))
        self.assert_close(self.logits(self.path("hf")), self.logits(self.path("block")), 1e-5)

    def test_rotated_blocks_go_through_every_command(self):
        self.check_a_narrower_stream("slicegpt", mode="block", tied=False)

    def test_blocks_of_some_channels_go_through_every_command(self):
        self.check_a_narrower_stream("llm-pruner", mode="channel", tied=True)
        refused = brick("prune", self.model, "--method", "llm-pruner", "--mode", "channel", "--importance", "l1", "--target",
                        "60% parameters", "--out", self.path("none"), check=False)
        self.assertEqual((refused.returncode, "give --sparsity" in refused.stderr), (1, True))

    def check_a_narrower_stream(self, method, mode, tied):
        calibration = ("--samples", 4, "--length", 64, "--values", "f32", "--calibration", self.text)
        narrow = ("--method", method, "--mode", mode)
        sliced = self.path("sliced")
        made = brick_json("prune", self.model, *narrow, "--sparsity", .2, *calibration, "--width-multiple", 2, "--out", sliced)
        info = brick_json("info", sliced)
        self.assertEqual((info["hidden"], info["heads"], info["ffn"]), (52, 4, 96))
        self.assertAlmostEqual(made["linear_sparsity"], 1 - 52 / 64)
        self.assertIn("\n- pruned\n---", (sliced / "README.md").read_text())
        want = self.logits(sliced)
        for form in ("hf", "gguf"):
            brick("export", sliced, "--format", form, "--dtype", "f32", "--out", self.path(form))
            self.assert_close(self.logits(self.path(form)), want, 1e-5)
        config = json.loads((self.path("hf") / "config.json").read_text())
        self.assertEqual((config["model_type"], config["tie_word_embeddings"]), ("llama", tied))
        self.assertGreater(brick_json("eval", sliced, "--text", self.text, "--length", 64, "--samples", 2)["perplexity"], 1)
        self.assertTrue(brick_json("generate", sliced, "--prompt", "the", "--max-tokens", 4)["tokens"])
        adapter = self.path("adapter")
        brick("tune", sliced, "--data", self.data, "--steps", 2, "--out", adapter)
        brick("merge", sliced, adapter, "--values", "f32", "--out", self.path("merged"))
        self.assert_close(self.logits(self.path("merged")), self.logits(sliced, adapter=adapter), 1e-4)
        recover = ("recover", sliced, "--teacher", self.model, "--text", self.text, "--length", 64, "--steps", 2)
        brick(*recover, "--out", self.path("recovered"))
        refused = brick(*recover, "--hidden-weight", 1, "--out", self.path("never"), check=False)
        self.assertEqual((refused.returncode, "64 wide" in refused.stderr), (1, True))
        masked = self.path("masked")
        both = brick_json("prune", sliced, "--method", "wanda", "--sparsity", .5, *calibration, "--out", masked)
        self.assertEqual((both["method"], both["sparsity"]), (method + "+wanda", .5))
        family = brick_json("blocks", self.model, *narrow, "--sparsities", "0,.25,.5", *calibration, "--width-multiple", 16,
                            "--out", self.path("family"))
        self.assertEqual([brick_json("info", block["path"])["hidden"] for block in family["blocks"]], [64, 48, 32])
        # Channels have a place in a federation of the parent, rotated directions none; both in one of their own.
        placed = brick("aggregate", "--base", self.model, "--client", f"{adapter},{sliced},24", "--rule", "flexlora", "--out",
                       self.path("g"), check=False)
        self.assertEqual((placed.returncode, "rotated" in placed.stderr), (0, False) if mode == "channel" else (1, True))
        if mode == "channel":
            self.assertEqual((info["block"]["parent_hidden"], info["block"]["parent_layers"]), (64, 2))
            self.assertIn("52 of 64 channels", (sliced / "README.md").read_text())
            self.assertNotEqual(self.logits(sliced, adapter=self.path("g")), want)
        else:
            config = self.path("federation.toml")
            config.write_text(f'model = "{self.model}"\n[blocks]\nmethod = "{method}"\n[[client]]\nname = "a"\ndata = "{self.data}"\n')
            refused = brick("simulate", config, "--out", self.path("run"), check=False)
            self.assertEqual((refused.returncode, "rotated" in refused.stderr), (1, True))
        brick("tune", masked, "--data", self.data, "--steps", 2, "--masked", "--out", self.path("own"))
        result = brick_json("aggregate", "--base", sliced, "--client", f"{self.path('own')},{masked},24", "--client",
                            f"{adapter},{sliced},24", "--rule", "hete-h2", "--out", self.path("global"))
        self.assertEqual((result["clients"], result["rejected"]), (2, []))

    def test_exports_agree(self):
        brick("prune", self.model, "--method", "magnitude", "--sparsity", .5, "--values", "f32", "--out", self.path("block"))
        want = self.logits(self.path("block"))
        brick("export", self.path("block"), "--format", "hf", "--dtype", "f32", "--out", self.path("hf"))
        self.assert_close(self.logits(self.path("hf")), want, 1e-5)
        brick("export", self.path("block"), "--format", "gguf", "--dtype", "f32", "--out", self.path("f32.gguf"))
        self.assert_close(self.logits(self.path("f32.gguf")), want, 1e-5)
        brick("export", self.path("block"), "--format", "gguf", "--dtype", "q8_0", "--out", self.path("q8.gguf"))
        self.assert_close(self.logits(self.path("q8.gguf")), want, 0.1)
        brick("export", self.path("block"), "--format", "gguf", "--dtype", "q6_k", "--out", self.path("q6.gguf"))
        self.assert_close(self.logits(self.path("q6.gguf")), want, 0.1)
        for dtype in ("q5_0", "q2_k", "i32"):
            refused = brick("export", self.path("block"), "--format", "gguf", "--dtype", dtype, "--out", self.path("x"), check=False)
            self.assertEqual((refused.returncode, self.path("x").exists()), (1, False))
        ids = brick_json("tokenize", self.path("f32.gguf"), "--text", "the old mill 12")["ids"]
        self.assertEqual(ids, brick_json("tokenize", self.model, "--text", "the old mill 12")["ids"])

    def test_exports_for_ollama_and_of_adapters(self):
        brick("tune", self.model, "--data", self.data, "--steps", 2, "--out", self.path("a"))
        lora = ("export", self.model, "--adapter", self.path("a"), "--adapter-only", "--dtype", "f16", "--out", self.path("lora.gguf"))
        made = brick_json(*lora, "--format", "gguf")
        self.assertEqual(made["bytes"], self.path("lora.gguf").stat().st_size)
        self.assertEqual(brick(*lora, "--format", "hf", check=False).returncode, 1)
        self.assertEqual(brick("export", self.model, "--adapter-only", "--format", "gguf", "--dtype", "f16", "--out", self.path("y"),
                               check=False).returncode, 2)
        whole = ("export", self.model, "--format", "gguf", "--dtype", "q4_k", "--out", self.path("m.gguf"), "--modelfile")
        brick(*whole)
        modelfile = self.path("m.gguf.Modelfile")
        self.assertIn(f"FROM ./{self.path('m.gguf').name}\n", modelfile.read_text())
        self.assertIn("<|im_end|>", modelfile.read_text())
        self.path("m.gguf").unlink()
        refused = brick(*whole, check=False)  # the Modelfile is there still
        self.assertEqual((refused.returncode, self.path("m.gguf").exists()), (1, False))
        brick(*whole, "--force")

    def test_a_model_pruned_elsewhere_becomes_a_block(self):
        brick("prune", self.model, "--method", "magnitude", "--sparsity", .5, "--values", "f32", "--out", self.path("known"))
        brick("export", self.path("known"), "--format", "hf", "--dtype", "f32", "--out", self.path("dense"))
        brick("export", self.path("dense"), "--format", "block", "--dtype", "f32", "--out", self.path("found"))
        known, found = brick_json("info", self.path("known")), brick_json("info", self.path("found"))
        self.assertEqual(known["nonzeros"], found["nonzeros"])
        self.assert_close(self.logits(self.path("found")), self.logits(self.path("known")), 1e-6)
        brick("tune", self.path("found"), "--data", self.data, "--steps", 1, "--masked", "--out", self.path("a"))
        refused = brick("export", self.model, "--format", "block", "--dtype", "f32", "--out", self.path("none"), check=False)
        self.assertIn("zero", refused.stderr)
        self.assertEqual((refused.returncode, self.path("none").exists()), (1, False))

    def test_adapter_of_a_gguf_fits_the_folder(self):
        brick("export", self.model, "--format", "gguf", "--dtype", "f32", "--out", self.path("m.gguf"))
        brick("tune", self.path("m.gguf"), "--data", self.data, "--steps", 3, "--lr", 1e-2, "--compute", "f32", "--out", self.path("a"))
        self.assert_close(self.logits(self.path("m.gguf"), adapter=self.path("a")),
                          self.logits(self.model, adapter=self.path("a")), 1e-5)


class Comparison(Case):
    def test_rows_table_page_and_cache(self):
        brick("blocks", self.model, "--method", "magnitude", "--sparsities", ".25,.75", "--out", self.path("family"))
        brick("export", self.model, "--format", "gguf", "--dtype", "q8_0", "--out", self.path("m.gguf"))
        paths = [self.model, self.path("family") / "25", self.path("family") / "75", self.path("m.gguf")]
        settings = ("--text", self.text, "--samples", 4, "--compute", "f32", "--cache", self.path("cache"))
        compare = ("compare", *paths, *settings, "--length", 64)
        first = brick_json(*compare, "--out", self.path("page.html"))
        rows = first["rows"]
        self.assertEqual([r["name"] for r in rows], [str(p) for p in paths])
        self.assertEqual([(r["method"], r["sparsity"]) for r in rows],
                         [("none", 0), ("magnitude", .25), ("magnitude", .75), ("none", 0)])
        for row in rows:
            score = brick_json("eval", row["name"], "--text", self.text, "--length", 64, "--samples", 4, "--compute", "f32")
            self.assertEqual(row["perplexity"], score["perplexity"])
            path = Path(row["name"])
            self.assertEqual(row["bytes"], sum(f.stat().st_size for f in ([path] if path.is_file() else path.iterdir())))
        smallest, best = min(rows, key=lambda r: r["bytes"]), min(rows, key=lambda r: r["perplexity"])
        self.assertIn("bytes", smallest["front"])
        self.assertIn("bytes", best["front"])
        page = self.path("page.html").read_text()
        self.assertIn("family/75", page)
        log = (self.path("cache") / "metrics.jsonl").read_text()
        self.assertEqual(log.count("\n"), 4)
        again = brick(*compare)
        self.assertEqual((self.path("cache") / "metrics.jsonl").read_text(), log)
        self.assertIn(f"{rows[2]['perplexity']:.1f}", again.stdout)
        self.assertEqual(brick_json(*compare)["rows"], rows)
        brick("compare", *paths, *settings, "--length", 32)  # another measurement
        self.assertEqual((self.path("cache") / "metrics.jsonl").read_text().count("\n"), 8)

    def test_speeds_are_timed_when_asked_for(self):
        self.assertNotIn("decode_tokens_per_second", brick_json("compare", self.model)["rows"][0])
        row = brick_json("compare", self.model, "--speed")["rows"][0]
        for key in ("decode_tokens_per_second", "train_tokens_per_second"):
            low, high = row[key + "_spread"]
            self.assertTrue(0 < low <= row[key] <= high)


class Aggregation(Case):
    def test_rejects_by_name_and_goes_on(self):
        for name, model in (("a", self.model), ("b", self.model)):
            brick("tune", model, "--data", self.data, "--steps", 2, "--lr", 1e-2, "--seed", ord(name), "--compute", "f32", "--out", self.path(name))
        foreign = write_model(self.path("foreign"), seed=5)
        brick("tune", foreign, "--data", self.data, "--steps", 2, "--out", self.path("c"))
        result = brick_json("aggregate", "--base", self.model, "--client", f"{self.path('a')},,24", "--client",
                            f"{self.path('b')},,24", "--client", f"{self.path('c')},,24", "--rule", "flexlora", "--out", self.path("g"))
        self.assertEqual(result["clients"], 2)
        self.assertEqual([r["client"] for r in result["rejected"]], [str(self.path("c"))])
        nobody = brick("aggregate", "--base", self.model, "--client", f"{self.path('c')},,24", "--rule", "fedit", "--out", self.path("h"), check=False)
        self.assertEqual(nobody.returncode, 1)
        self.assertFalse(self.path("h").exists())


class Training(Case):
    def test_same_seed_same_bits_and_resume_after_kill(self):
        def arguments(out):
            return ["tune", self.model, "--data", self.data, "--steps", 60, "--dropout", 0.1, "--save-every", 3, "--batch-tokens",
                    128, "--out", self.path(out)]
        brick(*arguments("whole"))
        want = tree_bytes(self.path("whole"))
        run_until(Path(f"{self.path('killed')}.checkpoint").exists, *arguments("killed"))
        brick(*arguments("killed"), "--resume")
        self.assertEqual(tree_bytes(self.path("killed")), want)
        self.assertFalse(Path(f"{self.path('killed')}.checkpoint").exists())


class Recovery(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.block = cls.folder / "half"
        brick("prune", cls.model, "--method", "wanda", "--sparsity", .5, "--calibration", cls.text, "--samples", 4, "--length", 64,
              "--values", "f32", "--out", cls.block)

    def recover(self, out, *more, block=None, teacher=None, length=64):
        return ("recover", block or self.block, "--teacher", teacher or self.model, "--text", self.text, "--length", length,
                "--batch-tokens", 256, "--compute", "f32", "--values", "f32", "--out", self.path(out), *more)

    def masks(self, block):
        data = (Path(block) / "model.safetensors").read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")
        header = json.loads(data[8:start])
        return {name: data[start + entry["data_offsets"][0]:start + entry["data_offsets"][1]]
                for name, entry in header.items() if name.endswith(".mask")}

    def test_lowers_the_loss_and_keeps_the_mask(self):
        before = brick_json("eval", self.block, "--text", self.text, "--length", 64, "--compute", "f32")
        done = brick_json(*self.recover("r", "--data", self.data, "--steps", 12, "--lr", 1e-2, length=256))
        for key in "loss_first loss_last seconds steps tokens nonzeros bytes teacher_tokens teacher_seconds".split():
            self.assertIn(key, done)
        self.assertLess(done["loss_last"], done["loss_first"])
        after = brick_json("eval", self.path("r"), "--text", self.text, "--length", 64, "--compute", "f32")
        self.assertLess(after["perplexity"], before["perplexity"])
        self.assertEqual(done["nonzeros"], brick_json("info", self.block, "--scan")["nonzeros"])
        self.assertEqual(self.masks(self.path("r")), self.masks(self.block))
        self.assertEqual(len(self.masks(self.block)), 14)
        self.assertFalse(Path(f"{self.path('r')}.teacher").exists())
        provenance = json.loads(json.loads((self.path("r") / "config.json").read_text())["brick"]["provenance"])
        self.assertEqual(provenance["config"]["recover"]["steps"], 12)
        self.assertIn("calibration", provenance["config"]["block"]["config"])

    def test_a_kept_cache_spares_the_teacher(self):
        cache = ("--cache", self.path("cache"), "--steps", 3)
        first = brick_json(*self.recover("first", *cache))
        self.assertGreater(first["teacher_tokens"], 0)
        again = brick_json(*self.recover("again", *cache))
        self.assertEqual(again["teacher_tokens"], 0)
        self.assertEqual(tree_bytes(self.path("again")), tree_bytes(self.path("first")))
        brick_json(*self.recover("dense", *cache, block=self.model))  # another student of the same teacher
        other = write_model(self.path("other"), seed=7)
        refused = brick(*self.recover("x", *cache, teacher=other), check=False)
        self.assertEqual((refused.returncode, refused.stderr.strip().count("\n")), (1, 0))
        self.assertIn("another teacher", refused.stderr)
        self.assertFalse(self.path("x").exists())

    def test_resumes_after_a_kill_with_the_same_bits(self):
        steps = ("--steps", 60, "--save-every", 3, "--dropout", 0.1)
        brick(*self.recover("whole", *steps))
        arguments = self.recover("killed", *steps)
        run_until(Path(f"{self.path('killed')}.checkpoint").exists, *arguments)
        brick(*arguments, "--resume")
        self.assertEqual(tree_bytes(self.path("killed")), tree_bytes(self.path("whole")))
        self.assertFalse(Path(f"{self.path('killed')}.teacher").exists())
        self.assertFalse(Path(f"{self.path('killed')}.checkpoint").exists())

    def test_hidden_states_count_if_asked(self):
        plain = brick_json(*self.recover("plain", "--steps", 1))
        done = brick_json(*self.recover("hidden", "--steps", 12, "--lr", 1e-2, "--hidden-weight", 1))
        self.assertGreater(done["loss_first"], plain["loss_first"])
        self.assertLess(done["loss_last"], done["loss_first"])

    def test_a_block_of_four_bit_values_stays_one(self):
        block = self.path("q4")
        brick("prune", self.model, "--method", "magnitude", "--sparsity", .5, "--values", "q4", "--out", block)
        train = ("recover", block, "--text", self.text, "--length", 64, "--objective", "cross-entropy", "--steps", 2)
        brick(*train, "--out", self.path("kept"))
        self.assertEqual((self.path("kept") / "model.safetensors").stat().st_size, (block / "model.safetensors").stat().st_size)
        brick(*train, "--values", "bf16", "--out", self.path("wider"))
        self.assertGreater((self.path("wider") / "model.safetensors").stat().st_size, (block / "model.safetensors").stat().st_size)

    def test_a_budget_of_time_ends(self):
        done = brick_json(*self.recover("timed", "--minutes", 0.02))
        self.assertGreaterEqual(done["steps"], 1)

    def test_without_a_teacher_there_is_cross_entropy(self):
        done = brick_json("recover", self.block, "--text", self.text, "--length", 64, "--objective", "cross-entropy", "--steps", 2,
                          "--out", self.path("r"))
        self.assertEqual(done["teacher_tokens"], 0)

    def test_one_line_for_each_mistake(self):
        def refused(mention, *arguments):
            result = brick("recover", self.block, *arguments, "--out", self.path("x"), check=False)
            self.assertEqual((result.returncode, result.stderr.strip().count("\n")), (1, 0), result.stderr)
            self.assertIn(mention, result.stderr)
            self.assertFalse(self.path("x").exists())
        teacher = ("--teacher", self.model)
        self.assertEqual(brick("recover", self.block, *teacher, "--out", self.path("x"), check=False).returncode, 2)
        refused("--teacher", "--text", self.text)
        refused("absent.gguf", "--text", self.text, "--teacher", self.folder / "absent.gguf")
        refused("absent.txt", "--text", self.folder / "absent.txt", *teacher)
        refused("distill = 2", "--text", self.text, *teacher, "--distill", 2)
        refused("top_tokens = 0", "--text", self.text, *teacher, "--top-tokens", 0)
        refused("minutes = -1", "--text", self.text, *teacher, "--minutes", -1)
        refused("objective 'l2'", "--text", self.text, *teacher, "--objective", "l2")
        self.assertFalse(Path(f"{self.path('x')}.teacher").exists())
        other = write_model(self.path("other"))
        tokenizer = json.loads((other / "tokenizer.json").read_text())
        vocab = tokenizer["model"]["vocab"]
        vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
        (other / "tokenizer.json").write_text(json.dumps(tokenizer))
        refused("another tokenizer", "--text", self.text, "--teacher", other)


class Simulation(Case):
    def config(self):
        path = self.path("federation.toml")
        clients = "".join(f'[[client]]\nname = "{name}"\ndata = "{self.data}"\ntest = "{self.test}"\nsparsity = {sparsity}\n{extra}'
                          for name, sparsity, extra in (("north", 0.0, ""), ("south", 0.25, "rank = 4\n"),
                                                        ("east", 0.5, "participation = 0.7\n"), ("west", 0.75, "dropout = 0.5\n")))
        path.write_text(f'''model = "{self.model}"
rounds = 3
[blocks]
method = "sparsegpt"
calibration = "{self.text}"
samples = 4
length = 64
[tune]
masked = true
rank = 8
steps = 3
batch_tokens = 256
dropout = 0.1
lr = 3e-3
[aggregate]
rule = "hete-tau"
tau = "auto"
validation = "{self.test}"
{clients}[evaluate]
text = "{self.text}"
length = 64
samples = 4
arms = ["untuned", "local", "centralised", "fedit-dense"]
''')
        return path

    @staticmethod
    def results(run):
        """Blocks, adapters and losses; times differ."""
        files = tree_bytes(run, leave_out=("metrics.jsonl", "summary.json", "report.html"))
        losses = []
        for line in (Path(run) / "metrics.jsonl").read_text().splitlines():
            event = json.loads(line)
            losses.append({k: v for k, v in event.items() if k != "seconds"})
        return files, losses

    def test_runs_and_resumes_after_kills_with_the_same_bits(self):
        config = self.config()
        summary = brick_json("simulate", config, "--out", self.path("whole"))
        self.assertEqual(summary["rounds"], 3)
        self.assertEqual(len(summary["final"]["clients"]), 4)
        self.assertEqual(set(summary["final"]["arms"]), {"untuned", "local", "centralised", "fedit-dense", "lego"})
        self.assertGreater(summary["bytes_up"], 0)
        sizes = {sum(f.stat().st_size for f in block.iterdir()) for block in (self.path("whole") / "blocks").iterdir()}
        self.assertLessEqual(sizes, {b["bytes"] for b in json.loads((self.path("whole") / "summary.json").read_text())["blocks"]})
        page = (self.path("whole") / "report.html").read_text()
        self.assertIn("north", page)
        rows = {r["name"]: r for r in brick_json("compare", self.path("whole"))["rows"]}
        run = f"{self.path('whole')}: "
        self.assertEqual(rows[run + "west with LEGO"]["loss"], summary["final"]["clients"][3]["loss"]["block_lego"])
        self.assertEqual(rows[run + "lego"]["loss"], summary["final"]["llm"]["loss_by_round"][-1])
        self.assertGreater(rows[run + "block 75 %"]["perplexity"], 1)
        started = time.time()
        brick("simulate", config, "--out", self.path("timed"))
        length = time.time() - started
        want = self.results(self.path("whole"))
        self.assertEqual(self.results(self.path("timed")), want)

        simulate_killed(config, self.path("killed"), length, times=10, seed=4)
        self.assertEqual(self.results(self.path("killed")), want)

    def test_another_configuration_is_not_resumed(self):
        config = self.config()
        config.write_text(config.read_text().replace("rounds = 3", "rounds = 1").replace(', "centralised", "fedit-dense"', ""))
        brick("simulate", config, "--out", self.path("run"))
        config.write_text(config.read_text().replace("steps = 3", "steps = 2"))
        refused = brick("simulate", config, "--out", self.path("run"), "--resume", check=False)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("another configuration", refused.stderr)

    def test_what_is_wrong_leaves_the_older_run(self):
        run = self.path("run")
        config = self.config()
        text = config.read_text().replace("rounds = 3", "rounds = 1").replace('arms = ["untuned", "local", "centralised", "fedit-dense"]', "")
        config.write_text(text)
        brick("simulate", config, "--out", run)
        before = tree_bytes(run)

        def refused(mention, *flags):
            result = brick("simulate", config, "--out", run, *flags, check=False)
            self.assertEqual(result.returncode, 1, result.stderr)
            line = result.stderr.splitlines()[-1]
            self.assertTrue(line.startswith("brick: "), line)
            self.assertIn(mention, line)
        for mention, wrong in (("no.jsonl", text.replace(f'data = "{self.data}"', 'data = "no.jsonl"', 1)),
                               ("nosuch", text.replace("rank = 8", 'rank = 8\ntemplate = "nosuch"')),
                               ("samples", text.replace("samples = 4", "samples = 400000", 1)),
                               ("no.txt", text.replace(f'text = "{self.text}"', 'text = "no.txt"')),
                               ("[blocks]: damping", text.replace("[blocks]", "[blocks]\ndamping = -1.0")),
                               ("values 'int3'", text.replace("[blocks]", '[blocks]\nvalues = "int3"')),
                               ("no multiple of 5", text.replace("[blocks]", '[blocks]\npattern = "3:5"\nblock_columns = 5')
                                .replace("sparsity = 0.25", "sparsity = 0.6").replace("sparsity = 0.5", "sparsity = 0.6")
                                .replace("sparsity = 0.75", "sparsity = 0.6")),
                               ("--protect-first", text.replace('"sparsegpt"', '"llm-pruner"')),
                               ("averages factors of one rank", text.replace('"hete-tau"', '"fedit"')),
                               ("share the name 25", text.replace("sparsity = 0.5", "sparsity = 0.25000001"))):
            config.write_text(wrong)
            refused(mention, "--force")
        self.assertEqual(tree_bytes(run), before)

        config.write_text(text)
        metrics = run / "metrics.jsonl"
        events = [json.loads(line) for line in metrics.read_text().splitlines()]
        del next(e for e in events if e["event"] == "tune")["step"]
        metrics.write_text("".join(json.dumps(e) + "\n" for e in events))
        refused("metrics.jsonl", "--resume")


if __name__ == "__main__":
    unittest.main()
