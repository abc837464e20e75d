"""LoRA training of brick beside PEFT on real records of unequal length, on one machine: runs all in turn and writes
bench/results/dolly-<machine>.json.

    python bench/compare_dolly.py model.gguf --python .venv/bin/python --data dolly15k/local_training_0.json \\
        --test dolly15k/global_test.json

--python is one with bench/peers/requirements.txt. Both train one epoch on the same --records records of --data, drawn
at random with --seed, cut at --length tokens, with the response's loss in the model's chat template, rank 8 on all
linear layers, a constant rate. Where their numbers of tokens differ, it fails. brick packs --batch-tokens tokens a
step (default memory); PEFT takes padded batches of --batch or one record a step (bench/peers/peft_dolly.py), so
that the numbers of steps differ; it is tried first on its first batches in each arithmetic, with and without
torch.compile, and the fastest of each way counts. Sorting by length, which leaves hardly any padding in a large data
set, can't show that on so few records: compare_training.py, where nothing is padded, is that case.

Timed on both sides are the steps alone: no start, loading, tokenising. PEFT has run one batch before, brick's
first step counts as it is. Rates count tokens of records, never padding. PEFT's memory includes Python's and torch's
libraries, that of brick its whole process. Quality: the loss on --test with the first turn's adapters, all scored by
brick in float32, beside the untuned model's.
"""

import argparse
import json
import pathlib
import random
import tempfile

import compare

TIMED = "the steps of one epoch, without start, loading, tokenising; rates count tokens of records, never padding"
ARMS = {"padded": "PEFT, padded batches", "single": "PEFT, one record a step"}
TRIED_BATCHES = {"padded": 1, "single": 4}


def read_records(path: str) -> list[dict]:
    text = pathlib.Path(path).read_text(encoding="utf-8")
    return json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines() if line]


def draw_records(args: argparse.Namespace, out: str) -> None:
    records = read_records(args.data)
    if len(records) < args.records:
        raise SystemExit(f"{args.data}: {len(records)} records, --records wants {args.records}")
    drawn = random.Random(args.seed).sample(records, args.records)
    pathlib.Path(out).write_text("".join(json.dumps(record) + "\n" for record in drawn), encoding="utf-8")


def run_brick(args: argparse.Namespace, records: str, dtype: str, adapter: str, temp: pathlib.Path) -> dict:
    log = temp / "log.jsonl"
    made = compare.run_json(args, [
        args.brick, "tune", args.model, "--data", records, "--out", adapter, "--force", "--rank", args.rank, "--alpha",
        2 * args.rank, "--lr", args.lr, "--epochs", 1, "--batch-tokens", args.batch_tokens, "--length", args.length,
        "--schedule", "constant", "--warmup", 0, "--clip", 0, "--loss", "response", "--compute",
        compare.COMPUTE[dtype], "--threads", args.threads, "--log", log, "--json"])
    seconds = sum(json.loads(line)["seconds"] for line in log.read_text().splitlines())
    keys = ["steps", "tokens", "supervised_tokens", "loss_first", "loss_last", "peak_rss_mb", "compute"]
    return {"tokens_per_second": made["tokens"] / seconds, "seconds": seconds} | {key: made[key] for key in keys}


def run_peft(args: argparse.Namespace, folder: str, records: str, arm: str, setting: dict, adapter: str | None,
             batches: int = 0) -> dict:
    made = compare.run_json(args, [
        args.python, compare.PEERS / "peft_dolly.py", "--model", folder, "--records", records, "--batching", arm,
        "--batch", args.batch, "--length", args.length, "--rank", args.rank, "--lr", args.lr, "--dtype", setting["dtype"],
        "--threads", args.threads, "--batches", batches] + (["--compile"] if setting["compile"] else [])
        + (["--score", "--save", adapter] if adapter else []))
    del made["process_seconds"], made["process_peak_rss_mb"]
    return made


def score(args: argparse.Namespace, data: str, adapter: str | None) -> float:
    return compare.run_json(args, [args.brick, "eval", args.model, "--data", data, "--length", args.length, "--compute",
                                   "f32", "--threads", args.threads, "--json"]
                            + (["--adapter", adapter] if adapter else []))["nll"]


