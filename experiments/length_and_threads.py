#!/usr/bin/env python3
"""Training speed by the sequences' length, with one and two threads. Attention's own share of a step of length L is what the
same number of tokens costs more than in sequences of 128, computed in parts as large as there; what is left must stay within
25 % of the speed at 128. Writes experiments/results/length_and_threads.json, adding to what is there.

    experiments/length_and_threads.py model.gguf --brick build/brick
"""

import argparse
import json
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
SHORT, PART = 128, 512  # tokens; brick computes shorter sequences in parts of so many


def summarise(results: dict) -> None:
    by_threads = results["threads"]
    for threads, rows in by_threads.items():
        by_threads[threads] = dict(sorted(rows.items(), key=lambda item: int(item[0])))
    if {"1", "2"} <= by_threads.keys():
        results["speedup_of_two_threads"] = {length: round(row["tokens_per_second"] / by_threads["1"][length]["tokens_per_second"], 2)
                                             for length, row in by_threads["2"].items() if length in by_threads["1"]}
    results["least_without_attention"] = {threads: round(min(r["without_attention"] for r in rows.values()) / rows[str(SHORT)]["without_attention"], 2)
                                          for threads, rows in by_threads.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--brick", default="build/brick")
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512, 2048, 8192])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--tokens", type=int, default=2048, help="a step's, at least one sequence")
    parser.add_argument("--repeats", type=int, default=1, help="timed steps")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results" / "length_and_threads.json")
    args = parser.parse_args()

    def command(*words: object) -> dict:
        done = subprocess.run([args.brick, *map(str, words), "--json"], stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            sys.exit(f"failed: {' '.join(map(str, words))}")
        return json.loads(done.stdout)

    def bench(threads: int, tokens: int, length: int, memory: str) -> dict:
        return command("bench", args.model, "--what", "train", "--tokens", tokens, "--length", length, "--threads", threads,
                       "--memory", memory, "--repeats", args.repeats)

    info, machine = command("info", args.model), command("cpu")
    # Forward two products, backward five; 2 operations a multiplication, half the keys are masked.
    operations = 14 * info["layers"] * info["hidden"] / 2  # of a token and a key
    results = json.loads(args.out.read_text()) if args.out.exists() else {}
    results |= {"cpu": machine["model"], "isa": machine["isa"]}
    for threads in args.threads:
        rows = results.setdefault("threads", {}).setdefault(str(threads), {})
        for length in args.lengths:
            run = bench(threads, max(args.tokens, length), length, "auto")
            rate = run["train_tokens_per_second"]
            rows[str(length)] = row = {"tokens_per_second": round(rate, 1), "peak_rss_mb": round(run["peak_rss_mb"])}
            results["compute"] = run["compute"]
            if length == SHORT:
                row["without_attention"] = row["tokens_per_second"]
            else:
                rest = bench(threads, length, SHORT, "fast")["train_tokens_per_second"] if length > PART else rows[str(SHORT)]["tokens_per_second"]
                row |= {"without_attention": round(rest, 1), "attention_share": round(1 - rate / rest, 3),
                        "attention_gflops": round(operations * (length - SHORT) / (1e9 / rate - 1e9 / rest))}
            print(threads, length, row, flush=True)
        summarise(results)
        args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
