#!/usr/bin/env python3
"""A federation of the demo's four offices in which two have sparse blocks and two structured ones, once with each rule that
takes both: held-out losses of the whole model and of the blocks before and after. Writes
experiments/results/mixed_federation.json and prints a table.

    experiments/mixed_federation.py model.gguf --brick build/brick
    experiments/mixed_federation.py model.gguf --brick build/brick --structured BLOCK BLOCK   # blocks made elsewhere

Blocks are cut once, by --sparse-method and --structured-method; tests/e2e/structured_block.py cuts structured ones by place
where no pruner is at hand.
"""

import argparse
import json
import pathlib
import sys
import tempfile

from brick_command import brick

HERE = pathlib.Path(__file__).resolve().parent
OFFICES = HERE.parent / "examples" / "offices"
RULES = ["hete-h0-axis", "hete-h1", "hete-tau", "flexlora"]
SPARSE, STRUCTURED = {"clinic": 0.5, "law": 0.75}, {"it": 0.2, "permits": 0.4}


def make_blocks(args: argparse.Namespace, folder: pathlib.Path) -> dict[str, pathlib.Path]:
    blocks = dict(zip(STRUCTURED, (block.resolve() for block in args.structured)))
    wanted = {office: (args.sparse_method, share) for office, share in SPARSE.items()}
    wanted |= {office: (args.structured_method, share) for office, share in STRUCTURED.items() if office not in blocks}
    for office, (method, share) in wanted.items():
        blocks[office] = folder / office
        brick(args, "prune", args.model, "--method", method, "--sparsity", share, "--calibration", OFFICES / "general_calibration.txt",
              "--samples", 8, "--length", 512, "--out", blocks[office])
    return blocks


def write_config(args: argparse.Namespace, folder: pathlib.Path, blocks: dict, rule: str) -> pathlib.Path:
    clients = "".join(f'[[client]]\nname = "{office}"\ndata = "{OFFICES / office}.jsonl"\ntest = "{OFFICES / office}_test.jsonl"\n'
                      f'block = "{blocks[office]}"\n' for office in [*SPARSE, *STRUCTURED])
    config = folder / f"{rule}.toml"
    config.write_text(f"""title = "Two sparse and two structured blocks, {rule}"
model = "{args.model.resolve()}"
rounds = {args.rounds}
[tune]
rank = 8
masked = true
lr = 4e-3
steps = {args.steps}
batch_tokens = 512
length = 384
[aggregate]
rule = "{rule}"
{clients}[evaluate]
every = {args.rounds}
text = "{OFFICES / 'general_test.txt'}"
samples = 2
""")
    return config


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--brick", default="build/brick")
    parser.add_argument("--sparse-method", default="sparsegpt")
    parser.add_argument("--structured-method", default="flap")
    parser.add_argument("--structured", type=pathlib.Path, nargs=len(STRUCTURED), default=[], metavar="BLOCK")
    parser.add_argument("--rules", default=",".join(RULES))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", default="2")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results" / "mixed_federation.json")
    args = parser.parse_args()
    machine = brick(args, "cpu")
    results = {"cpu": machine["model"], "isa": machine["isa"], "rounds": args.rounds, "steps": args.steps, "blocks": {}, "rules": {}}
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        blocks = make_blocks(args, folder)
        for office, block in blocks.items():
            info = brick(args, "info", block)
            results["blocks"][office] = {key: info[key] for key in ("method", "sparsity", "nonzeros", "layers") if key in info}
        for rule in args.rules.split(","):
            run = folder / rule
            summary = brick(args, "simulate", write_config(args, folder, blocks, rule), "--out", run)
            events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
            rounds = [e for e in events if e["event"] == "aggregate"]
            if any(e["clients"] != len(blocks) for e in rounds):
                sys.exit(f"{rule}: clients were rejected: {[e['rejected'] for e in rounds]}")
            final, losses = summary["final"], {c["name"]: c["loss"] for c in summary["final"]["clients"]}
            results["rules"][rule] = {
                "llm_loss": [final["llm"]["loss_by_round"][i] for i in (0, -1)],
                "llm_perplexity": [final["llm"]["perplexity_by_round"][i] for i in (0, -1)],
                "block_loss": {name: [loss["block_untuned"], loss["block_lego"]] for name, loss in losses.items()},
                "aggregate_seconds": [e["seconds"] for e in rounds]}
            print(f"{rule}: done", flush=True)
            args.out.write_text(json.dumps(results, indent=1) + "\n")

    columns = ["whole model", "perplexity", *(f"block of {office}" for office in blocks)]
    print("| rule | " + " | ".join(columns) + " |\n| --- |" + " --- |" * len(columns))
    rows = {}
    for rule, entry in results["rules"].items():
        pairs = [entry["llm_loss"], entry["llm_perplexity"], *(entry["block_loss"][office] for office in blocks)]
        rows.setdefault("untuned", [before for before, _ in pairs])
        rows[rule] = [after for _, after in pairs]
    for name, row in rows.items():
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for value in row) + " |")


if __name__ == "__main__":
    main()
