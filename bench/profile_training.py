"""Where the time of a LoRA step in float32 goes: the dense products by what they compute, and all the rest. Writes
bench/results/profile-<machine>.json.

    python bench/profile_training.py model.gguf

Every product that the engine asks oneDNN for is timed from outside (product_times.c). "At full rate" is what a product's
calls would have taken had each been as fast as the fastest of its shape; the rest of a product's time is what other work
on the machine cost. Products of attention and adapters run on one thread each; their time is divided by the number of threads.
"""

import argparse
import collections
import json
import os
import pathlib
import subprocess
import tempfile

import compare


def kind_of(product: dict, info: dict, rank: int) -> str:
    sides = {product["m"], product["n"], product["k"]}
    if rank in sides:
        return "adapters"
    if product["nested"]:
        return "attention"
    if info["hidden"] in sides and not sides - {product["m"]} <= {info["hidden"], info["ffn"], info["hidden"] // info["heads"] * info["kv_heads"]}:
        return "head and loss"
    return "layers' weights, forward" if product["trans"] == "NT" else "layers' weights, backward"


def profile(args: argparse.Namespace, info: dict) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        library, times = pathlib.Path(folder, "product_times.so"), pathlib.Path(folder, "times.jsonl")
        subprocess.run([os.environ.get("CC", "cc"), "-O2", "-fPIC", "-shared", "-fopenmp", "-o", library,
                        compare.HERE / "product_times.c", "-ldl"], check=True)
        out = compare.run_json(args, ["env", f"LD_PRELOAD={library}", f"BRICK_PRODUCT_TIMES={times}", args.brick, "bench", args.model,
                                      "--what", "train", "--compute", "f32", "--tokens", args.tokens, "--length", args.length,
                                      "--rank", args.rank, "--repeats", args.steps, "--threads", args.threads, "--json"])
        products = [json.loads(line) for line in times.read_text().splitlines()]
    steps = args.steps + 1  # the first warms up, its products count as well
    made = collections.defaultdict(lambda: {"seconds": 0.0, "full_rate": 0.0, "gflop": 0.0})
    for p in products:
        share = (args.threads if p["nested"] else 1) * steps
        of = made[kind_of(p, info, args.rank)]
        of["seconds"] += p["seconds"] / share
        of["full_rate"] += p["calls"] * p["fastest"] / share
        of["gflop"] += 2e-9 * p["m"] * p["n"] * p["k"] * p["calls"] / steps
    return {"step": args.tokens / out["train_tokens_per_second"], "products": made, "loss": out["train_loss"],
            "tokens_per_second": out["train_tokens_per_second"]}


def main() -> None:
    parser = compare.make_parser(__doc__)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5, help="of each run")
    args = compare.parse(parser, "profile", smoke={"steps": 1, "tokens": 256})
    info = compare.run_json(args, [args.brick, "info", args.model, "--json"])
    runs = compare.in_turn(args, "profile", {"brick": lambda _: profile(args, info)},
                           lambda run: f"{run['tokens_per_second']:.0f} tokens/s")["brick"]
    best = max(runs, key=lambda run: run["tokens_per_second"])
    step, products = best["step"], best["products"]
    parts = {kind: {"seconds": p["seconds"], "share of the step": p["seconds"] / step, "GFLOP": p["gflop"],
                    "GFLOP/s": p["gflop"] / p["seconds"], "GFLOP/s at full rate": p["gflop"] / p["full_rate"]}
             for kind, p in sorted(products.items(), key=lambda item: -item[1]["seconds"])}
    rest = step - sum(p["seconds"] for p in products.values())
    parts["all else: norms, positions, softmax, SwiGLU, unpacking weights, AdamW"] = {"seconds": rest, "share of the step": rest / step}
    arms = {kind: {"title": kind, "columns": columns} for kind, columns in parts.items()}
    compare.write(args, ["tokens", "length", "rank", "steps"], arms,
                  {"products_at_full_rate": sum(p["full_rate"] for p in products.values()) / step}, runs=runs,
                  note=f"The fastest run: {best['tokens_per_second']:.0f} tokens/s, {step:.2f} s a step.")


if __name__ == "__main__":
    compare.run_main(main)
