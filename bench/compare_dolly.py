"""LoRA training of brick beside PEFT on real records of unequal length, on one machine: runs all in turn and writes
bench/results/dolly-<cpu>.json.

    python bench/compare_dolly.py model.gguf --brick build/release/brick --python .venv/bin/python \\
        --data dolly15k/local_training_0.json --test dolly15k/global_test.json --dtypes float32,bfloat16

--python is one with bench/peers/requirements.txt. Both train one epoch on the same --records records of --data, drawn
at random with --seed, cut at --length tokens, with the response's loss in the model's chat template, rank 8 on all
linear layers, a constant rate. Where their numbers of tokens differ, it fails. brick packs --batch-tokens tokens a
step (default memory); PEFT takes padded batches of --batch or one record a step (bench/peers/peft_dolly.py), so
that the numbers of steps differ. Sorting by length, which leaves hardly any padding in a large data set, can't show
that on so few records: compare_training.py, where nothing is padded, is that case.

Timed on both sides are the steps alone: no start, loading, tokenising. PEFT has run one batch before, brick's
first step counts as it is. Rates count tokens of records, never padding. PEFT's memory includes Python's and torch's
libraries, that of brick its whole process. Quality: the untuned model's loss on the records, by brick in float32 and by
PEFT in its arithmetic; and the loss on --test with the first turn's adapters, all scored by brick in float32.
"""

import argparse
import json
import pathlib
import random
import tempfile

import compare

TIMED = "the steps of one epoch, without start, loading, tokenising; rates count tokens of records, never padding"
ARMS = {"padded": "PEFT, padded batches", "single": "PEFT, one record a step"}


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


def run_peft(args: argparse.Namespace, folder: str, records: str, dtype: str, arm: str, adapter: str | None) -> dict:
    made = compare.run_json(args, [
        args.python, compare.PEERS / "peft_dolly.py", "--model", folder, "--records", records, "--batching", arm,
        "--batch", args.batch, "--length", args.length, "--rank", args.rank, "--lr", args.lr, "--dtype", dtype,
        "--threads", args.threads] + (["--score", "--save", adapter] if adapter else []))
    del made["process_seconds"], made["process_peak_rss_mb"]
    return made


def score(args: argparse.Namespace, data: str, adapter: str | None) -> float:
    return compare.run_json(args, [args.brick, "eval", args.model, "--data", data, "--length", args.length, "--compute",
                                   "f32", "--threads", args.threads, "--json"]
                            + (["--adapter", adapter] if adapter else []))["nll"]


def compare_dtype(args: argparse.Namespace, folder: str, records: str, dtype: str) -> dict:
    with tempfile.TemporaryDirectory() as name:
        temp = pathlib.Path(name)

        def brick(turn: int) -> dict:
            run = run_brick(args, records, dtype, str(temp / "brick"), temp)
            return run | ({"test_loss": score(args, args.test, str(temp / "brick"))} if turn == 0 else {})

        def peft(arm: str):
            def run_arm(turn: int) -> dict:
                adapter = str(temp / arm) if turn == 0 else None
                run = run_peft(args, folder, records, dtype, arm, adapter)
                return run | ({"test_loss": score(args, args.test, adapter)} if adapter else {})
            return run_arm

        runs = compare.in_turn(args, dtype, {"brick": brick} | {arm: peft(arm) for arm in args.arms},
                               lambda run: f"{run['tokens_per_second']:.1f} tokens/s")
    for key in ("tokens", "supervised_tokens"):
        if len(counts := {run[key] for made in runs.values() for run in made}) > 1:
            raise SystemExit(f"{key} differ: {sorted(counts)}; the speeds can't be compared")
    ours, memory = (compare.values(runs["brick"], key) for key in ("tokens_per_second", "peak_rss_mb"))
    results = {"brick": {"tokens_per_second": compare.summary(ours), "peak_rss_mb": compare.summary(memory)}}
    for arm in args.arms:
        theirs, their_memory = (compare.values(runs[arm], key) for key in ("tokens_per_second", "peak_rss_mb"))
        results[arm] = {"tokens_per_second": compare.summary(theirs), "peak_rss_mb": compare.summary(their_memory),
                        "speed_ratio": compare.ratio(ours, theirs), "memory_ratio": compare.ratio(memory, their_memory)}
    return results | {"runs": runs}


def print_results(args: argparse.Namespace, results: dict, untuned: dict) -> None:
    rows = [["arithmetic", "program", "useful tokens/s", "brick / it", "MB", "brick / it", "steps", "padding",
             "loss of the first step", "of the last", "untuned, on the records", "tuned, on --test"]]
    for dtype, r in results.items():
        for name, runs in r["runs"].items():
            run, ours = runs[0], name == "brick"
            computed = run["tokens"] + run.get("padding_tokens", 0)
            rows.append([dtype, "brick, packed" if ours else ARMS[name], compare.cell(r[name]["tokens_per_second"], 0),
                         "" if ours else compare.cell(r[name]["speed_ratio"], 2), compare.cell(r[name]["peak_rss_mb"], 0),
                         "" if ours else compare.cell(r[name]["memory_ratio"], 2), str(run["steps"]),
                         f"{1 - run['tokens'] / computed:.0%}", f"{run['loss_first']:.4f}", f"{run['loss_last']:.4f}",
                         f"{untuned['records'] if ours else run['loss_untuned']:.4f}", f"{run['test_loss']:.4f}"])
    compare.print_table(rows)
    run = next(iter(results.values()))["runs"]["brick"][0]
    print(f"\nUntuned, on --test: {untuned['test']:.4f}. {args.records} records of {run['tokens']} tokens, "
          f"{run['supervised_tokens']} supervised; {args.threads} threads. Timed: {TIMED}.")


def main() -> None:
    parser = compare.make_parser(__doc__, "PEFT")
    parser.add_argument("--data", required=True, help="records: JSONL or a JSON array")
    parser.add_argument("--test", required=True, help="records that the tuned models are scored on")
    parser.add_argument("--records", type=int, default=16, help="how many of --data are trained on")
    parser.add_argument("--seed", type=int, default=0, help="of which records")
    parser.add_argument("--arms", default="padded,single", help="PEFT's ways, separated by commas")
    parser.add_argument("--batch", type=int, default=8, help="PEFT: records of a padded batch")
    parser.add_argument("--batch-tokens", type=int, default=1024, help="brick: most tokens of a packed batch")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rank", type=int, default=8, help="alpha is twice that")
    parser.add_argument("--lr", type=float, default=3e-4)
    args = compare.parse(parser)
    args.arms = args.arms.split(",")
    if unknown := set(args.arms) - set(ARMS):
        parser.error(f"--arms: {', '.join(sorted(unknown))}: expected {', '.join(ARMS)}")
    with compare.hf_folder(args) as folder, tempfile.TemporaryDirectory() as temp:
        records = str(pathlib.Path(temp) / "records.jsonl")
        draw_records(args, records)
        results = {dtype: compare_dtype(args, folder, records, dtype) for dtype in args.dtypes}
        untuned = {"records": score(args, records, None), "test": score(args, args.test, None)}
    peer = results[args.dtypes[0]]["runs"][args.arms[0]][0]
    print_results(args, results, untuned)
    compare.write(args, "dolly", {name: peer[name] for name in ("torch", "transformers", "peft")},
                  ["records", "seed", "batch", "batch_tokens", "length", "rank", "lr"], results, timed=TIMED,
                  data={"train": pathlib.Path(args.data).name, "test": pathlib.Path(args.test).name},
                  loss_untuned_by_brick=untuned)


if __name__ == "__main__":
    main()
