"""What this machine can do at most: the rate of dense products alone at the model's shapes, the rate at which memory is read.
bench/report.py holds the speeds against them. Writes bench/results/limits-<machine>.json.

    python bench/limits.py model.gguf --python .venv/bin/python
"""

import compare
from length_and_threads import operations_per_token


def main() -> None:
    parser = compare.make_parser(__doc__, "torch")
    parser.add_argument("--rows", type=int, default=1024, help="of the products: tokens of a step")
    parser.add_argument("--length", type=int, default=256, help="of the step's sequences")
    parser.add_argument("--rank", type=int, default=8)
    args = compare.parse(parser, "limits", smoke={"rows": 128})
    info = compare.run_json(args, [args.brick, "info", args.model, "--json"])
    runs = compare.in_turn(args, "limits", {"torch": lambda _: compare.run_json(args, [
        args.python, compare.PEERS / "torch_limits.py", "--hidden", info["hidden"], "--ffn", info["ffn"], "--kv",
        info["hidden"] // info["heads"] * info["kv_heads"], "--rows", args.rows, "--threads", args.threads])},
        lambda run: f"{run['float32']:.0f}, {run['bfloat16']:.0f} GFLOP/s, {run['read']:.1f} GB/s")["torch"]
    best = {key: max(compare.values(runs, key)) for key in ("float32", "bfloat16", "read")}
    step = operations_per_token(info, args.length, args.rank)
    arms = {key: {"title": title, "columns": {"rate": compare.summary(compare.values(runs, key))}} for key, title in {
        "float32": "products in float32, GFLOP/s", "bfloat16": "products in bfloat16, GFLOP/s", "read": "memory read, GB/s"}.items()}
    compare.write(args, ["rows", "length", "rank"], arms, {}, runs=runs, versions={"torch": runs[0]["torch"]},
                  limits={**best, "operations_per_trained_token": step,
                          "step_float32": best["float32"] * 1e9 / step, "step_bfloat16": best["bfloat16"] * 1e9 / step,
                          "decode": best["read"] * 1e9 / info["bytes"]},
                  note=f"A trained token takes {step / 1e9:.2f} GFLOP, a decoded one reads {info['bytes'] / 1e6:.0f} MB. The best run counts.")


if __name__ == "__main__":
    compare.run_main(main)
