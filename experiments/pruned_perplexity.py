#!/usr/bin/env python3
"""Perplexity of a model pruned by magnitude, Wanda and SparseGPT, as the reference figures in BRICK_DATA/../reference were
measured: calibration on the first 32 windows of 512 of WikiText-2's validation text, values kept in float32, perplexity on
the first 32 windows of 512 of the test text. Writes experiments/results/pruned_perplexity.json.

    experiments/pruned_perplexity.py model.gguf --brick build/brick
"""

import json
import pathlib
import tempfile

from brick_command import brick, parser_of, perplexity, wikitext

HERE = pathlib.Path(__file__).resolve().parent
SPARSITIES = {"magnitude": [0.25, 0.5], "wanda": [0.25, 0.5, 0.75], "sparsegpt": [0.25, 0.5, 0.75]}


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--compute", default="f32")
    parser.add_argument("--out", default=HERE / "results" / "pruned_perplexity.json")
    args = parser.parse_args()

    machine = brick(args, "cpu")
    results = {"cpu": machine["model"], "isa": machine["isa"], "compute": args.compute, "dense": perplexity(args, args.model), "pruned": []}
    print(f"dense {results['dense']:.3f}")
    for method, sparsities in SPARSITIES.items():
        with tempfile.TemporaryDirectory() as folder:
            family = brick(args, "blocks", args.model, "--method", method, "--sparsities", ",".join(map(str, sparsities)),
                           "--calibration", wikitext(args, "valid"), "--samples", 32, "--length", 512, "--values", "f32",
                           "--compute", args.compute, "--out", pathlib.Path(folder) / "blocks")
            for sparsity in sparsities:
                value = perplexity(args, pathlib.Path(folder) / "blocks" / f"{sparsity * 100:g}")
                results["pruned"].append({"method": method, "sparsity": sparsity, "perplexity": value,
                                          "family_seconds": family.get("seconds")})
                print(f"{method:10} {sparsity:4.0%}  {value:.3f}", flush=True)
    pathlib.Path(args.out).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
