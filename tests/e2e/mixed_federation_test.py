"""Sparse and structured blocks in one federation, as users run it."""
import json
import sys
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import command_test  # noqa: E402
from command_test import brick, brick_json, simulate_killed  # noqa: E402
from structured_block import cut_block  # noqa: E402
from tiny_model import write_model  # noqa: E402

RULES = ["hete-h0-axis", "hete-h1", "hete-tau", "flexlora"]


class MixedFederation(command_test.Case):
    """A sparse client, one whose block is cut and masked, and three structured ones, one without the middle layer, one with a part
    of the residual stream."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.model = write_model(cls.folder / "deep", layers=3)
        cls.shallow = cut_block(cls.model, cls.folder / "shallow", [{"layer": 0, "kv_heads": [1], "neurons": list(range(0, 96, 3))},
                                                                   {"layer": 2, "kv_heads": [0, 1], "neurons": list(range(96))}], .5)
        cls.narrow = cut_block(cls.model, cls.folder / "narrow",
                               [{"layer": i, "kv_heads": [0, 1], "neurons": list(range(32, 96))} for i in range(3)], .25)
        cls.blocks = {"north": "sparsity = 0.5", "south": 'sparsity = 0.5\nmethod = "flap+magnitude"',
                      "east": f'block = "{cls.shallow}"', "west": f'block = "{cls.narrow}"\nrank = 4',
                      "up": 'sparsity = 0.25\nmethod = "llm-pruner"'}

    def config(self, rule, arms=(), without=()):
        path = self.path(f"{rule}.toml")
        clients = "".join(f'[[client]]\nname = "{name}"\ndata = "{self.data}"\ntest = "{self.test}"\n{block}\n'
                          for name, block in self.blocks.items() if name not in without)
        path.write_text(f'''model = "{self.model}"
rounds = 2
[blocks]
method = "wanda"
structured_sparsity = 0.3
width_multiple = 16
mode = "channel"
calibration = "{self.text}"
samples = 4
length = 64
[tune]
masked = true
rank = 8
steps = 3
batch_tokens = 256
lr = 3e-3
[aggregate]
rule = "{rule}"
{clients}[evaluate]
text = "{self.text}"
length = 64
samples = 2
arms = {json.dumps(list(arms))}
''')
        return path

    def test_each_rule_takes_all_five(self):
        for rule in RULES:
            run = self.path(rule)
            summary = brick_json("simulate", self.config(rule), "--out", run)
            self.assertEqual([c["name"] for c in summary["final"]["clients"]], list(self.blocks))
            self.assertEqual(summary["final"]["llm"]["loss_by_round"][-1], summary["final"]["arms"]["lego"]["loss"])
            aggregated = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()
                          if '"event":"aggregate"' in line]
            self.assertEqual([(e["clients"], e["rejected"], e["rank"]) for e in aggregated], [(5, [], 8)] * 2)
            # The same by hand.
            clients = [argument for name, block in (("north", run / "blocks" / "50"), ("south", run / "blocks" / "flap+magnitude-50"),
                                                    ("east", self.shallow), ("west", self.narrow),
                                                    ("up", run / "blocks" / "llm-pruner-25"))
                       for argument in ("--client", f"{run / 'rounds' / '001' / 'clients' / name},{block},24")]
            by_hand = self.path(f"{rule}-by-hand")
            brick("aggregate", "--base", self.model, "--global", run / "rounds" / "000" / "global", *clients, "--rule", rule, "--tau",
                  "0.1", "--out", by_hand)
            self.assertEqual((by_hand / "adapter_model.safetensors").read_bytes(),
                             (run / "rounds" / "001" / "global" / "adapter_model.safetensors").read_bytes())
            # A structured block takes its part of the global adapter.
            events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
            evaluated = [e for e in events if e["event"] == "evaluate"][-1]["clients"]
            for name, block in (("east", self.shallow), ("up", run / "blocks" / "llm-pruner-25")):
                loss = brick_json("eval", block, "--data", self.test, "--adapter", run / "rounds" / "002" / "global")["nll"]
                self.assertAlmostEqual(loss, evaluated[name]["block"], places=5)

    def test_killed_and_resumed_ends_in_the_same_bits(self):
        config = self.config("hete-tau", arms=["local", "fedit-dense"])
        started = time.time()
        brick("simulate", config, "--out", self.path("whole"))
        length = time.time() - started
        simulate_killed(config, self.path("killed"), length, times=6, seed=5)
        self.assertEqual(command_test.Simulation.results(self.path("killed")), command_test.Simulation.results(self.path("whole")))

    def test_refusals_name_what_is_wrong(self):
        for client, without in (("south", ()), ("up", ("south",)), ("east", ("south", "up"))):
            config = self.config("fedit", without=without)
            config.write_text(config.read_text().replace("\nrank = 4", ""))  # which fedit refuses, too
            refused = brick("simulate", config, "--out", self.path(f"for-{client}"), check=False)
            self.assertEqual(refused.returncode, 1)
            self.assertIn(f"client {client}", refused.stderr)
            self.assertIn("structured", refused.stderr)
        for block in (self.shallow, self.narrow):
            brick("tune", block, "--data", self.data, "--steps", 1, "--out", self.path(block.name))
        result = brick_json("aggregate", "--base", self.model, "--client", f"{self.path('shallow')},{self.shallow},24", "--client",
                            f"{self.path('narrow')},{self.shallow},24", "--client", f"{self.path('narrow')},,24", "--rule",
                            "flexlora", "--out", self.path("g"))
        self.assertEqual(result["clients"], 1)
        self.assertEqual(["another structured block" in r["reason"] for r in result["rejected"]], [True, True])
        foreign = brick("eval", self.narrow, "--data", self.test, "--adapter", self.path("shallow"), check=False)
        self.assertEqual(foreign.returncode, 1)
        self.assertIn("structured block with cut", foreign.stderr)


if __name__ == "__main__":
    unittest.main()
