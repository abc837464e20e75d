"""`brick eval --tasks`: log-likelihoods beside lm-evaluation-harness's (tests/golden/make_lm_eval_golden.py), the log, resumption."""
import json
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from command_test import Case, brick, brick_json, run_until  # noqa: E402
from tiny_model import write_model  # noqa: E402

GOLDEN = Path(__file__).parent.parent / "golden" / "lm_eval"
DATA = GOLDEN / "data"
TOLERANCE = 1e-3  # of a log-likelihood: float32 on both sides, the bar
ALL = "piqa,arc_easy,arc_challenge,hellaswag,winogrande,openbookqa,boolq_closed,social_iqa,sst2,rte,wnli,mmlu"


def items_of(log):
    return [json.loads(line) for line in log.read_text().splitlines()[1:]]


class EvalTasks(Case):
    def run_tasks(self, model, log, *extra):
        return brick_json("eval", model, "--tasks", ALL, "--tasks-dir", DATA, "--compute", "f32", "--log", log, *extra)["tasks"]

    def differences(self, model, shots):
        """The largest difference of a log-likelihood; checks acc and acc_norm on the way if the model is the golden's."""
        log = self.path(f"{Path(model).name}-{shots}.jsonl")
        tasks = self.run_tasks(model, log, "--num-fewshot", shots)
        mine = {(line["task"], line.get("subject", ""), line["index"]): line for line in items_of(log)}
        worst = 0
        for run in json.loads((GOLDEN / "lm_eval.json").read_text())["runs"]:
            if run["num_fewshot"] != shots:
                continue
            for metric in ("acc", "acc_norm"):
                if model == self.model and metric in run["items"][0]:
                    want = sum(item[metric] for item in run["items"]) / len(run["items"])
                    self.assertAlmostEqual(tasks[run["task"]][metric], want, places=9, msg=run["task"])
            for item in run["items"]:
                line = mine.pop((run["task"], item["subject"], item["row"]))
                self.assertEqual(len(line["log_likelihoods"]), len(item["log_likelihoods"]))
                worst = max([worst] + [abs(a - b) for a, b in zip(line["log_likelihoods"], item["log_likelihoods"])])
        self.assertFalse(mine)
        return worst

    def test_log_likelihoods_equal_lm_eval(self):
        for shots in (0, 2):
            self.assertLess(self.differences(self.model, shots), TOLERANCE)

    def test_another_model_does_not(self):
        self.assertGreater(self.differences(write_model(self.folder / "other", seed=1), 0), TOLERANCE)

    def test_keys_limit_and_table(self):
        result = brick_json("eval", self.model, "--tasks", "mmlu,piqa", "--tasks-dir", DATA, "--limit", 2, "--num-fewshot", 1)
        self.assertEqual(set(result["tasks"]), {"mmlu", "piqa"})
        for key in "acc acc_norm stderr acc_norm_stderr n num_fewshot".split():
            self.assertIn(key, result["tasks"]["piqa"])
        self.assertEqual(result["tasks"]["mmlu"]["n"], 2)
        self.assertEqual(set(result["tasks"]["mmlu"]["subjects"]), {"number_theory", "tides"})
        table = brick("eval", self.model, "--tasks", "piqa", "--tasks-dir", DATA).stdout
        self.assertRegex(table, r"(?m)^task +items +shots +acc")
        self.assertRegex(table, r"(?m)^piqa +3 +0 +[01]\.\d{4}")

    def test_models_are_compared_by_accuracy(self):
        paths = [self.model, write_model(self.path("other"), seed=1)]
        options = ("--tasks", "mmlu,piqa", "--tasks-dir", DATA, "--limit", 2, "--num-fewshot", 2, "--compute", "f32")
        compare = ("compare", *paths, *options, "--cache", self.path("cache"))
        rows = brick_json(*compare, "--out", self.path("page.html"))["rows"]
        for row in rows:
            alone = brick_json("eval", row["name"], *options)
            self.assertEqual(row["tasks"], alone["tasks"])
            self.assertAlmostEqual(row["accuracy"], sum(task["acc"] for task in alone["tasks"].values()) / 2)
            self.assertEqual(row["questions"], "mmlu (2 questions, 2 shots), piqa (2 questions, 2 shots)")
        self.assertTrue(any("accuracy-bytes" in row["front"] for row in rows))
        self.assertIn("accuracy-bytes-0", self.path("page.html").read_text())
        self.assertEqual(brick_json(*compare)["rows"], rows)
        self.assertEqual((self.path("cache") / "metrics.jsonl").read_text().count("\n"), 2)
        self.assertEqual(brick("compare", self.model, "--tasks", "piqa", check=False).returncode, 1)

    def test_resumed_log_is_the_whole_one(self):
        whole, part = self.path("whole.jsonl"), self.path("part.jsonl")
        want = self.run_tasks(self.model, whole, "--num-fewshot", 2)
        lines = whole.read_text().splitlines(keepends=True)
        for kept in (0, 1, 7, len(lines) - 1, len(lines)):
            # A kill leaves whole lines and perhaps half of another.
            part.write_text("".join(lines[:kept]) + (lines[kept][:20] if kept < len(lines) else ""))
            self.assertEqual(self.run_tasks(self.model, part, "--num-fewshot", 2, "--resume"), want)
            self.assertEqual(part.read_text(), whole.read_text())

    def test_resumes_after_a_kill(self):
        data = self.path("data") / "piqa"
        data.mkdir(parents=True)
        rows = 400
        (data / "valid.jsonl").write_text("".join(json.dumps({"goal": f"Question {i} " + "word " * 60, "sol1": "yes", "sol2": "no"}) + "\n"
                                                  for i in range(rows)))
        (data / "valid-labels.lst").write_text("0\n1\n" * (rows // 2))
        command = ["eval", self.model, "--tasks", "piqa", "--tasks-dir", data.parent, "--compute", "f32", "--json", "--log"]
        whole, killed = self.path("whole.jsonl"), self.path("killed.jsonl")
        want = json.loads(brick(*command, whole).stdout)["tasks"]
        run_until(lambda: killed.exists() and len(killed.read_text().splitlines()) > 5, *command, killed)
        self.assertLess(len(killed.read_text().splitlines()), rows)
        self.assertEqual(json.loads(brick(*command, killed, "--resume").stdout)["tasks"], want)
        self.assertEqual(killed.read_text(), whole.read_text())

    def test_one_line_for_each_mistake(self):
        log = self.path("log.jsonl")
        common = ["eval", self.model, "--tasks", "piqa", "--tasks-dir", DATA, "--log", log]
        brick(*common)

        def refused(words, *arguments):
            done = brick(*arguments, check=False)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
            self.assertIn(words, done.stderr)

        refused("continue it with --resume", *common)
        notes = self.path("notes.jsonl")
        notes.write_text('{"mine": 1}\n')
        refused("no log that --log writes", *common[:-1], notes, "--force")
        self.assertEqual(notes.read_text(), '{"mine": 1}\n')
        brick(*common, "--force")
        refused("is of another run", "eval", write_model(self.folder / "changed", seed=3), *common[2:], "--resume")
        log.write_text(log.read_text() + '{"task": "piqa"}\n')
        refused("line 5: is no item", *common, "--resume")
        refused("there is no task \"pica\"", "eval", self.model, "--tasks", "pica", "--tasks-dir", DATA)
        refused("--tasks-dir", "eval", self.model, "--tasks", "piqa")
        refused("has no piqa/valid.jsonl", "eval", self.model, "--tasks", "piqa", "--tasks-dir", self.folder)
        lines = log.read_text().splitlines()[:2]
        item = json.loads(lines[1])
        log.write_text(lines[0] + "\n" + json.dumps({**item, "chosen": 7}) + "\n")
        refused("another answer", *common, "--resume")
        notes = self.path("notes.txt")
        notes.write_text("no log at all")
        refused("is of another run", *common[:-1], notes, "--resume")
        self.assertEqual(notes.read_text(), "no log at all")
        brick(*common, "--force")
        self.assertEqual(len(items_of(log)), 3)


if __name__ == "__main__":
    unittest.main()
