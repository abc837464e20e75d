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


if __name__ == "__main__":
    unittest.main()
