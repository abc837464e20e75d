"""What scripts rely on beside the keys: flags in any order, refusals before the work, logs, what --init and --seed mean."""
import json
import math
import re
import shutil
import struct
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from command_test import Case, brick, brick_json, run_until, tree_bytes  # noqa: E402
from tiny_model import read_npy, write_model  # noqa: E402

TASKS = Path(__file__).parent.parent / "golden" / "lm_eval" / "data"


def write_npy(path, rows):
    header = f"{{'descr': '<i4', 'fortran_order': False, 'shape': ({len(rows)}, {len(rows[0])}), }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    flat = [value for row in rows for value in row]
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + struct.pack(f"<{len(flat)}i", *flat))


def lines_of(log):
    return [json.loads(line) for line in Path(log).read_text().splitlines()]


class Contract(Case):
    def refused(self, mention, *arguments, status=1):
        done = brick(*arguments, check=False)
        self.assertEqual((done.returncode, done.stdout), (status, ""), done.stderr)
        self.assertIn(mention, done.stderr)
        if status == 1:
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)

    def records(self, name, first, count):
        path = self.path(name)
        path.write_text("".join(Path(self.data).read_text().splitlines(keepends=True)[first:first + count]))
        return path


class Arguments(Contract):
    def test_what_follows_a_list_is_not_part_of_it(self):
        self.assertEqual(brick_json("tokenize", "--decode", "40,41", self.model), brick_json("tokenize", self.model, "--decode", "40,41"))
        made = brick_json("logits", "--ids", "1,2", self.model, "--out", self.path("l.npy"))
        self.assertEqual(made["shape"], [2, 259])
        self.assertEqual(read_npy(self.path("l.npy"))[0], (2, 259))
        family = brick_json("blocks", "--method", "magnitude", "--sparsities", "0,.5", self.model, "--out", self.path("family"))
        self.assertEqual(len(family["blocks"]), 2)
        self.assertEqual(brick_json("eval", "--tasks", "piqa", self.model, "--tasks-dir", TASKS)["tasks"]["piqa"]["n"], 3)
        shrunk = brick_json("shrink", "--gguf", "f16", self.model, "--method", "magnitude", "--sparsity", 0.5, "--out", self.path("shrunk"))
        self.assertEqual([row["name"] for row in shrunk["rows"]], ["dense", "block", "model-f16.gguf"])
        self.assertEqual(brick_json("generate", "--stop", "a", "--stop", "b", self.model, "--prompt", "x", "--max-tokens", 1)["tokens"], 1)

    def test_a_stop_text_is_taken_literally(self):
        def text(*stop):
            return brick_json("generate", self.model, "--prompt", "x", "--max-tokens", 64, "--temperature", 2, "--seed", 1, *stop)["text"]
        whole = text()
        letter = re.search("[A-Za-z0-9]", whole).group()
        self.assertEqual(text("--stop", letter), whole[:whole.index(letter)])
        self.assertEqual(text("--stop", f"[{letter}]"), whole)
        self.assertEqual(text("--stop", f"[{letter}]", "--stop", letter), whole[:whole.index(letter)])

    def test_prompts_and_texts_come_from_anywhere(self):
        file = self.path("prompt.txt")
        file.write_text("The river")
        want = brick("generate", self.model, "--prompt", "The river", "--max-tokens", 6).stdout
        self.assertEqual(brick("generate", self.model, "--file", file, "--max-tokens", 6).stdout, want)
        self.assertEqual(brick("generate", self.model, "-", "--max-tokens", 6, input="The river").stdout, want)
        self.assertEqual(brick_json("tokenize", self.model, "--file", file), brick_json("tokenize", self.model, "--text", "The river"))

    def test_wrong_usage_is_two(self):
        usage = dict(status=2)
        self.refused("--tasks", "eval", self.model, **usage)
        self.refused("--text or --data", "recover", self.model, "--teacher", self.model, "--out", self.path("x"), **usage)
        for client in ("a", "a,b", "a,b,many"):
            self.refused("--client", "aggregate", "--base", self.model, "--client", client, "--rule", "fedit", "--out", self.path("x"),
                         **usage)
        self.refused("--json", "chat", self.model, "--json", **usage)
        self.refused("--json", "completion", "bash", "--json", **usage)
        self.refused("--context", "generate", self.model, "--prompt", "x", "--context", -1, **usage)

    def test_perplexity_of_records(self):
        score = brick_json("eval", self.model, "--data", self.test)
        self.assertAlmostEqual(math.log(score["perplexity"]), score["nll"], places=9)

    def test_the_context_is_named_where_it_is_full(self):
        long = "a" * 1100  # the model was made for 1024
        self.refused("--context", "generate", self.model, "--prompt", long)
        self.assertEqual(brick_json("generate", self.model, "--prompt", long, "--context", 1200, "--max-tokens", 1)["tokens"], 1)
        generate = ("generate", self.model, "--prompt", "The river", "--max-tokens", 50, "--json")
        cut = brick(*generate, "--context", 12)
        self.assertEqual(json.loads(cut.stdout)["tokens"], 12 - len("The river") + 1)
        self.assertEqual((cut.stderr.count("\n"), "--context" in cut.stderr), (1, True), cut.stderr)
        self.assertEqual(brick(*generate).stderr, "")

    def test_an_unknown_chat_template_is_said_once(self):
        odd = write_model(self.path("odd"))
        config = json.loads((odd / "tokenizer_config.json").read_text())
        (odd / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": "{{ messages | odd }}"}))
        brick("tune", self.model, "--data", self.data, "--steps", 1, "--out", self.path("a"))
        federation = self.path("f.toml")
        federation.write_text(f'model = "{odd}"\nrounds = 1\n[blocks]\nmethod = "magnitude"\n[tune]\nsteps = 1\n'
                              + "".join(f'[[client]]\nname = "{name}"\ndata = "{self.data}"\n' for name in "ab"))
        short = ("--data", self.data, "--steps", 1)
        for number, command in enumerate((
                ("tune", odd, *short, "--out"), ("recover", odd, *short, "--objective", "cross-entropy", "--out"),
                ("eval", odd, "--data", self.test), ("generate", odd, "--chat", "--prompt", "x", "--max-tokens", 1),
                ("chat", odd, "--max-tokens", 1), ("simulate", federation, "--out"),
                ("aggregate", "--base", odd, "--client", f"{self.path('a')},,24", "--rule", "hete-tau", "--validation", self.test,
                 "--out"))):
            def warnings(*more):
                out = [self.path(f"out{number}{len(more)}")] if command[-1] == "--out" else []
                return re.findall("warning: .*", brick(*command, *out, *more, input="hello\n").stderr)
            said = warnings()
            self.assertEqual((len(said), "--template" in said[0]), (1, True), (command, said))
            if command[0] != "simulate":
                self.assertEqual(warnings("--template", "chatml"), [])
        plain = write_model(self.path("plain"))
        del config["chat_template"]
        (plain / "tokenizer_config.json").write_text(json.dumps(config))
        self.assertEqual(brick("eval", plain, "--data", self.test).stderr, "")


class Outputs(Contract):
    def test_what_is_there_stays(self):
        brick("tune", self.model, "--data", self.data, "--steps", 1, "--out", self.path("a"))
        there, file = self.path("there"), self.path("there.gguf")
        there.mkdir()
        (there / "precious").write_text("x")
        file.write_text("precious")
        federation = self.path("f.toml")
        federation.write_text(f'model = "{self.model}"\n[[client]]\nname = "a"\ndata = "{self.data}"\n')
        for command in (("tune", self.model, "--data", self.data, "--steps", 1, "--out"), ("merge", self.model, self.path("a"), "--out"),
                        ("export", self.model, "--format", "hf", "--dtype", "f32", "--out"), ("simulate", federation, "--out")):
            self.refused("--force", *command, there)
        self.refused("--force", "export", self.model, "--format", "gguf", "--dtype", "f32", "--out", file)
        self.refused("--force", "tune", self.model, "--data", self.data, "--steps", 1, "--out", self.path("b"), "--log", file)
        self.refused("--force", "bench", self.model, "--calibrate", file)
        self.refused("is a folder", "compare", self.model, "--force", "--json", "--out", there)
        for place, mention in (("", "is no name"), (file / "below", "is no folder")):
            self.refused(mention, "merge", self.model, self.path("a"), "--out", place)
        self.refused("is a folder", "export", self.model, "--format", "gguf", "--dtype", "f32", "--force", "--out", there)
        self.assertEqual((tree_bytes(there), file.read_text()), ({"precious": b"x"}, "precious"))
        self.assertFalse(self.path("b").exists())
        brick("export", self.model, "--format", "gguf", "--dtype", "f32", "--force", "--out", file)
        self.assertEqual(brick_json("info", file)["layers"], 2)

    def test_calibration_goes_to_a_file_if_one_is_named(self):
        if "avx2" not in brick_json("cpu")["available"]:
            self.skipTest("one way to multiply sparse weights only")
        file = self.path("machine.json")
        bench = ("bench", self.model, "--tokens", 64, "--length", 32, "--decode-tokens", 4, "--repeats", 1)
        out = brick_json(*bench, "--calibrate")
        brick(*bench, "--calibrate", file)
        written = json.loads(file.read_text())
        for key in "train_tokens_per_second prefill_tokens_per_second decode_tokens_per_second peak_rss_mb isa threads".split():
            self.assertIn(key, out)
        self.assertEqual(set(written), {"format", "cpu", "isa", "threads", "f32", "bf16", "decode"})
        self.assertLess(set(written), set(out))
        self.assertFalse(Path("--json").exists())


class Calibration(Contract):
    def prune(self, name, *calibration):
        brick("prune", self.model, "--method", "wanda", "--sparsity", .5, "--values", "f32", *calibration, "--out", self.path(name))
        return self.logits(self.path(name))

    def test_windows_come_as_text_or_ids_from_the_beginning_or_drawn(self):
        ids = brick_json("tokenize", self.model, "--file", self.text)["ids"]
        write_npy(self.path("ids.npy"), [ids[i:i + 64] for i in range(0, 256, 64)])
        text = ("--calibration", self.text, "--samples", 4, "--length", 64)
        first = self.prune("text", *text)
        self.assertEqual(self.prune("ids", "--calibration", self.path("ids.npy"), "--samples", 4, "--length", 64), first)
        drawn = self.prune("drawn", *text, "--calibration-seed", 1)
        self.assertNotEqual(drawn, first)
        self.assertEqual(self.prune("again", *text, "--calibration-seed", 1), drawn)


class Tuning(Contract):
    plain = ("--batch-records", 1, "--no-shuffle", "--schedule", "constant", "--warmup", 0, "--clip", 0, "--compute", "f32")

    def loss(self, records, *adapter):
        return brick_json("eval", self.model, "--data", records, "--compute", "f32", *adapter)["nll"]

    def test_a_step_is_what_its_line_says(self):
        log, first = self.path("log.jsonl"), self.records("first.jsonl", 0, 1)
        tune = ("tune", self.model, "--data", self.data, *self.plain, "--steps", 3, "--lr", 1e-2)
        made = brick_json(*tune, "--rank", 4, "--validation", self.test, "--log", log, "--out", self.path("a"))
        lines = lines_of(log)
        self.assertEqual([line["step"] for line in lines], [1, 2, 3])
        self.assertEqual(set(lines[0]), {"step", "loss", "tokens", "lr", "grad_norm", "seconds"})
        self.assertEqual({line["lr"] for line in lines}, {1e-2})
        self.assertAlmostEqual(lines[0]["loss"], self.loss(first), places=4)
        adapter = ("--adapter", self.path("a"))
        self.assertAlmostEqual(made["validation_loss"], self.loss(self.test, *adapter), places=5)
        on = brick(*tune, "--init", self.path("a"), "--rslora", "--log", self.path("on.jsonl"), "--out", self.path("b"))
        self.assertIn("rslora: the scale is that of the adapter", on.stderr)
        self.assertAlmostEqual(lines_of(self.path("on.jsonl"))[0]["loss"], self.loss(first, *adapter), places=4)
        self.assertEqual(json.loads((self.path("b") / "adapter_config.json").read_text())["r"], 4)

    def test_validation_is_read_before_the_training(self):
        self.refused("absent.jsonl", "tune", self.model, "--data", self.data, "--validation", self.folder / "absent.jsonl", "--log",
                     self.path("log.jsonl"), "--out", self.path("a"))
        self.assertFalse(self.path("a").exists() or self.path("log.jsonl").exists())

    def test_a_resumed_log_has_each_step_once(self):
        def arguments(name, *more):
            return ["tune", self.model, "--data", self.data, "--steps", 60, "--save-every", 3, "--batch-tokens", 128, "--log",
                    self.path(f"{name}.jsonl"), "--out", self.path(name), *more]

        def steps(name):
            return [{key: value for key, value in line.items() if key != "seconds"} for line in lines_of(self.path(f"{name}.jsonl"))]
        brick(*arguments("whole"))
        log = self.path("killed.jsonl")
        run_until(Path(f"{self.path('killed')}.checkpoint").exists, *arguments("killed"))
        kept = log.read_text()
        log.write_text(kept[:kept.rfind("\n") + 1] + '{"step":61,"loss":0}\n{"grad_no')
        brick(*arguments("killed", "--resume"))
        self.assertEqual(steps("killed"), steps("whole"))
        self.assertEqual([step["step"] for step in steps("killed")], list(range(1, 61)))
        for note, mention in (("a note\n", "is no log"), ('{"step":1}\na note\n', "line 2")):
            self.path("note.jsonl").write_text(note)
            self.refused(mention, *arguments("note", "--resume", "--json"))
            self.assertEqual(self.path("note.jsonl").read_text(), note)


class Federation(Contract):
    def federation(self, name, rounds, top="", rest=""):
        path = self.path(name)
        path.write_text(f'''model = "{self.model}"
rounds = {rounds}
{top}[blocks]
method = "magnitude"
values = "f32"
[tune]
masked = true
no-shuffle = true
steps = 3
batch-tokens = 128
lr = 1e-2
[aggregate]
rule = "hete-h2"
[[client]]
name = "whole"
data = "{self.data}"
[[client]]
name = "half"
data = "{self.data}"
test = "{self.test}"
sparsity = 0.5
{rest}''')
        return path

    def test_a_later_round_by_hand_is_the_runs(self):
        run = self.path("run")
        brick("simulate", self.federation("f.toml", 2), "--out", run)
        block, tuned = run / "blocks" / "50", self.path("tuned")
        brick("tune", block, "--data", self.data, "--init", run / "rounds" / "001" / "global", "--masked", "--no-shuffle", "--steps", 3,
              "--batch-tokens", 128, "--lr", 1e-2, "--out", tuned)
        self.assertEqual((tuned / "adapter_model.safetensors").read_bytes(),
                         (run / "rounds" / "002" / "clients" / "half" / "adapter_model.safetensors").read_bytes())
        merged = brick_json("merge", block, tuned, "--values", "f32", "--out", self.path("merged"))
        self.assertEqual(merged["nonzeros"], brick_json("info", block)["nonzeros"])

    def test_a_seed_is_the_runs_and_is_written_down(self):
        asked, given = self.path("asked"), self.path("given")
        plain = self.federation("f.toml", 1, rest='[evaluate]\narms = ["local", "centralised"]\n')
        brick("simulate", plain, "--seed", 5, "--out", asked)
        brick("simulate", self.federation("g.toml", 1, "seed = 5\n"), "--out", given)
        self.assertEqual(tree_bytes(asked / "rounds"), tree_bytes(given / "rounds"))
        self.assertIn("seed = 5\n", (asked / "config.toml").read_text())
        brick("simulate", plain, "--out", self.path("other"))
        self.assertNotEqual(tree_bytes(asked / "rounds"), tree_bytes(self.path("other") / "rounds"))
        brick("simulate", plain, "--seed", 5, "--out", asked, "--resume")
        self.refused("seed", "simulate", plain, "--out", asked, "--resume")
        self.refused("--resume", "simulate", plain, "--seed", 5, "--out", asked)
        for event in lines_of(asked / "metrics.jsonl"):
            self.assertIn("event", event)
            self.assertIn("round", event)
            self.assertGreaterEqual(event["seconds"], 0)

    def test_arms_without_held_out_records(self):
        federation = self.federation("f.toml", 1, rest='[evaluate]\narms = ["local", "centralised", "fedit-dense"]\n')
        federation.write_text(federation.read_text().replace(f'test = "{self.test}"\n', ""))
        final = brick_json("simulate", federation, "--out", self.path("run"))["final"]
        self.assertEqual([final["arms"][arm]["loss"] for arm in ("centralised", "fedit-dense", "lego")], [None] * 3)
        said = brick("simulate", federation, "--out", self.path("run"), "--resume").stderr
        self.assertRegex(said, r"in one place: \d+ steps, held-out loss not measured\n")
        self.assertIn("at every client: held-out loss not measured\n", said)

    def bare(self):
        """The model without a tokenizer."""
        shutil.copytree(self.model, self.path("bare"), ignore=shutil.ignore_patterns("tokenizer*"))
        return self.path("bare")

    def test_a_run_and_a_merged_model_have_a_tokenizer_from_elsewhere(self):
        federation, run, given = self.federation("f.toml", 1), self.path("run"), ("--tokenizer", self.model / "tokenizer.json")
        federation.write_text(federation.read_text().replace(f'model = "{self.model}"', f'model = "{self.bare()}"')
                              .replace("[tune]", '[tune]\ntemplate = "chatml"'))
        self.refused("--tokenizer", "simulate", federation, "--out", run)
        brick("simulate", federation, "--out", run, *given)
        self.assertTrue((run / "blocks" / "50" / "tokenizer.json").exists())
        other = self.path("other.json")
        other.write_text((self.model / "tokenizer.json").read_text() + "\n")
        self.refused("another configuration", "simulate", federation, "--out", run, "--resume", "--tokenizer", other, "--json")
        merge = ("merge", self.path("bare"), run / "rounds" / "001" / "global", "--out")
        brick(*merge, self.path("plain"))
        brick(*merge, self.path("merged"), *given)
        self.assertEqual([(self.path(name) / "tokenizer.json").exists() for name in ("plain", "merged")], [False, True])
        self.refused("absent.json", *merge, self.path("x"), "--tokenizer", self.folder / "absent.json")

    def test_tau_is_chosen_with_a_tokenizer_from_elsewhere(self):
        bare = self.bare()
        for seed in (1, 2):
            brick("tune", self.model, "--data", self.data, "--steps", 2, "--lr", 1e-2, "--seed", seed, "--out", self.path(f"a{seed}"))
        aggregate = ("aggregate", "--base", bare, "--client", f"{self.path('a1')},,24", "--client", f"{self.path('a2')},,24", "--rule",
                     "hete-tau", "--tau", "auto", "--out", self.path("global"))
        self.refused("--validation", *aggregate)
        self.refused("--tokenizer", *aggregate, "--validation", self.test)
        made = brick_json(*aggregate, "--validation", self.test, "--tokenizer", self.model / "tokenizer.json", "--template", "chatml")
        self.assertEqual((made["clients"], made["rejected"]), (2, []))
        self.assertTrue(0 <= made["tau"] <= 1)


if __name__ == "__main__":
    unittest.main()
