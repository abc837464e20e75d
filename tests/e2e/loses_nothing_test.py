"""What a slip could take away stays, and what is damaged is told before the work."""
import json
import shutil
import struct
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from command_test import Case, brick, run_until, tree_bytes  # noqa: E402

UP = "model.layers.0.mlp.up_proj.weight"


def poke(safetensors, tensor, value):
    """Overwrites the first value of a float32 tensor."""
    raw = bytearray(safetensors.read_bytes())
    header = 8 + struct.unpack_from("<Q", raw)[0]
    begin = header + json.loads(raw[8:header])[tensor]["data_offsets"][0]
    struct.pack_into("<f", raw, begin, value)
    safetensors.write_bytes(raw)


class LosesNothing(Case):
    def refused(self, mention, *arguments, status=1):
        result = brick(*arguments, check=False)
        self.assertEqual(result.returncode, status, result.stderr)
        self.assertIn(mention, result.stderr)
        if status == 1:
            self.assertEqual(result.stderr.strip().count("\n"), 0, result.stderr)

    def copy(self, name):
        return Path(shutil.copytree(self.model, self.path(name)))

    def tune(self, out, *more):
        return ("tune", self.model, "--data", self.data, "--steps", 1, "--out", self.path(out), *more)

    def client(self):
        out = self.path("client")
        if not out.exists():
            brick(*self.tune("client"))
        return out

    def test_a_log_replaces_only_logs(self):
        model, text = self.copy("model"), self.path("text.txt")
        config = model / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text())))  # one line without its end, as json.dump leaves it
        text.write_text("words " * 4000)
        (self.path("record.jsonl")).write_text(self.data.read_text().splitlines()[0])
        for file in (config, text, self.path("record.jsonl")):
            before = file.read_bytes()
            for flag in ("--force", "--resume"):
                self.refused("is no log that --log writes", *self.tune("out", flag, "--log", file))
                self.assertEqual(file.read_bytes(), before)
        torn = self.path("torn.jsonl")
        torn.write_text('{"grad_norm":0.5,"lo')
        brick(*self.tune("out", "--force", "--log", torn))
        self.assertEqual(json.loads(torn.read_text())["step"], 1)

    def test_only_a_checkpoint_is_removed(self):
        other = Path(f"{self.path('out')}.checkpoint")
        shutil.copytree(self.model, other)
        before = tree_bytes(other)
        for flag in ("--resume", "--force"):
            self.refused("is no checkpoint", *self.tune("out", flag))
        self.assertEqual(tree_bytes(other), before)
        shutil.rmtree(other)
        other.mkdir()
        (other / "state.safetensors").write_bytes(b"left of a kill")
        brick(*self.tune("out", "--force"))
        self.assertFalse(other.exists())

    def test_an_output_holds_no_input(self):
        folder = self.path("all")
        folder.mkdir()
        shutil.copytree(self.model, folder / "model")
        shutil.copy(self.data, folder / "data.jsonl")
        brick("tune", self.model, "--data", self.data, "--steps", 1, "--out", folder / "adapter")
        before = tree_bytes(folder)
        model, data, adapter = folder / "model", folder / "data.jsonl", folder / "adapter"
        for command in (("tune", model, "--data", self.data, "--out", folder), ("tune", self.model, "--data", data, "--out", folder),
                        ("tune", model, "--data", self.data, "--out", model),
                        ("prune", model, "--method", "magnitude", "--sparsity", .5, "--out", folder),
                        ("merge", self.model, adapter, "--out", adapter),
                        ("recover", self.model, "--teacher", model, "--data", self.data, "--out", model),
                        ("aggregate", "--base", self.model, "--client", f"{adapter},,5", "--rule", "fedit", "--out", adapter),
                        ("shrink", model, "--method", "magnitude", "--sparsity", .5, "--out", model),
                        ("export", data, "--format", "gguf", "--dtype", "f16", "--out", data)):
            self.refused("lies where the output", *command, "--force")
            self.assertEqual(tree_bytes(folder), before, command)
        shutil.copy(model / "tokenizer.json", folder / "tokenizer.json")
        before = tree_bytes(folder)
        self.refused("lies where the output", "tune", self.model, "--data", self.data, "--tokenizer", folder / "tokenizer.json", "--out",
                     folder, "--force")
        (folder / "federation.toml").write_text(f'model = "{self.model}"\n[[client]]\nname = "a"\ndata = "data.jsonl"\n')
        for flags in (("--force",), ("--force", "--resume")):
            self.refused("lies where the output", "simulate", folder / "federation.toml", "--out", folder, *flags)
        (folder / "federation.toml").unlink()
        self.assertEqual(tree_bytes(folder), before)
        for same in (adapter, f"{adapter}/"):  # what is continued may be replaced by what it becomes
            brick("tune", self.model, "--data", self.data, "--steps", 1, "--init", same, "--out", adapter, "--force")
            brick("aggregate", "--base", self.model, "--global", same, "--client", f"{self.client()},,5", "--rule", "fedit", "--out", adapter,
                  "--force")

    def test_a_cache_is_not_where_the_output_will_be(self):
        self.refused("the cache", "recover", self.model, "--teacher", self.model, "--data", self.data, "--steps", 1, "--cache",
                     self.path("out") / "cache", "--out", self.path("out"))

    def test_a_teachers_folder_that_was_there_stays(self):
        recover = ("recover", self.model, "--teacher", self.model, "--data", self.data, "--steps", 1)
        kept = Path(f"{self.path('second')}.teacher")
        brick(*recover, "--out", self.path("first"), "--cache", kept)
        brick(*recover, "--out", self.path("second"))
        self.assertTrue((kept / "teacher.json").exists())
        brick(*recover, "--out", self.path("third"))
        self.assertFalse(Path(f"{self.path('third')}.teacher").exists())

    def test_resume_knows_the_weights(self):
        model = self.copy("model")
        command = ("tune", model, "--data", self.data, "--steps", 400, "--save-every", 1, "--out", self.path("out"))
        run_until(Path(f"{self.path('out')}.checkpoint").exists, *command)
        poke(model / "model.safetensors", UP, .25)
        self.refused("belongs to another run", *command, "--resume", "--json")

    def test_damaged_weights_are_told(self):
        model = self.copy("model")
        poke(model / "model.safetensors", UP, float("nan"))
        self.refused("not finite", "logits", model, "--ids", "5,6", "--out", self.path("logits.npy"))
        self.assertFalse(self.path("logits.npy").exists())
        self.refused("not finite", "info", model, "--scan")
        self.refused("are damaged", "tune", model, "--data", self.data, "--steps", 1, "--out", self.path("adapter"), "--json")
        poke(model / "model.safetensors", UP, 1e30)
        self.refused("too large for q4_1", "prune", model, "--method", "magnitude", "--sparsity", .5, "--values", "q4", "--out",
                     self.path("block"))

    def test_what_is_senseless_is_refused_before_the_work(self):
        prune = ("prune", self.model, "--method", "magnitude", "--out", self.path("block"))
        self.refused("an empty target", *prune, "--target", "", status=2)
        self.refused("expected one like", *prune, "--target", "6 0 % parameters")
        self.refused("given twice", "blocks", self.model, "--method", "magnitude", "--sparsities", "0.5,0.5", "--out", self.path("blocks"))
        self.refused("excludes", "recover", self.model, "--data", self.data, "--objective", "cross-entropy", "--minutes", .1, "--steps",
                     5, "--out", self.path("recovered"), status=2)
        self.refused("are of train", "bench", self.model, "--what", "decode", "--masked")
        self.refused("at most", "bench", self.model, "--what", "decode", "--decode-tokens", 2**63 - 1)
        self.refused("name is too long", "prune", self.model, "--method", "magnitude", "--sparsity", .5, "--out", self.path("x" * 300))
        self.refused("control characters", "export", self.model, "--format", "gguf", "--dtype", "f16", "--modelfile", "--out",
                     self.path("new\nline.gguf"))

    def test_a_model_is_compared_once(self):
        self.refused("is named twice", "compare", self.model, f"{self.model}/")

    def test_a_run_without_results_is_no_run(self):
        for i, summary in enumerate(("{}", "[]", '{"rows": 3}')):
            run = self.path(f"run-{i}")
            run.mkdir()
            (run / "metrics.jsonl").write_text("")
            (run / "summary.json").write_text(summary)
            self.refused("no summary that a run writes", "compare", run)

    def test_numbers_beyond_all_bounds_are_told_in_our_words(self):
        record = self.path("record.jsonl")
        record.write_text('{"instruction": "i", "response": "r", "id": 1e999}\n')
        result = brick("eval", self.model, "--data", record, check=False)
        self.assertEqual(result.returncode, 1)
        self.assertNotIn("json.exception", result.stderr)
        self.assertIn("number overflow", result.stderr)


if __name__ == "__main__":
    unittest.main()
