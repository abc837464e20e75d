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


if __name__ == "__main__":
    unittest.main()
