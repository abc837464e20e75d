"""What users get wrong, and streams that are not there: refused or told in one line that names the file."""
import json
import os
import subprocess
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from command_test import BRICK, brick, brick_json  # noqa: E402
from contract_test import Contract, lines_of  # noqa: E402
from tiny_model import write_model  # noqa: E402


class Streams(Contract):
    def shell(self, redirection, *arguments):
        return subprocess.run(["sh", "-c", f'"$0" "$@" {redirection}', BRICK, *map(str, arguments)], capture_output=True, text=True, timeout=600)

    @unittest.skipUnless(Path("/dev/full").exists(), "no /dev/full")
    def test_messages_that_nobody_can_read_change_nothing(self):
        tune = ("tune", self.model, "--data", self.data, "--steps", 2)
        self.assertEqual(self.shell("2>/dev/full", *tune[:3], "absent", "--out", self.path("x")).returncode, 1)
        for number, redirection in enumerate(("2>/dev/full", "2>&-", "<&- 2>&-")):
            log = self.path(f"{number}.jsonl")
            self.assertEqual(self.shell(redirection, *tune, "--log", log, "--out", self.path(str(number))).returncode, 0)
            self.assertEqual([line["step"] for line in lines_of(log)], [1, 2])
        closed = self.shell("<&- >&- 2>&-", "export", self.model, "--format", "gguf", "--dtype", "f32", "--out", self.path("m.gguf"))
        self.assertEqual(closed.returncode, 1)  # its result was not told
        self.assertEqual(brick_json("info", self.path("m.gguf"))["layers"], 2)
        for words in (("--version",), ("info", "--help")):
            self.assertEqual(self.shell(">/dev/full", *words).returncode, 1)

    def test_a_file_that_the_environment_names_is_told_as_that(self):
        refused = subprocess.run([BRICK, "cpu"], env={**os.environ, "BRICK_KERNEL_TABLE": "absent"}, capture_output=True, text=True)
        self.assertEqual(refused.returncode, 1)
        self.assertIn("absent (BRICK_KERNEL_TABLE): ", refused.stderr)

    def test_names_from_files_steer_no_terminal(self):
        odd = write_model(self.path("odd"))
        config = json.loads((odd / "config.json").read_text())
        (odd / "config.json").write_text(json.dumps({**config, "rope_scaling": {"type": "\x1b[2J", "factor": 2.0}}))
        refused = brick("info", odd, check=False)
        self.assertEqual((refused.returncode, "\x1b" in refused.stderr), (1, False), refused.stderr)
        block = self.path("block")
        brick("prune", self.model, "--method", "magnitude", "--sparsity", .5, "--out", block)
        told = (block / "config.json").read_text()
        (block / "config.json").write_text(told.replace('"magnitude"', '"odd \\u001b[2J \\u009b2J\\n method"'))
        shown = brick("info", block).stdout
        self.assertIn("odd  [2J  2J  method", shown)
        self.assertFalse({"\x1b", "\x9b"} & set(shown))


class Flags(Contract):
    def test_numbers_out_of_reach_or_missing_are_wrong_usage(self):
        out = ("--out", self.path("x"))
        prune = ("prune", self.model, "--method", "magnitude")
        for mention, *arguments in (
                ("--seed", *prune, "--sparsity", .5, "--seed", 2**64, *out), ("--seed", *prune, "--sparsity", .5, "--seed", "1e3", *out),
                ("--calibration-seed", *prune, "--sparsity", .5, "--calibration-seed", 2**64, *out),
                ("--sparsity", *prune, "--sparsity", "", *out), ("--ids", "logits", self.model, "--ids", "", *out),
                ("--limit", "eval", self.model, "--data", self.test, "--limit", -1),
                ("--limit", "eval", self.model, "--data", self.test, "--limit", ""),
                ("--log", "eval", self.model, "--data", self.test, "--log", self.path("log.jsonl")),
                ("--temperature", "generate", self.model, "--prompt", "a", "--temperature", "nan"),
                ("--top-p", "generate", self.model, "--prompt", "a", "--top-p", "nan")):
            self.refused(mention, *arguments, status=2)
        brick("tune", self.model, "--data", self.data, "--steps", 1, "--seed", 2**64 - 1, *out)
        made = brick_json("generate", self.model, "--prompt", "a", "--context", 4, "--max-tokens", 2**63 - 1)
        self.assertLessEqual(made["tokens"], 4)

    def test_what_can_be_known_is_told_before_the_work(self):
        there = self.path("there.npy")
        there.write_text("precious")
        self.refused("--force", "logits", self.folder / "absent", "--ids", "1", "--out", there)
        self.refused("'nosuch'", "bench", self.folder / "absent", "--what", "train,nosuch")