def compare_all(args: argparse.Namespace, folder: str, records: str, temp: pathlib.Path) -> tuple[dict, dict, dict]:
    """PEFT's fastest setting of each way, what was tried, and the runs of all."""
    def try_arm(arm: str, dtypes: list[str], compiled: bool) -> list[dict]:
        return compare.choose(args, ARMS[arm], [{"dtype": dtype, "compile": compiled} for dtype in dtypes],
                              lambda s: run_peft(args, folder, records, arm, s, None, TRIED_BATCHES[arm]))

    tried = {}
    for arm in args.arms:
        eager = try_arm(arm, args.dtypes, False)
        tried[arm] = eager + try_arm(arm, compare.worth_compiling(eager), True)
    best = {arm: compare.fastest(tried[arm]) for arm in args.arms}
    dtype = compare.brick_dtypes(args)[-1]

    def brick(turn: int) -> dict:
        run = run_brick(args, records, dtype, str(temp / "brick"), temp)
        return run | ({"test_loss": score(args, args.test, str(temp / "brick"))} if turn == 0 else {})

    def peft(arm: str):
        def run_arm(turn: int) -> dict:
            adapter = str(temp / arm) if turn == 0 else None
            run = run_peft(args, folder, records, arm, best[arm], adapter)
            return run | ({"test_loss": score(args, args.test, adapter)} if adapter else {})
        return run_arm

    runs = compare.in_turn(args, "dolly", {"brick": brick} | {arm: peft(arm) for arm in args.arms},
                           lambda run: f"{run['tokens_per_second']:.1f} tokens/s")
    for key in ("tokens", "supervised_tokens"):
        if len(counts := {run[key] for made in runs.values() for run in made}) > 1:
            raise SystemExit(f"{key} differ: {sorted(counts)}; the speeds can't be compared")
    return best, tried, runs


def main() -> None:
    parser = compare.make_parser(__doc__, "PEFT", folder=True)
    parser.add_argument("--data", required=True, help="records: JSONL or a JSON array")
    parser.add_argument("--test", required=True, help="records that the tuned models are scored on")
    parser.add_argument("--records", type=int, default=32, help="how many of --data are trained on")
    parser.add_argument("--seed", type=int, default=0, help="of which records")
    parser.add_argument("--arms", default="padded,single", help="PEFT's ways, separated by commas")
    parser.add_argument("--batch", type=int, default=8, help="PEFT: records of a padded batch")
    parser.add_argument("--batch-tokens", type=int, default=1024, help="brick: most tokens of a packed batch")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rank", type=int, default=8, help="alpha is twice that")
    parser.add_argument("--lr", type=float, default=3e-4)
    args = compare.parse(parser, "dolly", smoke={"records": 4, "batch": 2, "length": 128})
    args.arms = args.arms.split(",")
    if unknown := set(args.arms) - set(ARMS):
        parser.error(f"--arms: {', '.join(sorted(unknown))}: expected {', '.join(ARMS)}")
    with compare.hf_folder(args) as folder, tempfile.TemporaryDirectory() as temp:
        records = str(pathlib.Path(temp) / "records.jsonl")
        draw_records(args, records)
        best, tried, runs = compare_all(args, folder, records, pathlib.Path(temp))
        untuned = args.journal.once("untuned", lambda: {"records": score(args, records, None),
                                                        "test": score(args, args.test, None)})
    ours = runs["brick"]
    for run in (run for made in runs.values() for run in made):
        computed = run["tokens"] + run.get("padding_tokens", 0)
        run["padding"] = f"{1 - run['tokens'] / computed:.0%}"
    arms = {}
    for name, made in runs.items():
        title = (f"brick, packed, {ours[0]['compute']}" if name == "brick" else
                 f"{ARMS[name]}, {best[name]['dtype']}{', compiled' if best[name]['compile'] else ''}")
        arms[name] = compare.arm(title, made, {"useful tokens/s": "tokens_per_second", "peak MB": "peak_rss_mb"},
                                 {"steps": "steps", "padding": "padding", "loss, first step": "loss_first",
                                  "loss, last step": "loss_last", "loss on the test records": "test_loss"})
    ratios = {}
    for name in args.arms:
        ratios[name] = compare.ratio(compare.values(ours, "tokens_per_second"), compare.values(runs[name], "tokens_per_second"))
        ratios[f"{name}_memory"] = compare.ratio(compare.values(ours, "peak_rss_mb"), compare.values(runs[name], "peak_rss_mb"))
    note = (f"{args.records} records of {ours[0]['tokens']} tokens, {ours[0]['supervised_tokens']} supervised. Untuned: loss "
            f"{untuned['records']:.4f} on them, {untuned['test']:.4f} on the test records.")
    print(note)
    peer = runs[args.arms[0]][0]
    compare.write(args, ["records", "seed", "batch", "batch_tokens", "length", "rank", "lr"], arms, ratios, note=note,
                  versions={name: peer[name] for name in ("torch", "transformers", "peft")}, timed=TIMED,
                  data={"train": pathlib.Path(args.data).name, "test": pathlib.Path(args.test).name},
                  loss_untuned_by_brick=untuned, tried=tried, runs=runs)


if __name__ == "__main__":
    compare.run_main(main)
