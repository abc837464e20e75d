"""Training speed and memory of brick beside PEFT, on one machine: runs both in turn and writes
bench/results/training-<cpu>.json.

    python bench/compare_training.py model.gguf --brick build/release/brick --python .venv/bin/python

--python is one with bench/peers/requirements.txt. Both train on random ids of one length, so nothing is padded. Ratios
are of each pair of neighbouring runs; the table gives their median and range.
"""

import argparse

import compare


def run_brick(args: argparse.Namespace, dtype: str) -> dict:
    out = compare.run_json(args, [
        args.brick, "bench", args.model, "--what", "train", "--compute", compare.COMPUTE[dtype], "--tokens",
        args.tokens, "--length", args.length, "--rank", args.rank, "--repeats", args.steps - 1, "--threads",
        args.threads, "--json"])
    return {"tokens_per_second": out["train_tokens_per_second"], "spread": out["train_tokens_per_second_spread"],
            "peak_rss_mb": out["peak_rss_mb"], "loss_first": out["train_loss_first"], "loss_last": out["train_loss"],
            "cpu": out["cpu"], "isa": out["isa"], "compute": out["compute"], "threads": out["threads"]}


def run_peft(args: argparse.Namespace, folder: str, dtype: str) -> dict:
    command = [args.python, compare.PEERS / "peft_train.py", "--model", folder, "--tokens", args.tokens, "--length",
               args.length, "--rank", args.rank, "--dtype", dtype, "--steps", args.steps, "--threads", args.threads]
    return compare.run_json(args, command + (["--compile"] if args.compile else []))


def compare_dtype(args: argparse.Namespace, folder: str, dtype: str) -> dict:
    runs = compare.in_turn(args, dtype, {"brick": lambda _: run_brick(args, dtype),
                                         "peft": lambda _: run_peft(args, folder, dtype)},
                           lambda run: f"{run['tokens_per_second']:.1f} tokens/s")
    speeds, memory = ({name: compare.values(made, key) for name, made in runs.items()}
                      for key in ("tokens_per_second", "peak_rss_mb"))
    return {
        "brick_tokens_per_second": compare.summary(speeds["brick"]),
        "peft_tokens_per_second": compare.summary(speeds["peft"]),
        "speed_ratio": compare.ratio(speeds["brick"], speeds["peft"]),
        "brick_peak_rss_mb": compare.summary(memory["brick"]),
        "peft_peak_rss_mb": compare.summary(memory["peft"]),
        "memory_ratio": compare.ratio(memory["brick"], memory["peft"]),
        "runs": runs,
    }


def print_results(results: dict) -> None:
    rows = [["arithmetic", "brick, tokens/s", "PEFT, tokens/s", "ratio", "brick, MB", "PEFT, MB", "ratio",
             "loss, first to last: brick", "PEFT"]]
    for dtype, r in results.items():
        losses = [f"{runs[0]['loss_first']:.2f} to {runs[0]['loss_last']:.2f}" for runs in r["runs"].values()]
        rows.append([dtype, compare.cell(r["brick_tokens_per_second"], 0), compare.cell(r["peft_tokens_per_second"], 0),
                     compare.cell(r["speed_ratio"], 2), compare.cell(r["brick_peak_rss_mb"], 0),
                     compare.cell(r["peft_peak_rss_mb"], 0), compare.cell(r["memory_ratio"], 2), *losses])
    compare.print_table(rows)


def main() -> None:
    parser = compare.make_parser(__doc__, "PEFT")
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6, help="of each run; the first is not counted")
    parser.add_argument("--compile", action="store_true", help="PEFT under torch.compile")
    args = compare.parse(parser)
    with compare.hf_folder(args) as folder:
        results = {dtype: compare_dtype(args, folder, dtype) for dtype in args.dtypes}
    peer = results[args.dtypes[0]]["runs"]["peft"][0]
    versions = {name: peer[name] for name in ("torch", "transformers", "peft")}
    print_results(results)
    compare.write(args, "training", versions, ["tokens", "length", "rank", "steps", "compile"], results)


if __name__ == "__main__":
    main()
