"""The tables of bench/README.md are what bench/results/ says; an interrupted comparison goes on where it was."""

import pathlib
import subprocess
import sys
import tempfile
import unittest

BENCH = pathlib.Path(__file__).resolve().parents[2] / "bench"


class BenchReport(unittest.TestCase):
    def check(self):
        return subprocess.run([sys.executable, BENCH / "report.py", "--check"], capture_output=True, text=True)

    def test_tables_are_what_the_results_say(self):
        done = self.check()
        self.assertEqual(done.returncode, 0, done.stderr)


class BenchJournal(unittest.TestCase):
    MEASURE = """
import os, pathlib, sys
sys.path.insert(0, sys.argv.pop(1))
import compare
compare.WORK = pathlib.Path(sys.argv.pop(1))
args = compare.parse(compare.make_parser("a comparison"), "journal")
print(args.journal.once("figure", lambda: {"process": os.getpid()})["process"])
"""

    def test_what_is_measured_is_not_measured_again_but_for_another_build(self):
        with tempfile.TemporaryDirectory() as temp:
            brick = pathlib.Path(temp) / "brick"

            def build(line: str) -> None:
                brick.write_text(f"#!/bin/sh\n# {line}\necho '{{\"model\": \"a CPU\", \"isa\": \"avx2\"}}'\n")
                brick.chmod(0o755)

            def measure() -> str:
                return subprocess.run([sys.executable, "-c", self.MEASURE, BENCH, temp, "model.gguf", "--brick", brick],
                                      capture_output=True, text=True, check=True).stdout

            build("one")
            first = measure()
            self.assertEqual(measure(), first)
            build("another")
            self.assertNotEqual(measure(), first)


if __name__ == "__main__":
    unittest.main()
