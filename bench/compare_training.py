"""Training speed and memory of brick beside PEFT, on one machine: runs all in turn and writes
bench/results/training-<machine>.json.

    python bench/compare_training.py model.gguf --python .venv/bin/python

--python is one with bench/peers/requirements.txt. Both train on the same random ids of one length, so nothing is padded,
with rank 8 on all linear layers and every token supervised, AdamW at a constant rate without clipping. A and B begin as
PEFT's default (B = 0, A of each program's own numbers), so that the first losses must agree and later ones nearly. PEFT is tried first, three steps each, in every arithmetic,
batch shape, and with and without torch.compile (compiled in our shape and the fastest one). Then in turn:
brick in each arithmetic that the machine has, brick with --memory low, and PEFT at its best of all settings, at its best
in float32, and at its best at brick's shape and arithmetic, whose memory is compared.
"""

import argparse
import pathlib

import numpy

import compare

SHAPES = ((1, 256), (4, 256), (4, 512))  # PEFT's sequences a step and their length, beside brick's own
WARM_STEPS, TRIED_STEPS = 1, 2


def ids_file(args: argparse.Namespace, rows: int, length: int) -> pathlib.Path:
    path = compare.WORK / f"ids-{rows}x{length}.npy"
    numpy.save(path, numpy.random.default_rng(0).integers(0, args.vocab, (rows, length)))
    return path


def run_brick(args: argparse.Namespace, dtype: str, memory: str) -> dict:
    out = compare.run_json(args, [
        args.brick, "bench", args.model, "--what", "train", "--compute", compare.COMPUTE[dtype], "--ids",
        ids_file(args, args.tokens // args.length, args.length), "--rank", args.rank, "--repeats", args.steps - 1, "--threads",
        args.threads, "--memory", memory, "--json"])
    return {"tokens_per_second": out["train_tokens_per_second"], "spread": out["train_tokens_per_second_spread"],
            "peak_rss_mb": out["peak_rss_mb"], "loss_first": out["train_loss_first"], "loss_last": out["train_loss"],
            "isa": out["isa"], "compute": out["compute"], "threads": out["threads"]}


def run_peft(args: argparse.Namespace, folder: str, setting: dict, steps: int) -> dict:
    command = [args.python, compare.PEERS / "peft_train.py", "--model", folder, "--ids",
               ids_file(args, setting["rows"], setting["length"]), "--rank", args.rank, "--dtype", setting["dtype"], "--steps",
               steps + setting["compile"], "--threads", args.threads]
    made = compare.run_json(args, command + (["--compile"] if setting["compile"] else []))
    losses = made.pop("losses")  # compiled, it took a step more
    return made | {"setting": words(setting), "loss_first": losses[0], "loss_last": losses[steps - 1]}


def words(setting: dict) -> str:
    return f"{setting['dtype']}, {setting['rows']}×{setting['length']}{', compiled' if setting['compile'] else ''}"


def try_peft(args: argparse.Namespace, folder: str) -> list[dict]:
    ours = (args.tokens // args.length, args.length)

    def tried(dtypes, shapes, compiled: bool) -> list[dict]:
        settings = [{"dtype": dtype, "rows": rows, "length": length, "compile": compiled} for dtype in dtypes
                    for rows, length in shapes]
        return compare.choose(args, "PEFT", settings, lambda s: run_peft(args, folder, s, WARM_STEPS + TRIED_STEPS))

    eager = tried(args.dtypes, [ours] if args.smoke else dict.fromkeys([*SHAPES, ours]), False)
    best = compare.fastest(eager)
    return eager + tried(compare.worth_compiling(eager), dict.fromkeys([ours, (best["rows"], best["length"])]), True)


def main() -> None:
    parser = compare.make_parser(__doc__, "PEFT", folder=True)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6, help="of each run; the first is not counted")
    args = compare.parse(parser, "training", smoke={"tokens": 512, "steps": 3})
    args.vocab = compare.run_json(args, [args.brick, "info", args.model, "--json"])["vocab"]
    ours = {f"brick {dtype}": (dtype, "auto") for dtype in compare.brick_dtypes(args)}
    main_dtype = compare.brick_dtypes(args)[-1]
    ours["brick low"] = (main_dtype, "low")
    rows = args.tokens // args.length
    with compare.hf_folder(args) as folder:
        tried = try_peft(args, folder)
        roles = {"best": compare.fastest(tried), "float32": compare.fastest(tried, dtype="float32"),
                 "same": compare.fastest(tried, dtype=main_dtype, rows=rows, length=args.length)}
        settings = {words(setting): setting for setting in roles.values()}
        programs = {name: (lambda _, how=how: run_brick(args, *how)) for name, how in ours.items()}
        programs |= {name: (lambda _, s=s: run_peft(args, folder, s, args.steps)) for name, s in settings.items()}
        runs = compare.in_turn(args, "training", programs, lambda run: f"{run['tokens_per_second']:.1f} tokens/s")

    def peer(role: str) -> list[dict]:
        return runs[words(roles[role])]

    arms = {}
    for name, made in runs.items():
        title = (f"brick, {ours[name][0]}, {rows}×{args.length}{', --memory low' if ours[name][1] == 'low' else ''}"
                 if name in ours else f"PEFT, {name}")
        arms[name] = compare.arm(title, made, {"tokens/s": "tokens_per_second", "peak MB": "peak_rss_mb"},
                                 {"loss, first step": "loss_first", "loss, last step": "loss_last"})
    speeds = {name: compare.values(made, "tokens_per_second") for name, made in runs.items()}
    memory = {name: compare.values(made, "peak_rss_mb") for name, made in runs.items()}
    main_arm = f"brick {main_dtype}"
    ratios = {
        "speed": compare.ratio(speeds[main_arm], speeds[words(roles["best"])]),
        "speed_float32": compare.ratio(speeds["brick float32"], speeds[words(roles["float32"])]),
        "memory_mb": compare.summary(memory[main_arm]),
        "memory": compare.ratio(memory[main_arm], compare.values(peer("same"), "peak_rss_mb")),
        "low_memory_mb": compare.summary(memory["brick low"]),
        "low_speed": compare.ratio(speeds["brick low"], speeds[main_arm]),
    }
    versions = {name: peer("best")[0][name] for name in ("torch", "transformers", "peft")}
    compare.write(args, ["tokens", "length", "rank", "steps"], arms, ratios, versions=versions, tried=tried, runs=runs)


if __name__ == "__main__":
    compare.run_main(main)
