#!/usr/bin/env python3
"""Perplexity of a model from which structured methods removed a fifth of its parameters, without training (SliceGPT, which unties
the head, and LLM-Pruner's channels, which shrink the embedding too, also as many of its linear weights as the others): calibration on 32 random windows of 128 of WikiText-2's validation
text (three seeds), values kept in float32, perplexity on the first 32 windows of 512 of the test text. A figure is written
when it is known, and what results/structured_perplexity.json has already is not measured again.

    experiments/structured_perplexity.py model.gguf --brick build/brick
"""

import json
import pathlib
import statistics
import tempfile

from brick_command import brick, parser_of, perplexity, wikitext

HERE = pathlib.Path(__file__).resolve().parent
METHODS = {
    "llm-pruner": [],
    "llm-pruner, ranked globally": ["--global-ranking"],
    "llm-pruner, ranked globally, reference folding": ["--global-ranking", "--folding", "reference"],
    "flap": [],
    "shortgpt": [],
    "llm-pruner, channels": ["--mode", "channel", "--width-multiple", "48"],
    "llm-pruner, channels, a fifth of all parameters": ["--mode", "channel", "--width-multiple", "4"],
    "slicegpt": ["--width-multiple", "48"],
    "slicegpt, without its refit": ["--width-multiple", "48", "--refit-steps", "0"],
    "slicegpt, a fifth of all parameters": ["--width-multiple", "48"],
}
# Of the layers' linear weights, where --sparsity does not say it: a fifth of SmolLM2-135M with a head of its own, and of one whose
# embedding and layers shrink alike.
SHARES = {"slicegpt, a fifth of all parameters": 1 / 3, "llm-pruner, channels, a fifth of all parameters": 0.2}


def table(results: dict) -> str:
    lines = [f"| removed without training (dense: {results['dense']:.3f}) | parameters | linear weights | perplexity | spread |",
             "| --- | --- | --- | --- | --- |"]
    for name in METHODS:
        runs = [run for run in results["pruned"] if run["name"] == name]
        if not runs:
            continue
        values = [run["perplexity"] for run in runs]
        share = {key: statistics.mean(run[key] for run in runs) for key in ("parameters_removed", "linear_removed")}
        lines.append(f"| {name} | {share['parameters_removed']:.1%} | {share['linear_removed']:.1%} "
                     f"| {statistics.mean(values):.2f} | {min(values):.2f}–{max(values):.2f} |")
    return "\n".join(lines)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--names", default=";".join(METHODS), help="rows of the table, separated by semicolons")
    parser.add_argument("--sparsity", type=float, default=0.2534,
                        help="share of the layers' linear weights; the default is 20 %% of SmolLM2-135M's parameters")
    parser.add_argument("--seeds", default="1,2,3", help="of random calibration windows")
    parser.add_argument("--samples", type=int, default=32, help="windows of calibration text")
    parser.add_argument("--length", type=int, default=128, help="tokens a window of calibration text")
    parser.add_argument("--threads", default="2")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results" / "structured_perplexity.json")
    args = parser.parse_args()
    machine = brick(args, "cpu")
    results = json.loads(args.out.read_text()) if args.out.exists() else {
        "cpu": machine["model"], "isa": machine["isa"], "pruned": []}

    if "dense" not in results:
        results["parameters"] = brick(args, "info", args.model)["parameters"]
        results["dense"] = perplexity(args, args.model)
    for seed in args.seeds.split(","):
        for name in args.names.split(";"):
            sparsity = SHARES.get(name, args.sparsity)
            entry = {"name": name, "sparsity": sparsity, "samples": args.samples, "length": args.length,
                     "calibration_seed": int(seed)}
            if any(entry.items() <= run.items() for run in results["pruned"]):
                continue
            with tempfile.TemporaryDirectory() as folder:
                block = pathlib.Path(folder) / "block"
                made = brick(args, "prune", args.model, "--method", name.split(",")[0], "--sparsity", sparsity,
                             "--calibration", wikitext(args, "valid"), "--samples", args.samples, "--length", args.length,
                             "--calibration-seed", seed, "--values", "f32", "--compute", "f32",
                             "--out", block, *METHODS[name])
                info = brick(args, "info", block)
                narrowed = "layer_widths" not in info or "parent_hidden" in info["block"]
                shape = {"hidden": info["hidden"]} if narrowed else {
                    "layers_kv_heads_ffn": [[layer["of"], layer["kv_heads"], layer["ffn"]] for layer in info["layer_widths"]]}
                results["pruned"].append({
                    **entry, "perplexity": perplexity(args, block), "linear_removed": made["linear_sparsity"],
                    "parameters_removed": 1 - made["parameters"] / results["parameters"], **shape})
            args.out.write_text(json.dumps(results, indent=1) + "\n")
            print(f"{name:48} seed {seed}  {results['pruned'][-1]['perplexity']:.3f}", flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
