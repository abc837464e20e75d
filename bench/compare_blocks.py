"""Blocks beside the dense model in the same engine: what zeros save. Runs all in turn and writes
bench/results/blocks-<machine>.json.

    python bench/compare_blocks.py model.gguf

SparseGPT blocks are made once, in build/comparisons, each from the dense model that it stands beside. Training: random ids, rank 8 on all linear layers, a plain and a masked
adapter on the block with the most zeros. Decoding: blocks with bfloat16 values beside the dense model in bfloat16, blocks
with 4-bit values beside the model as it is, which should be 4-bit. "weights" are the bytes in which decoding holds
them; "resident" is the whole process at the end of decoding.
"""

import argparse
import pathlib
import subprocess

import compare

TEXT = compare.HERE.parent / "examples" / "offices" / "general_calibration.txt"


def made(args: argparse.Namespace, name: str, *command: object) -> str:
    """A model of build/comparisons that the command makes where it is not there; it appears whole or not at all."""
    path = compare.WORK / f"{pathlib.Path(args.model).stem}-{name}"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([args.brick, *map(str, command), "--out", path], check=True,
                       stdout=subprocess.DEVNULL)
    return str(path)


def block(args: argparse.Namespace, parent: str, sparsity: float, values: str) -> str:
    return made(args, f"{args.method}-{sparsity:g}-{values}-{args.samples}", "prune", parent, "--method", args.method, "--sparsity", sparsity,
                "--values", values, "--calibration", args.calibration, "--samples", args.samples, "--length", 512)


def train(args: argparse.Namespace, model: str, masked: bool) -> dict:
    run = compare.run_json(args, [args.brick, "bench", model, "--what", "train", "--tokens", args.tokens, "--length",
                                  args.length, "--repeats", args.repeats, "--threads", args.threads, "--json"]
                           + (["--masked"] if masked else []))
    return {"ms_per_token": 1000 / run["train_tokens_per_second"], "peak_rss_mb": run["peak_rss_mb"],
            "compute": run["compute"], "loss_first": run["train_loss_first"], "loss_last": run["train_loss"]}


def decode(args: argparse.Namespace, model: str) -> dict:
    run = compare.run_json(args, [args.brick, "bench", model, "--what", "decode", "--decode-tokens", args.decode_tokens,
                                  "--repeats", args.repeats, "--threads", args.threads, "--json"])
    return {"tokens_per_second": run["decode_tokens_per_second"], "weights_mb": run["decode_weights_mb"],
            "resident_mb": run["decode_resident_mb"], "compute": run["compute"]}


def main() -> None:
    parser = compare.make_parser(__doc__)
    parser.add_argument("--method", default="sparsegpt")
    parser.add_argument("--calibration", type=pathlib.Path, default=TEXT, help="plain text")
    parser.add_argument("--samples", type=int, default=8, help="its windows of 512 tokens")
    parser.add_argument("--tokens", type=int, default=1024, help="of a training step")
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--decode-tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5, help="of each run, after a warm-up")
    args = compare.parse(parser, "blocks", smoke={"method": "magnitude", "tokens": 256, "decode_tokens": 16, "repeats": 1})
    dense = {"bf16": made(args, "bf16", "export", args.model, "--format", "hf", "--dtype", "bf16"), "q4": args.model}
    blocks = {(share, values): block(args, dense[values], share / 100, values) for values in dense for share in (50, 75)}
    programs = {"train dense": lambda _: train(args, dense["bf16"], False),
                "train plain": lambda _: train(args, blocks[75, "bf16"], False),
                "train masked": lambda _: train(args, blocks[75, "bf16"], True)}
    titles = {"train dense": "training, dense, bfloat16 values", "train plain": "training, 75 % block, plain adapter",
              "train masked": "training, 75 % block, masked adapter"}
    for values, name in {"bf16": "bfloat16 values", "q4": "4-bit values"}.items():
        programs[f"decode dense {values}"] = lambda _, m=dense[values]: decode(args, m)
        titles[f"decode dense {values}"] = f"decoding, dense, {name}"
        for share in (50, 75):
            programs[f"decode {share} {values}"] = lambda _, m=blocks[share, values]: decode(args, m)
            titles[f"decode {share} {values}"] = f"decoding, {share} % block, {name}"
    runs = compare.in_turn(args, "blocks", programs, lambda run: f"{run['ms_per_token']:.2f} ms/token" if "ms_per_token" in run
                           else f"{run['tokens_per_second']:.0f} tokens/s")

    arms = {}
    for name, of in runs.items():
        arms[name] = compare.arm(titles[name], of, *((
            {"ms/token": "ms_per_token", "peak MB": "peak_rss_mb"}, {"loss, first step": "loss_first", "loss, last step": "loss_last"})
            if name.startswith("train") else ({"tokens/s": "tokens_per_second", "resident MB": "resident_mb"}, {"weights, MB": "weights_mb"})))

    def ratio(key: str, over: str, under: str) -> dict:
        return compare.ratio(compare.values(runs[over], key), compare.values(runs[under], key))

    ratios = {}
    for kind in ("plain", "masked"):
        ratios[f"train_{kind}"] = ratio("ms_per_token", "train dense", f"train {kind}")
        ratios[f"train_{kind}_memory"] = ratio("peak_rss_mb", f"train {kind}", "train dense")
    for values in dense:
        for share in (50, 75):
            ratios[f"decode_{share}_{values}"] = ratio("tokens_per_second", f"decode {share} {values}", f"decode dense {values}")
        for key, name in {"weights_mb": "weights", "resident_mb": "resident"}.items():
            ratios[f"{name}_75_{values}"] = ratio(key, f"decode 75 {values}", f"decode dense {values}")
    compare.write(args, ["method", "samples", "tokens", "length", "decode_tokens", "repeats"], arms, ratios,
                  note=f"Training in {runs['train dense'][0]['compute']}.", runs=runs)


if __name__ == "__main__":
    compare.run_main(main)
