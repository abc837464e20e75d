#!/usr/bin/env python3
"""How much faster a structured block is than the dense model, both with bfloat16 values: training (2 sequences of 256, plain adapter
of rank 8 on all linears), a prompt of 512 tokens, decoding 48. FLAP with half of the layers' linear weights removed. In turn, so that
neighbouring runs share what the machine is doing. Writes experiments/results/structured_speed.json.

    experiments/structured_speed.py model.gguf --brick build/brick
"""

import json
import pathlib
import statistics
import tempfile

from brick_command import brick, parser_of, wikitext

HERE = pathlib.Path(__file__).resolve().parent
SPEEDS = ("train_tokens_per_second", "prefill_tokens_per_second", "decode_tokens_per_second")


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results" / "structured_speed.json")
    args = parser.parse_args()
    text = wikitext(args, "valid")
    machine = brick(args, "cpu")
    with tempfile.TemporaryDirectory() as folder:
        models = {name: pathlib.Path(folder) / name for name in ("dense", "structured")}
        brick(args, "export", args.model, "--format", "hf", "--dtype", "bf16", "--out", models["dense"])
        brick(args, "prune", args.model, "--method", "flap", "--sparsity", 0.5, "--calibration", text, "--samples", 16,
              "--length", 512, "--values", "bf16", "--out", models["structured"])
        runs = [{name: brick(args, "bench", path, "--what", "train,prefill,decode", "--tokens", 512, "--length", 256,
                             "--decode-tokens", 48, "--repeats", 1) for name, path in models.items()}
                for _ in range(args.turns)]
    kept = [{name: {key: run[key] for key in (*SPEEDS, "peak_rss_mb")} for name, run in turn.items()} for turn in runs]
    ratios = {key: sorted(turn["structured"][key] / turn["dense"][key] for turn in kept) for key in kept[0]["dense"]}
    for key, of in ratios.items():
        print(f"{key:26} {statistics.median(of):.2f} ({of[0]:.2f} to {of[-1]:.2f})")
    args.out.write_text(json.dumps({"cpu": machine["model"], "isa": machine["isa"], "turns": kept, "ratios": ratios},
                                   indent=1) + "\n")


if __name__ == "__main__":
    main()