class Files(Contract):
    def test_a_log_in_the_outputs_place_is_refused_before_the_training(self):
        tune, out = ("tune", self.model, "--data", self.data, "--steps", 1, "--force", "--out", self.path("out")), self.path("out")
        for log in (out, out / "log.jsonl", f"{out}/../{out.name}"):
            self.refused("the log", *tune, "--log", log)
            self.assertFalse(out.exists())
        brick(*tune, "--log", f"{out}.jsonl")

    def test_force_replaces_a_log_and_nothing_else(self):
        data = self.path("data.jsonl")
        data.write_bytes(Path(self.data).read_bytes())
        tune = ("tune", self.model, "--data", data, "--steps", 1, "--force", "--out", self.path("out"), "--log")
        self.refused("no log that --log writes", *tune, data)
        self.assertEqual(data.read_bytes(), Path(self.data).read_bytes())
        self.path("log.jsonl").write_text('{"step": 1, "lo')  # torn by a kill
        for _ in range(2):
            brick(*tune, self.path("log.jsonl"))
        self.assertEqual(len(self.path("log.jsonl").read_text().splitlines()), 1)

    def test_what_came_through_a_pipe_is_not_hashed(self):
        recover = ("recover", self.model, "--objective", "cross-entropy", "--length", 64, "--steps", 1, "--out")
        for name, text in (("file", self.text), ("pipe", "/dev/stdin")):
            brick(*recover, self.path(name), "--text", text, input=Path(self.text).read_text())
        provenance = [json.loads(json.loads((self.path(name) / "config.json").read_text())["brick"]["provenance"]) for name in ("file", "pipe")]
        self.assertEqual(["text" in one["config"]["recover"] for one in provenance], [True, False])

    def test_messages_name_the_file(self):
        short, long = self.path("short.txt"), self.path("long.jsonl")
        short.write_text("abc")
        long.write_text(json.dumps({"instruction": "a" * 600, "response": "b"}) + "\n")
        self.refused("short.txt", "eval", self.model, "--text", short)
        self.refused("short.txt", "prune", self.model, "--method", "wanda", "--sparsity", .5, "--calibration", short, "--out", self.path("x"))
        self.refused("long.jsonl", "tune", self.model, "--data", self.data, "--validation", long, "--out", self.path("x"))
        taller = write_model(self.path("taller"), layers=3)
        brick("tune", taller, "--data", self.data, "--steps", 1, "--out", self.path("tall-adapter"))
        self.refused("tall-adapter", "eval", self.model, "--adapter", self.path("tall-adapter"), "--text", self.text)
        brick("export", self.model, "--format", "gguf", "--dtype", "f32", "--out", self.path("m.gguf"))
        bos = b"tokenizer.ggml.bos_token_id" + (4).to_bytes(4, "little")
        gguf = self.path("m.gguf").read_bytes()
        self.path("bos.gguf").write_bytes(gguf.replace(bos + b"\1\0", bos + b"\1\x7f"))
        self.refused("bos.gguf: tokenizer: the BOS", "eval", self.path("bos.gguf"), "--text", self.text)

    def test_records_that_are_left_out_are_told(self):
        data = self.path("data.jsonl")
        data.write_text(Path(self.test).read_text() + json.dumps({"instruction": "a" * 600, "response": "b"}) + "\n")
        told = brick("eval", self.model, "--data", data, "--json")
        self.assertIn("1 records have no answer within 512 tokens", told.stderr)
        self.assertEqual(json.loads(told.stdout)["records"], 6)

    def test_windows_longer_than_the_models_context_are_told(self):
        told = brick("eval", self.model, "--text", self.text, "--length", 1025, "--samples", 1, "--json").stderr
        self.assertIn("1025 tokens are longer than the 1024", told)

    def test_texts_are_utf8_but_for_characters_cut_at_their_ends(self):
        text = self.path("text.txt")

        def tokens(content):
            text.write_bytes(content)
            return brick_json("eval", self.model, "--text", text, "--length", 16, "--samples", 1)["tokens"]
        euros = ("The river runs on. €" * 4).encode()
        self.assertEqual(tokens(euros[:-1]), 15)
        self.assertEqual(tokens(b"\x82\xac" + euros), 15)
        for content in ("The river runs on. ".encode("utf-16"), b"caf\xe9 " * 9, euros + b"\xff", b"\x82" * 40):
            text.write_bytes(content)
            self.refused("text.txt: line 1: byte", "eval", self.model, "--text", text, "--length", 16)

    def test_a_tokenizer_that_is_lost_is_told(self):
        odd = write_model(self.path("odd"))
        (odd / "tokenizer.json").write_text('{"model": {"type": "WordPiece"}}')
        told = brick("prune", odd, "--method", "magnitude", "--sparsity", .5, "--out", self.path("block"), "--json")
        self.assertIn("warning: the block has no tokenizer: ", told.stderr)
        self.assertIn("--tokenizer", told.stderr)


