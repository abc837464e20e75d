#!/usr/bin/env python3
"""Perplexity of every pruning method and composite at 50 and 75 %, without training: calibration on windows of 512 of
WikiText-2's validation text, values kept in float32, perplexity on the first 32 windows of 512 of the test text. Each method
is one family; a figure is written when it is known, and what results/pruners.json has already is not measured again.

    experiments/pruners.py model.gguf --brick build/brick
    experiments/pruners.py model.gguf --brick build/brick --methods owl+alps+reconstruct --seeds 1,2,3
"""

import json
import pathlib
import tempfile

from brick_command import brick, parser_of, perplexity, wikitext

HERE = pathlib.Path(__file__).resolve().parent
METHODS = ["wanda", "ria", "dsnot", "owl+wanda", "wanda+reconstruct", "sparsegpt", "owl+sparsegpt", "sparsegpt+reconstruct",
           "alps", "alps+reconstruct", "owl+alps+reconstruct", "wanda++"]


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--sparsities", default="0.5,0.75")
    parser.add_argument("--samples", type=int, default=32, help="windows of calibration text")
    parser.add_argument("--seeds", default="", help="of random calibration windows; without, the first windows")
    parser.add_argument("--prune-options", default="", help="further options of brick blocks, e.g. '--owl-spread 0.04'")
    parser.add_argument("--threads", default="2")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results" / "pruners.json")
    args = parser.parse_args()
    machine = brick(args, "cpu")
    results = json.loads(args.out.read_text()) if args.out.exists() else {
        "cpu": machine["model"], "isa": machine["isa"], "pruned": []}

    if "dense" not in results:
        results["dense"] = perplexity(args, args.model)
    for seed in args.seeds.split(",") if args.seeds else [None]:
        for method in args.methods.split(","):
            entry = {"method": method, "samples": args.samples, "calibration_seed": seed, "options": args.prune_options}
            wanted = [s for s in args.sparsities.split(",")
                      if not any(entry.items() <= e.items() and e["sparsity"] == float(s) for e in results["pruned"])]
            if not wanted:
                continue
            with tempfile.TemporaryDirectory() as folder:
                out = pathlib.Path(folder) / "blocks"
                family = brick(args, "blocks", args.model, "--method", method, "--sparsities", ",".join(wanted),
                               "--calibration", wikitext(args, "valid"), "--samples", args.samples, "--length", 512,
                               "--values", "f32", "--compute", "f32", "--out", out,
                               *(["--calibration-seed", seed] if seed else []), *args.prune_options.split())
                for sparsity in wanted:
                    value = perplexity(args, out / f"{float(sparsity) * 100:g}")
                    results["pruned"].append({**entry, "sparsity": float(sparsity), "perplexity": value,
                                              "family_sparsities": wanted, "family_seconds": round(family["seconds"], 1),
                                              "threads": int(args.threads)})
                    print(f"{method:28} {float(sparsity):4.0%}  {value:.3f}", flush=True)
                    args.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
