"""The tables of bench/README.md are what bench/results/ says."""

import pathlib
import subprocess
import sys
import unittest

BENCH = pathlib.Path(__file__).resolve().parents[2] / "bench"


class BenchReport(unittest.TestCase):
    def check(self):
        return subprocess.run([sys.executable, BENCH / "report.py", "--check"], capture_output=True, text=True)

    def test_tables_are_what_the_results_say(self):
        done = self.check()
        self.assertEqual(done.returncode, 0, done.stderr)


if __name__ == "__main__":
    unittest.main()