class Adapters(Contract):
    def test_merging_that_fills_a_blocks_zeros_is_told(self):
        block = self.path("block")
        brick("prune", self.model, "--method", "magnitude", "--sparsity", .5, "--out", block)
        warnings = []
        for name, flags in (("plain", ()), ("masked", ("--masked",))):
            brick("tune", block, "--data", self.data, "--steps", 1, *flags, "--out", self.path(name))
            warnings.append("is not masked" in brick("merge", block, self.path(name), "--out", self.path(f"{name}-merged"), "--json").stderr)
        self.assertEqual(warnings, [True, False])

    def test_a_blocks_damaged_provenance_is_one_line(self):
        block, adapter = self.path("block"), self.path("adapter")
        brick("prune", self.model, "--method", "magnitude", "--sparsity", .5, "--out", block)
        brick("tune", block, "--data", self.data, "--steps", 1, "--masked", "--out", adapter)
        config = json.loads((block / "config.json").read_text())
        for provenance in ("{", "[]", '{"config": 3}', '{"config": {"merged": 3}}'):
            config["brick"]["provenance"] = provenance
            (block / "config.json").write_text(json.dumps(config))
            self.refused("block: provenance", "merge", block, adapter, "--out", self.path("merged"))

    def test_a_client_that_is_given_twice_counts_twice_and_is_told(self):
        for seed in (1, 2):
            brick("tune", self.model, "--data", self.data, "--steps", 2, "--lr", 1e-2, "--seed", seed, "--out", self.path(f"a{seed}"))

        def aggregate(out, *clients):
            flags = [word for client in clients for word in ("--client", client)]
            return brick("aggregate", "--base", self.model, *flags, "--rule", "fedit", "--out", self.path(out), "--json").stderr
        one, two = self.path("a1"), self.path("a2")
        told = aggregate("twice", f"{one},,12", f"{two},,24", f"{one}/,,12")
        self.assertIn("more than once", told)
        self.assertEqual(aggregate("once", f"{one},,24", f"{two},,24"), "")
        ids = "5,6,7,40,41"
        once, twice = (self.logits(self.model, ids, self.path(out)) for out in ("once", "twice"))
        self.assert_close(once, twice, 1e-4)


if __name__ == "__main__":
    unittest.main()
