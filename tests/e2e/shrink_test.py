"""`brick shrink`: the whole chain beside its four commands in turn, resumption, refusals."""
import json
import sys
import tomllib
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from command_test import Case, brick, brick_json, run_until, tree_bytes  # noqa: E402
from tiny_model import write_text  # noqa: E402

STAGES = ["prune", "measure dense", "measure block", "recover", "measure recovered", "export f16", "export q8_0"]


class Shrink(Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.unseen = write_text(cls.folder / "unseen.txt", kilobytes=2, seed=3)

    def shrink(self, out, *more):
        return ("shrink", self.model, "--sparsity", .5, "--calibration", self.text, "--samples", 4, "--length", 256, "--recover",
                self.text, "--data", self.data, "--steps", 60, "--eval", self.unseen, "--eval-samples", 4, "--gguf", "f16,q8_0",
                "--compute", "f32", "--out", self.path(out), *more)

    def results(self, out):
        return tree_bytes(self.path(out), leave_out=("metrics.jsonl", "summary.json"))  # those have times

    def refused(self, mention, *arguments, status=1):
        result = brick(*arguments, check=False)
        self.assertEqual(result.returncode, status, result.stderr)
        if status == 1:
            self.assertEqual(result.stderr.strip().count("\n"), 0, result.stderr)
        self.assertIn(mention, result.stderr)

    def test_is_the_four_commands_in_turn(self):
        made, hand = brick_json(*self.shrink("out")), self.path("hand")
        common = ("--length", 256, "--compute", "f32")
        brick("prune", self.model, "--method", "sparsegpt", "--sparsity", .5, "--calibration", self.text, "--samples", 4, *common,
              "--out", hand / "block")
        brick("recover", hand / "block", "--teacher", self.model, "--text", self.text, "--data", self.data, "--steps", 60, *common,
              "--out", hand / "recovered")
        for dtype in ("f16", "q8_0"):
            brick("export", hand / "recovered", "--format", "gguf", "--dtype", dtype, "--out", hand / f"model-{dtype}.gguf")
        files = self.results("out")
        self.assertEqual(tomllib.loads(files.pop("config.toml").decode())["sparsity"], .5)
        files.pop("identity.json")
        self.assertEqual(files, tree_bytes(hand))

        rows = {row["name"]: row for row in made["rows"]}
        self.assertEqual(list(rows), ["dense", "block", "recovered", "model-f16.gguf", "model-q8_0.gguf"])
        for name, path in (("dense", self.model), ("block", hand / "block"), ("recovered", hand / "recovered")):
            score = brick_json("eval", path, "--text", self.unseen, "--samples", 4, *common)
            self.assertEqual(rows[name]["perplexity"], score["perplexity"])
            info = brick_json("info", path)
            self.assertEqual((rows[name]["nonzeros"], rows[name]["parameters"]), (info["nonzeros"], info["parameters"]))
            self.assertEqual(rows[name]["bytes"], sum(f.stat().st_size for f in Path(path).iterdir()))
        self.assertLess(rows["recovered"]["perplexity"], rows["block"]["perplexity"])
        self.assertEqual((rows["dense"]["sparsity"], rows["block"]["sparsity"], rows["recovered"]["sparsity"]), (0, .5, .5))
        self.assertEqual(rows["model-q8_0.gguf"]["bytes"], len(files["model-q8_0.gguf"]))
        self.assertEqual([stage["stage"] for stage in made["stages"]], STAGES)
        self.assertEqual(made["recover"]["steps"], 60)

        summary = (self.path("out") / "summary.json").read_bytes()
        self.assertEqual(json.loads(summary), {key: value for key, value in made.items() if key != "table"})
        again = brick(*self.shrink("out", "--resume"))
        self.assertEqual((again.stdout, again.stderr), (made["table"], ""))
        self.assertEqual((self.path("out") / "summary.json").read_bytes(), summary)
        compared = brick_json("compare", self.path("out"))["rows"]
        self.assertEqual([row["name"] for row in compared], [f"{self.path('out')}: {name}" for name in rows])
        self.assertEqual(compared[2]["perplexity"], rows["recovered"]["perplexity"])

    def test_resumes_after_kills_with_the_same_bits(self):
        command = self.shrink("killed", "--resume")
        out = self.path("killed")
        metrics = out / "metrics.jsonl"
        run_until(lambda: metrics.exists() and metrics.read_text(), *command)  # between stages
        block = (out / "block").stat()
        run_until((out / "recovered.checkpoint").exists, *command)  # in one
        brick(*command)
        self.assertEqual((out / "block").stat().st_ino, block.st_ino)
        self.assertEqual([json.loads(line)["event"] for line in metrics.read_text().splitlines()], STAGES)
        brick(*self.shrink("whole"))
        self.assertEqual(self.results("killed"), self.results("whole"))
        self.assertEqual(sorted(p.name for p in out.iterdir()), sorted(p.name for p in self.path("whole").iterdir()))

    def test_prunes_to_a_target_and_stops_there(self):
        made = brick_json("shrink", self.model, "--method", "magnitude", "--target", "60% parameters", "--out", self.path("out"))
        self.assertEqual([row["name"] for row in made["rows"]], ["dense", "block"])
        self.assertEqual(made["prune"]["target"]["asked"], "60% parameters")
        self.assertLessEqual(made["rows"][1]["nonzeros"] / made["rows"][0]["nonzeros"], .6)
        self.assertNotIn("perplexity", made["rows"][1])

    def test_takes_a_pattern(self):
        for amount, pattern in ((("--sparsity", .5), "2:4"), (("--target", "75% parameters"), "auto")):
            made = brick_json("shrink", self.model, "--method", "magnitude", *amount, "--pattern", pattern, "--out", self.path(pattern))
            if pattern == "2:4":
                self.assertEqual(brick_json("info", self.path(pattern) / "block")["block"]["pattern"], "2:4")
            else:
                self.assertIn("(2:4: ", made["prune"]["target"]["reason"])

    def test_cuts_before_it_masks(self):
        mixed = ("--method", "shortgpt+wanda", "--structured-sparsity", .5, "--sparsity", .5, "--calibration", self.text, "--samples", 4,
                 "--length", 64, "--compute", "f32")
        brick("shrink", self.model, *mixed, "--out", self.path("out"))
        brick("prune", self.model, *mixed, "--out", self.path("hand"))
        self.assertEqual(tree_bytes(self.path("out") / "block"), tree_bytes(self.path("hand")))
        self.assertEqual(tomllib.loads((self.path("out") / "config.toml").read_text())["structured_sparsity"], .5)
        self.refused("has one sparsity", "shrink", self.model, "--method", "magnitude", "--sparsity", .5, "--structured-sparsity", .2,
                     "--out", self.path("none"))

    def test_a_recovered_block_keeps_its_values(self):
        made = brick_json("shrink", self.model, "--sparsity", .5, "--values", "q4", "--calibration", self.text, "--samples", 4,
                          "--length", 64, "--recover", self.text, "--steps", 1, "--out", self.path("out"))
        block, recovered = made["rows"][1:]
        self.assertLess(recovered["bytes"], 1.1 * block["bytes"])

    def test_mistakes_leave_nothing(self):
        out = ("--out", self.path("x"))
        model = ("shrink", self.model, *out)
        self.refused("", *model, status=2)
        self.refused("", *model, "--sparsity", .5, "--target", "40 MB", status=2)
        self.refused("", *model, "--sparsity", .5, "--recover", self.text, "--steps", 2, "--minutes", 1, status=2)
        half = (*model, "--method", "magnitude", "--sparsity", .5)
        self.refused("--recover", *half, "--steps", 2)
        self.refused("q5_0", *half, "--gguf", "q5_0")
        self.refused("absent.txt", *half, "--eval", self.folder / "absent.txt")
        self.refused("calibration", *model, "--sparsity", .5)
        self.refused("nosuch", *model, "--method", "nosuch", "--sparsity", .5)
        self.refused("1.5", *model, "--method", "magnitude", "--sparsity", 1.5)
        bad = self.path("bad.jsonl")
        bad.write_text('{"instruction": "a", "response": "b"}\n{"instruction": 3}\n')
        self.refused("line 2", *half, "--data", bad)
        self.assertFalse(self.path("x").exists())

    def test_what_is_wrong_leaves_the_older_run(self):
        short = self.path("short.txt")
        short.write_text("too short")
        out, half = self.path("x"), ("--method", "magnitude", "--sparsity", .5)
        brick("shrink", self.model, *half, "--out", out)
        before = tree_bytes(out)
        for mention, wrong in (("1.5", ("--method", "magnitude", "--sparsity", 1.5)), ("nosuch", ("--method", "nosuch", "--sparsity", .5)),
                               ("calibration text has 9", ("--method", "wanda", "--sparsity", .5, "--calibration", short)),
                               ("--protect-first", ("--method", "llm-pruner", "--sparsity", .5, "--calibration", self.text, "--samples", 1,
                                                   "--length", 64)),
                               ("the nearest is", ("--method", "magnitude", "--target", "1 kB")), ("int3", (*half, "--values", "int3")),
                               ("too few", (*half, "--eval", short)), ("too few", (*half, "--recover", short)),
                               ("length = 1", (*half, "--data", self.data, "--length", 1))):
            self.refused(mention, "shrink", self.model, *wrong, "--out", out, "--force")
        self.assertEqual(tree_bytes(out), before)

    def test_a_failed_stage_leaves_the_finished_ones(self):
        short = self.path("short.txt")
        short.write_text("too short")
        failing = ("shrink", self.model, "--method", "magnitude", "--sparsity", .5, "--recover", short, "--json", "--out",
                   self.path("out"))
        self.refused("recover: ", *failing)
        block = tree_bytes(self.path("out") / "block")
        self.assertTrue(block)
        self.assertFalse((self.path("out") / "summary.json").exists())
        self.refused("--force", *failing)
        self.refused("another configuration", *failing, "--seed", 1, "--resume")
        self.refused("recover: ", *failing, "--resume")
        self.assertEqual(tree_bytes(self.path("out") / "block"), block)


if __name__ == "__main__":
    unittest.main()
