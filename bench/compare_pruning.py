"""Pruning speed and quality of brick beside plain torch (bench/peers/torch_prune.py), on one machine: runs both in turn
and writes bench/results/pruning-<cpu>.json.

    python bench/compare_pruning.py model.gguf --brick build/release/brick --python .venv/bin/python \\
        --calibration wiki.valid.tokens.txt --text wiki.test.tokens.txt --dtypes float32,bfloat16

--python is one with bench/peers/requirements.txt. Both calibrate on the first --samples windows of --length tokens,
whose ids are compared first. What is timed:

brick  "seconds" of `brick prune`: opening the model, tokenising the calibration text, pruning, writing the block.
torch  from embedding the ids to the last pruned layer; not its start, loading, tokenising, or writing.

So loading counts for brick only. Both peaks of memory have it. The arithmetic is that of the forward passes; values
are kept in its type (torch) or as --values (brick). Perplexity is of the first turn's results over --text in float32:
each by its own program, and torch's by brick too.
"""

import argparse
import hashlib
import math
import pathlib
import struct
import tempfile

import compare

TIMED = {
    "brick": "opening the model, tokenising the calibration text, pruning, writing the block",
    "torch": "from embedding the calibration ids to the last pruned layer, without start, loading, tokenising, writing",
}


def run_brick(args: argparse.Namespace, method: str, dtype: str, out: str) -> dict:
    values = args.values or compare.COMPUTE[dtype]
    made = compare.run_json(args, [
        args.brick, "prune", args.model, "--method", method, "--sparsity", args.sparsity, "--calibration",
        args.calibration, "--samples", args.samples, "--length", args.length, "--values", values, "--compute",
        compare.COMPUTE[dtype], "--threads", args.threads, "--out", out, "--force", "--json"])
    return {"seconds": made["seconds"], "sparsity": made["linear_sparsity"], "values": values,
            "compute": compare.COMPUTE[dtype], "process_seconds": made["process_seconds"],
            "peak_rss_mb": made["process_peak_rss_mb"]}


def run_torch(args: argparse.Namespace, folder: str, method: str, dtype: str, save: str | None) -> dict:
    made = compare.run_json(args, [
        args.python, compare.PEERS / "torch_prune.py", "--model", folder, "--method", method, "--sparsity",
        args.sparsity, "--calibration", args.calibration, "--samples", args.samples, "--length", args.length,
        "--batch", args.batch, "--dtype", dtype, "--threads", args.threads]
        + (["--text", args.text, "--text-samples", args.text_samples, "--save", save] if save else []))
    del made["process_seconds"], made["process_peak_rss_mb"]  # with the evaluation, where there is one
    return made


def evaluate(args: argparse.Namespace, model: str) -> float:
    return compare.run_json(args, [
        args.brick, "eval", model, "--text", args.text, "--length", args.length, "--samples", args.text_samples,
        "--compute", "f32", "--threads", args.threads, "--json"])["perplexity"]


def brick_calibration_sha256(args: argparse.Namespace) -> str:
    ids = compare.run_json(args, [args.brick, "tokenize", args.model, "--file", args.calibration, "--json"])["ids"]
    ids = ids[:args.samples * args.length]
    return hashlib.sha256(struct.pack(f"<{len(ids)}i", *ids)).hexdigest()


