"""Pruning speed and quality of brick beside plain torch (bench/peers/torch_prune.py), on one machine: runs both in turn
and writes bench/results/pruning-<machine>.json.

    python bench/compare_pruning.py model.gguf --python .venv/bin/python --calibration wiki.valid.tokens.txt \\
        --text wiki.test.tokens.txt

--python is one with bench/peers/requirements.txt. Both calibrate on the first --samples windows of --length tokens,
whose ids are compared first. torch is tried first on two layers in each arithmetic and with each number of windows
at a time; the fastest counts. What is timed:

brick  "seconds" of `brick prune`: opening the model, tokenising the calibration text, pruning, writing the block.
torch  from embedding the ids to the last pruned layer; not its start, loading, tokenising, or writing.

So loading counts for brick only. Both peaks of memory have it. The arithmetic is that of the forward passes; values
are kept in its type (torch) or as --values (brick). Perplexity is of the first turn's results over --text in float32:
each by its own program, and torch's by brick too. --first-layers N cuts the model down for both sides, for machines where
all its layers take hours: a layer's cost is the same, and the perplexities, far off, still tell whether both did the same.
"""

import argparse
import hashlib
import json
import math
import pathlib
import shutil
import struct
import tempfile

import compare
import safetensors.numpy

BATCHES = (2, 8)  # windows that go through a layer together, of torch
TRIED_LAYERS = 2
TIMED = {
    "brick": "opening the model, tokenising the calibration text, pruning, writing the block",
    "torch": "from embedding the calibration ids to the last pruned layer, without start, loading, tokenising, writing",
}


def cut_layers(folder: str, count: int, out: pathlib.Path) -> None:
    """A Hugging Face folder's first layers, as one of its own."""
    shutil.copytree(folder, out)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | {"num_hidden_layers": count}))
    tensors = safetensors.numpy.load_file(out / "model.safetensors")
    dropped = tuple(f"model.layers.{i}." for i in range(count, config["num_hidden_layers"]))
    safetensors.numpy.save_file({name: value for name, value in tensors.items() if not name.startswith(dropped)},
                                out / "model.safetensors")


def run_brick(args: argparse.Namespace, method: str, dtype: str, out: str) -> dict:
    values = args.values or compare.COMPUTE[dtype]
    made = compare.run_json(args, [
        args.brick, "prune", args.pruned, "--method", method, "--sparsity", args.sparsity, "--calibration",
        args.calibration, "--samples", args.samples, "--length", args.length, "--values", values, "--compute",
        compare.COMPUTE[dtype], "--threads", args.threads, "--out", out, "--force", "--json"])
    return {"seconds": made["seconds"], "sparsity": made["linear_sparsity"], "values": values,
            "compute": compare.COMPUTE[dtype], "process_seconds": made["process_seconds"],
            "peak_rss_mb": made["process_peak_rss_mb"]}


def run_torch(args: argparse.Namespace, folder: str, method: str, setting: dict, save: str | None,
              layers: int = 0) -> dict:
    made = compare.run_json(args, [
        args.python, compare.PEERS / "torch_prune.py", "--model", folder, "--method", method, "--sparsity",
        args.sparsity, "--calibration", args.calibration, "--samples", args.samples, "--length", args.length,
        "--batch", setting["batch"], "--dtype", setting["dtype"], "--layers", layers, "--threads", args.threads]
        + (["--text", args.text, "--text-samples", args.text_samples, "--save", save] if save else []))
    del made["process_seconds"], made["process_peak_rss_mb"]  # with the evaluation, where there is one
    return made | {"layers_per_second": (layers or 1) / made["seconds"]}


def evaluate(args: argparse.Namespace, model: str) -> float:
    return compare.run_json(args, [
        args.brick, "eval", model, "--text", args.text, "--length", args.length, "--samples", args.text_samples,
        "--compute", "f32", "--threads", args.threads, "--json"])["perplexity"]


def brick_calibration_sha256(args: argparse.Namespace) -> str:
    ids = compare.run_json(args, [args.brick, "tokenize", args.model, "--file", args.calibration, "--json"])["ids"]
    ids = ids[:args.samples * args.length]
    return hashlib.sha256(struct.pack(f"<{len(ids)}i", *ids)).hexdigest()


