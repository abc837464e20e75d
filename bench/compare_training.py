"""Training speed and memory of brick beside PEFT, on one machine: runs both in turn, so that whatever else the machine
does meets both alike, and writes bench/results/training-<cpu>.json.

    python bench/compare_training.py model.gguf --brick build/release/brick --python .venv/bin/python

--python is one with bench/peers/requirements.txt. Ratios are of each pair of neighbouring runs; the table gives their
median and range.
"""

import argparse
import json
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
COMPUTE = {"float32": "f32", "bfloat16": "bf16"}


def run_json(command: list[str]) -> dict:
    """The last line of what a command prints, as JSON; ends this program where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"failed ({done.returncode}): {' '.join(command)}\n{done.stderr[-2000:]}")
    text = done.stdout.strip()
    return json.loads(text if text.startswith("{") else text.splitlines()[-1])


def run_brick(args: argparse.Namespace, dtype: str) -> dict:
    out = run_json([args.brick, "bench", args.model, "--what", "train", "--compute", COMPUTE[dtype],
                    "--tokens", str(args.tokens), "--length", str(args.length), "--rank", str(args.rank),
                    "--repeats", str(args.steps - 1), "--threads", str(args.threads), "--json"])
    return {"tokens_per_second": out["train_tokens_per_second"], "spread": out["train_tokens_per_second_spread"],
            "peak_rss_mb": out["peak_rss_mb"], "loss_first": out["train_loss_first"], "loss_last": out["train_loss"],
            "cpu": out["cpu"], "isa": out["isa"], "compute": out["compute"], "threads": out["threads"]}


def run_peft(args: argparse.Namespace, folder: str, dtype: str) -> dict:
    command = [args.python, str(HERE / "peers" / "peft_train.py"), "--model", folder, "--tokens", str(args.tokens),
               "--length", str(args.length), "--rank", str(args.rank), "--dtype", dtype, "--steps", str(args.steps),
               "--threads", str(args.threads)]
    return run_json(command + (["--compile"] if args.compile else []))


def summary(values: list[float]) -> dict:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def compare(args: argparse.Namespace, folder: str, dtype: str) -> dict:
    brick, peers = [], []
    for i in range(args.runs):
        brick.append(run_brick(args, dtype))
        peers.append(run_peft(args, folder, dtype))
        print(f"{dtype} {i + 1}/{args.runs}: brick {brick[-1]['tokens_per_second']:.1f}, "
              f"PEFT {peers[-1]['tokens_per_second']:.1f} tokens/s", file=sys.stderr)
    speeds = [[run["tokens_per_second"] for run in runs] for runs in (brick, peers)]
    memory = [[run["peak_rss_mb"] for run in runs] for runs in (brick, peers)]
    return {
        "brick_tokens_per_second": summary(speeds[0]),
        "peft_tokens_per_second": summary(speeds[1]),
        "speed_ratio": summary([b / p for b, p in zip(*speeds)]),
        "brick_peak_rss_mb": summary(memory[0]),
        "peft_peak_rss_mb": summary(memory[1]),
        "memory_ratio": summary([b / p for b, p in zip(*memory)]),
        "runs": {"brick": brick, "peft": peers},
    }


def print_table(results: dict) -> None:
    def cell(value: dict, digits: int) -> str:
        return f"{value['median']:.{digits}f} ({value['low']:.{digits}f} to {value['high']:.{digits}f})"

    print("| arithmetic | brick, tokens/s | PEFT, tokens/s | ratio | brick, MB | PEFT, MB | ratio |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for dtype, r in results.items():
        print(f"| {dtype} | {cell(r['brick_tokens_per_second'], 0)} | {cell(r['peft_tokens_per_second'], 0)} | "
              f"{cell(r['speed_ratio'], 2)} | {cell(r['brick_peak_rss_mb'], 0)} | {cell(r['peft_peak_rss_mb'], 0)} | "
              f"{cell(r['memory_ratio'], 2)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="what brick trains on: a GGUF file, a Hugging Face folder or a block")
    parser.add_argument("--hf-folder", help="what PEFT trains on (default: an export of the model, float32)")
    parser.add_argument("--brick", default="brick", help="the command")
    parser.add_argument("--python", default=sys.executable, help="one with PEFT")
    parser.add_argument("--dtypes", default="float32", help="float32, bfloat16 or both, separated by commas")
    parser.add_argument("--runs", type=int, default=5, help="of each, 5 or more unless --smoke")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6, help="of each run; the first is not counted")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="PEFT under torch.compile")
    parser.add_argument("--smoke", action="store_true", help="allow fewer runs, to try this program")
    parser.add_argument("--out", help="results file (default: bench/results/training-<cpu>.json)")
    args = parser.parse_args()
    dtypes = args.dtypes.split(",")
    if unknown := set(dtypes) - set(COMPUTE):
        parser.error(f"--dtypes: {', '.join(sorted(unknown))}: expected float32, bfloat16")
    if args.runs < (1 if args.smoke else 5):
        parser.error("--runs: at least 5")

    with tempfile.TemporaryDirectory() as temp:
        folder = args.hf_folder
        if folder is None:
            folder = str(pathlib.Path(temp) / "model")
            subprocess.run([args.brick, "export", args.model, "--format", "hf", "--dtype", "f32", "--out", folder],
                           check=True, stdout=subprocess.DEVNULL)
        results = {dtype: compare(args, folder, dtype) for dtype in dtypes}

    first = results[dtypes[0]]["runs"]
    cpu = re.sub(r"[^a-z0-9]+", "-", first["brick"][0]["cpu"].lower()).strip("-") or "unknown"
    out = pathlib.Path(args.out) if args.out else HERE / "results" / f"training-{cpu}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    versions = {name: first["peft"][0][name] for name in ("torch", "transformers", "peft")}
    settings = {name: getattr(args, name) for name in
                ("runs", "tokens", "length", "rank", "steps", "threads", "compile")}
    out.write_text(json.dumps({"model": pathlib.Path(args.model).name, "cpu": first["brick"][0]["cpu"],
                               "versions": versions, "settings": settings, "results": results}, indent=2) + "\n")
    print_table(results)
    print(f"\n{out}")


if __name__ == "__main__":
    main()