def compare_method(args: argparse.Namespace, folder: str, method: str, dtype: str, ids: str) -> dict:
    with tempfile.TemporaryDirectory() as temp:
        block, theirs = str(pathlib.Path(temp) / "block"), str(pathlib.Path(temp) / "torch")

        def brick(turn: int) -> dict:
            run = run_brick(args, method, dtype, block)
            return run | ({"perplexity": evaluate(args, block)} if turn == 0 else {})

        def torch(turn: int) -> dict:
            run = run_torch(args, folder, method, dtype, theirs if turn == 0 else None)
            if run["calibration_sha256"] != ids:
                raise SystemExit("brick's and torch's calibration ids differ, so their results can't be compared")
            return run | ({"perplexity_by_brick": evaluate(args, theirs)} if turn == 0 else {})

        runs = compare.in_turn(args, f"{method} {dtype}", {"brick": brick, "torch": torch},
                               lambda run: f"{run['seconds']:.1f} s")
    seconds, memory = ({name: compare.values(made, key) for name, made in runs.items()}
                       for key in ("seconds", "peak_rss_mb"))
    first = {name: made[0] for name, made in runs.items()}
    return {
        "brick_seconds": compare.summary(seconds["brick"]),
        "torch_seconds": compare.summary(seconds["torch"]),
        "speed_ratio": compare.ratio(seconds["torch"], seconds["brick"]),
        "brick_peak_rss_mb": compare.summary(memory["brick"]),
        "torch_peak_rss_mb": compare.summary(memory["torch"]),
        "memory_ratio": compare.ratio(memory["brick"], memory["torch"]),
        "sparsity": {name: run["sparsity"] for name, run in first.items()},
        "perplexity": {"brick": first["brick"]["perplexity"], "torch": first["torch"]["perplexity"],
                       "torch_by_brick": first["torch"]["perplexity_by_brick"]},
        "runs": runs,
    }


def print_results(results: dict, dense: float) -> None:
    rows = [["method", "forward passes", "brick, s", "torch, s", "torch / brick", "brick, MB", "torch, MB", "sparsity",
             "perplexity: brick", "torch", "torch's by brick"]]
    for name, r in results.items():
        quality = r["perplexity"]
        rows.append([*name.split(" "), compare.cell(r["brick_seconds"], 1), compare.cell(r["torch_seconds"], 1),
                     compare.cell(r["speed_ratio"], 2), compare.cell(r["brick_peak_rss_mb"], 0),
                     compare.cell(r["torch_peak_rss_mb"], 0),
                     f"{r['sparsity']['brick']:.4f}, {r['sparsity']['torch']:.4f}", f"{quality['brick']:.3f}",
                     f"{quality['torch']:.3f}", f"{quality['torch_by_brick']:.3f}"])
    compare.print_table(rows)
    print(f"\nUnpruned: perplexity {dense:.3f}. Seconds: " + "; ".join(f"{who}: {what}" for who, what in TIMED.items()))


def main() -> None:
    parser = compare.make_parser(__doc__, "torch and transformers")
    parser.add_argument("--calibration", required=True, help="plain text")
    parser.add_argument("--text", required=True, help="plain text that perplexity is measured on")
    parser.add_argument("--methods", default="wanda,sparsegpt", help="of them, separated by commas")
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--samples", type=int, default=32, help="windows of calibration text")
    parser.add_argument("--length", type=int, default=512, help="tokens a window")
    parser.add_argument("--text-samples", type=int, default=32, help="windows of --text")
    parser.add_argument("--values", choices=["f32", "bf16"], help="how brick keeps values (default: as the arithmetic)")
    parser.add_argument("--batch", type=int, default=4, help="torch: windows that go through a layer together")
    args = compare.parse(parser)
    args.methods = args.methods.split(",")
    if unknown := set(args.methods) - {"wanda", "sparsegpt"}:
        parser.error(f"--methods: {', '.join(sorted(unknown))}: expected wanda, sparsegpt")
    ids = brick_calibration_sha256(args)
    with compare.hf_folder(args) as folder:
        results = {f"{method} {dtype}": compare_method(args, folder, method, dtype, ids)
                   for dtype in args.dtypes for method in args.methods}
        dense = evaluate(args, args.model)
    if not all(math.isfinite(value) for r in results.values() for value in r["perplexity"].values()):
        raise SystemExit("a perplexity is not a number")
    peer = next(iter(results.values()))["runs"]["torch"][0]
    print_results(results, dense)
    compare.write(args, "pruning", {name: peer[name] for name in ("torch", "transformers")},
                  ["sparsity", "samples", "length", "text_samples", "batch"], results, timed=TIMED,
                  texts={"calibration": pathlib.Path(args.calibration).name, "perplexity": pathlib.Path(args.text).name},
                  perplexity_unpruned=dense)


if __name__ == "__main__":
    main()