def compare_method(args: argparse.Namespace, folder: str, method: str, ids: str) -> tuple[list, dict]:
    settings = [{"dtype": dtype, "batch": batch} for dtype in args.dtypes for batch in BATCHES]
    tried = compare.choose(args, f"torch, {method}", settings,
                           lambda s: run_torch(args, folder, method, s, None, TRIED_LAYERS), "layers_per_second")
    best, dtype = compare.fastest(tried), compare.brick_dtypes(args)[-1]
    with tempfile.TemporaryDirectory() as temp:
        block, theirs = str(pathlib.Path(temp) / "block"), str(pathlib.Path(temp) / "torch")

        def brick(turn: int) -> dict:
            run = run_brick(args, method, dtype, block)
            return run | ({"perplexity": evaluate(args, block)} if turn == 0 else {})

        def torch(turn: int) -> dict:
            run = run_torch(args, folder, method, best, theirs if turn == 0 else None)
            if run["calibration_sha256"] != ids:
                raise SystemExit("brick's and torch's calibration ids differ, so their results can't be compared")
            return run | ({"perplexity_by_brick": evaluate(args, theirs)} if turn == 0 else {})

        return tried, compare.in_turn(args, method, {"brick": brick, "torch": torch}, lambda run: f"{run['seconds']:.1f} s")


def main() -> None:
    parser = compare.make_parser(__doc__, "torch and transformers", folder=True)
    parser.add_argument("--calibration", required=True, help="plain text")
    parser.add_argument("--text", required=True, help="plain text that perplexity is measured on")
    parser.add_argument("--methods", default="wanda,sparsegpt", help="of them, separated by commas")
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--samples", type=int, default=32, help="windows of calibration text")
    parser.add_argument("--length", type=int, default=512, help="tokens a window")
    parser.add_argument("--text-samples", type=int, default=32, help="windows of --text")
    parser.add_argument("--first-layers", type=int, help="cut the model down to as many (default: all)")
    parser.add_argument("--values", choices=["f32", "bf16"], help="how brick keeps values (default: as the arithmetic)")
    args = compare.parse(parser, "pruning", smoke={"samples": 4, "text_samples": 2})
    args.methods, args.pruned = args.methods.split(","), args.model
    if unknown := set(args.methods) - {"wanda", "sparsegpt"}:
        parser.error(f"--methods: {', '.join(sorted(unknown))}: expected wanda, sparsegpt")
    ids = brick_calibration_sha256(args)
    arms, ratios, tried, runs = {}, {}, {}, {}
    with compare.hf_folder(args) as folder, tempfile.TemporaryDirectory() as temp:
        if args.first_layers is not None:
            whole, folder = folder, str(pathlib.Path(temp) / "cut")
            cut_layers(whole, args.first_layers, pathlib.Path(folder))
            args.pruned = folder
        for method in args.methods:
            tried[method], runs[method] = compare_method(args, folder, method, ids)
        dense = args.journal.once("dense", lambda: {"perplexity": evaluate(args, args.pruned)})["perplexity"]
    for method, made in runs.items():
        ours, theirs = made["brick"], made["torch"]
        firsts = {"share removed": "sparsity", "perplexity": "perplexity"}
        summaries = {"seconds": "seconds", "peak MB": "peak_rss_mb"}
        arms[f"{method} brick"] = compare.arm(f"{method}, brick, {ours[0]['compute']}", ours, summaries, firsts)
        arms[f"{method} torch"] = compare.arm(f"{method}, torch, {theirs[0]['dtype']}, {theirs[0]['batch']} windows at a time",
                                              theirs, summaries, firsts | {"perplexity by brick": "perplexity_by_brick"})
        ratios[method] = compare.ratio(compare.values(theirs, "seconds"), compare.values(ours, "seconds"))
        ratios[f"{method}_memory"] = compare.ratio(compare.values(ours, "peak_rss_mb"), compare.values(theirs, "peak_rss_mb"))
    if not all(math.isfinite(made[name][0]["perplexity"]) for made in runs.values() for name in made):
        raise SystemExit("a perplexity is not a number")
    note = f"Unpruned: perplexity {dense:.3f}. Timed: " + "; ".join(f"{who}: {what}" for who, what in TIMED.items()) + "."
    if args.first_layers:
        note += f" The model's first {args.first_layers} layers alone: perplexities only tell whether both did the same."
    print(note)
    peer = runs[args.methods[0]]["torch"][0]
    settings = ["sparsity", "samples", "length", "text_samples"] + (["first_layers"] if args.first_layers else [])
    compare.write(args, settings, arms, ratios, note=note, timed=TIMED,
                  versions={name: peer[name] for name in ("torch", "transformers")}, perplexity_unpruned=dense,
                  texts={"calibration": pathlib.Path(args.calibration).name, "perplexity": pathlib.Path(args.text).name},
                  tried=tried, runs=runs)


if __name__ == "__main__":
    compare.run_main(main)
