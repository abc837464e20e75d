#!/usr/bin/env python3
"""Perplexity of pruned blocks after `brick recover`, beside the dense model trained likewise: SparseGPT at 50 and 75 %, calibrated
on the first 32 windows of 512 of WikiText-2's validation text, trained on that text, merged, the mask kept; perplexity on the first
32 windows of 512 of the test text, which nothing was trained on. Writes experiments/results/recovery.json, a block at a time; a block
with the same --flags is replaced, all others stay.

    experiments/recovery.py model.gguf --brick build/brick --steps 250

--blocks FOLDER takes blocks that are there already (any method), one folder each, and keeps the teacher's logits beside them.
"""

import json
import pathlib
import tempfile

from brick_command import brick, parser_of, perplexity, wikitext

HERE = pathlib.Path(__file__).resolve().parent


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--blocks", type=pathlib.Path)
    parser.add_argument("--compute", default="f32")
    parser.add_argument("--flags", default="", help="more flags of `brick recover`, in one argument")
    parser.add_argument("--only", default="50,75,dense", help="which of the blocks' folders, and dense")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results" / "recovery.json")
    args = parser.parse_args()
    temporary = tempfile.TemporaryDirectory()
    work = args.blocks or pathlib.Path(temporary.name) / "blocks"

    if not work.exists():
        brick(args, "blocks", args.model, "--method", "sparsegpt", "--sparsities", "0.5,0.75", "--calibration",
              wikitext(args, "valid"), "--samples", 32, "--length", 512, "--compute", args.compute, "--out", work)
    machine = brick(args, "cpu")
    recovered = json.loads(args.out.read_text())["recovered"] if args.out.exists() else []
    for name in args.only.split(","):
        block = args.model if name == "dense" else work / name
        before = perplexity(args, block)
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "recovered"
            done = brick(args, "recover", block, "--teacher", args.model, "--text", wikitext(args, "valid"), "--steps",
                         args.steps, "--cache", pathlib.Path(f"{work}.teacher"), "--compute", args.compute, "--out", out,
                         *args.flags.split())
            after = perplexity(args, out)
        recovered = [entry for entry in recovered if (entry["block"], entry["flags"]) != (name, args.flags)]
        recovered.append({"block": name, "steps": args.steps, "flags": args.flags, "threads": args.threads, "before": before,
                          "after": after, **done})
        print(f"{name:6} {before:8.3f} -> {after:7.3f}  {done['tokens']} tokens, {done['seconds']:.0f} s, of them "
              f"{done['teacher_seconds']:.0f} s the teacher's", flush=True)
        args.out.write_text(json.dumps({"cpu": machine["model"], "isa": machine["isa"], "recovered": recovered}, indent=1) + "\n")


if __name__ == "__main__":
    main()
