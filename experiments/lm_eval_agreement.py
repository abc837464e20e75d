#!/usr/bin/env python3
"""`brick eval --tasks` beside lm-evaluation-harness, item by item: same weights in float32, same local files (lm_eval_local.py),
the first N items of each task (MMLU: taken in turn from its subjects, five examples). Needs lm_eval, torch and transformers.
The harness loads the folder that `brick export --format hf --dtype f32` writes, tokenizer included.

    python experiments/lm_eval_agreement.py MODEL --brick build/brick --tasks-dir DATA --limit 200

Writes experiments/results/lm_eval_agreement.json after each task; tasks that it has from the same programs and limit are not
run again. Exit status 1 if a log-likelihood differs by more than the tolerance, or an item's choice is right on one side only.
"""

import argparse
import json
import pathlib
import sys
import tempfile
import time

import lm_eval
import lm_eval_local
import torch
import transformers
from brick_command import brick
from lm_eval.models.huggingface import HFLM

HERE = pathlib.Path(__file__).resolve().parent
TASKS = ["wnli", "boolq_closed", "sst2", "rte", "winogrande", "piqa", "arc_easy", "arc_challenge", "openbookqa", "social_iqa",
         "hellaswag", "mmlu"]  # about the quickest first
TOLERANCE = 1e-3  # of an option's log-likelihood, float32 on both sides


def ours(args: argparse.Namespace, task: str, log: pathlib.Path) -> tuple[dict, dict]:
    """(summary, {(subject, row): line of the log})."""
    summary = brick(args, "eval", args.model, "--tasks", task, "--tasks-dir", args.tasks_dir, "--limit", args.limit, "--compute", "f32",
                    "--log", log)["tasks"][task]
    lines = [json.loads(line) for line in log.read_text().splitlines()[1:]]
    return summary, {(line.get("subject", ""), line["index"]): line for line in lines}


def theirs(args: argparse.Namespace, model: HFLM, task: str, shots: int, rows: dict[str, int]) -> dict:
    """{(subject, row): sample} of the first rows of each subject."""
    samples = {}
    for subject, harness_task in lm_eval_local.tasks(args.tasks_dir, task, shots).items():
        if subject not in rows:
            continue
        for sample in lm_eval_local.samples(model, harness_task, rows[subject]):
            samples[subject, sample["doc_id"]] = sample
    return samples


def compare(summary: dict, mine: dict, samples: dict) -> dict:
    if mine.keys() != samples.keys():
        sys.exit("the two sides scored different items")
    differences = []
    for key, line in mine.items():
        harness = [float(resp[0]) for resp in samples[key]["filtered_resps"]]
        differences += [abs(a - b) for a, b in zip(line["log_likelihoods"], harness, strict=True)]
    out = {"items": len(mine), "log_likelihoods": len(differences), "largest_difference": max(differences),
           "mean_difference": sum(differences) / len(differences), "num_fewshot": summary["num_fewshot"]}
    for metric, chosen in (("acc", "chosen"), ("acc_norm", "chosen_norm")):
        if any(metric in sample for sample in samples.values()):  # most tasks of the harness have acc alone
            out[metric] = {"brick": summary[metric], "lm_eval": sum(sample[metric] for sample in samples.values()) / len(samples),
                           "items_that_differ": sum((mine[key][chosen] == mine[key]["gold"]) != bool(samples[key][metric]) for key in mine)}
    out["agrees"] = out["largest_difference"] <= TOLERANCE and all(out[m]["items_that_differ"] == 0 for m in ("acc", "acc_norm") if m in out)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--brick", default="build/brick")
    parser.add_argument("--tasks-dir", type=pathlib.Path, required=True)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1, help="sequences a batch of the harness")
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results" / "lm_eval_agreement.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    machine = brick(args, "cpu")
    results = {"lm_eval": lm_eval.__version__, "torch": torch.__version__, "transformers": transformers.__version__,
               "tolerance": TOLERANCE, "tasks": {}}
    if args.out.exists():
        earlier = json.loads(args.out.read_text())
        if earlier | {"tasks": {}} == results:
            results = earlier
    with tempfile.TemporaryDirectory() as folder:
        exported = pathlib.Path(folder) / "hf"
        brick(args, "export", args.model, "--format", "hf", "--dtype", "f32", "--out", exported)
        model = HFLM(pretrained=str(exported), dtype="float32", device="cpu", batch_size=args.batch)
        for task in args.tasks.split(","):
            if results["tasks"].get(task, {}).get("limit") == args.limit:
                continue
            begin = time.monotonic()
            summary, mine = ours(args, task, pathlib.Path(folder) / f"{task}.jsonl")
            rows: dict[str, int] = {}
            for subject, row in mine:
                rows[subject] = max(rows.get(subject, 0), row + 1)
            middle = time.monotonic()
            result = compare(summary, mine, theirs(args, model, task, summary["num_fewshot"], rows))
            # Not a measurement of speed: nobody keeps the machine quiet.
            print(f"{task}: {json.dumps(result)}, {middle - begin:.0f} s and {time.monotonic() - middle:.0f} s", flush=True)
            results["tasks"][task] = {"cpu": machine["model"], "isa": machine["isa"], "limit": args.limit, **result}
            args.out.write_text(json.dumps(results, indent=1) + "\n")
    sys.exit(0 if all(result["agrees"] for result in results["tasks"].values()) else 1)


if __name__ == "__main__":
    main()
