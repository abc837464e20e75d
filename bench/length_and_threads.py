"""Training speed by the sequences' length, with one and two threads. What attention costs more in long sequences is counted as
its operations, so the operations a second of a whole step are compared with those at length 128: attention, activations and
cache misses may cost no more than that. Writes bench/results/length-<machine>.json.

    python bench/length_and_threads.py model.gguf
"""

import argparse

import compare

SHORT = 128


def measure(args: argparse.Namespace, threads: int, length: int, operations: float) -> dict:
    made = compare.run_json(args, [args.brick, "bench", args.model, "--what", "train", "--tokens", max(args.tokens, length),
                                   "--length", length, "--rank", args.rank, "--threads", threads, "--repeats", args.repeats, "--json"])
    rate = made["train_tokens_per_second"]
    return {"tokens_per_second": rate, "gflops": rate * operations / 1e9, "peak_rss_mb": made["peak_rss_mb"],
            "compute": made["compute"], "loss_last": made["train_loss"]}


def operations_per_token(info: dict, length: int, rank: int) -> float:
    """Of a step: products with the frozen weights and the head forward and for the inputs' gradients, the adapter's six,
    attention's seven with half the keys masked; 2 operations a multiplication."""
    d, kv, f = info["hidden"], info["hidden"] // info["heads"] * info["kv_heads"], info["ffn"]
    shapes = [(d, d), (kv, d), (kv, d), (d, d), (f, d), (f, d), (d, f)]
    linear, adapter = sum(rows * cols for rows, cols in shapes), rank * sum(map(sum, shapes))
    return 4 * (info["layers"] * linear + info["vocab"] * d) + 6 * info["layers"] * adapter + 7 * info["layers"] * d * length


def main() -> None:
    parser = compare.make_parser(__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512, 2048, 8192])
    parser.add_argument("--tokens", type=int, default=2048, help="a step's, at least one sequence")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=1, help="timed steps of each run")
    args = compare.parse(parser, "length", smoke={"lengths": [128, 512], "tokens": 512}, least=2)
    if SHORT not in args.lengths:
        parser.error(f"--lengths must have {SHORT} in it")
    info = compare.run_json(args, [args.brick, "info", args.model, "--json"])
    counts = sorted({1, args.threads}, reverse=True)
    programs = {f"{threads} {length}": (lambda _, t=threads, n=length: measure(args, t, n, operations_per_token(info, n, args.rank)))
                for length in sorted(args.lengths) for threads in counts}
    runs = compare.in_turn(args, "length", programs, lambda run: f"{run['tokens_per_second']:.0f}")

    arms, steadiness, speedups = {}, [], []
    for length in sorted(args.lengths):
        for threads in counts:
            made, short = runs[f"{threads} {length}"], runs[f"{threads} {SHORT}"]
            arm = compare.arm(f"length {length:,}, {threads} thread{'s' if threads > 1 else ''}", made,
                              {"tokens/s": "tokens_per_second", "GFLOP/s, attention's counted": "gflops", "peak MB": "peak_rss_mb"}, {})
            steadiness.append(compare.ratio(compare.values(made, "gflops"), compare.values(short, "gflops")))
            arm["columns"]["of that at 128"] = steadiness[-1]
            if threads > 1:
                speedups.append(compare.ratio(*(compare.values(runs[f"{t} {length}"], "tokens_per_second") for t in (threads, 1))))
                arm["columns"][f"speed-up by {threads} threads"] = speedups[-1]
            arms[f"{threads} {length}"] = arm
    least = lambda found: min(found, key=lambda one: one["median"])
    ratios = {"steadiness": least(steadiness)} | ({"threads": least(speedups)} if speedups else {})
    compare.write(args, ["tokens", "rank", "repeats"], arms, ratios, note=f"Arithmetic: {runs[f'1 {SHORT}'][0]['compute']}.", runs=runs)


if __name__ == "__main__":
    compare.run_main(main)
