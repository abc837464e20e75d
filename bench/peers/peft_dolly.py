"""PEFT's LoRA training on real records of unequal length: what `brick tune` is compared with.

    brick export model.gguf --format hf --dtype f32 --out model-hf
    python bench/peers/peft_dolly.py --model model-hf --records records.jsonl --batching padded --dtype float32

One epoch over the records, cut at --length; only the response and the token that ends its turn are supervised, in the
model's own chat template. --batching:

padded  batches of --batch records in the file's order, padded to their longest
single  one record a step, no padding

Batches of equal length, which sorting a whole data set by length comes close to, are peft_train.py's case.

An adapter on all linear layers, scaled-dot-product attention, fused AdamW, constant rate, no clipping, no gradient
checkpointing, tokenised beforehand. In bfloat16 the adapter is bfloat16 too (PEFT's float32 default is slower).

Prints one JSON line. Rates count useful tokens: those of records, not padding. They are over all steps of the epoch,
after one forward and backward pass of the first batch that updates nothing and isn't timed (of the first two, compiled). --score also prints the
untuned model's loss on the records, in the chosen arithmetic.
"""

import argparse
import json
import pathlib
import resource
import time
import warnings

import peft
import torch
import transformers
from loss_curve import encode
from peft_train import make_model

IGNORED = -100  # transformers' label of a token that is not supervised


def make_batches(records: list, args: argparse.Namespace, padding: int) -> list[dict]:
    size = 1 if args.batching == "single" else args.batch
    batches = []
    for begin in range(0, len(records), size):
        part = records[begin:begin + size]
        width = max(len(ids) for ids, _ in part)
        batch = {"input_ids": torch.tensor([ids + [padding] * (width - len(ids)) for ids, _ in part]),
                 "labels": torch.tensor([labels + [IGNORED] * (width - len(labels)) for _, labels in part])}
        if any(len(ids) < width for ids, _ in part):  # without a mask attention takes its faster causal path
            batch["attention_mask"] = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in part])
        batches.append(batch)
    return batches


def supervised(batch: dict) -> int:
    return int((batch["labels"][:, 1:] != IGNORED).sum())


@torch.no_grad()
def mean_loss(model: torch.nn.Module, batches: list[dict]) -> float:
    total = sum(model(**batch, use_cache=False).loss.item() * supervised(batch) for batch in batches)
    return total / sum(map(supervised, batches))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="Hugging Face folder, with its tokenizer")
    parser.add_argument("--records", required=True, help="JSONL")
    parser.add_argument("--batching", choices=["padded", "single"], default="padded")
    parser.add_argument("--batch", type=int, default=8, help="records a batch, unless single")
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rank", type=int, default=8, help="alpha is twice that")
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--score", action="store_true", help="also print the untuned model's loss on the records")
    parser.add_argument("--save", help="folder for the adapter")
    parser.add_argument("--batches", type=int, default=0, help="only the first ones, to try a setting; 0: all")
    parser.add_argument("--compile", action="store_true", help="torch.compile for any length; warmed up on two batches")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)

    tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
    model = make_model(args)
    lines = pathlib.Path(args.records).read_text(encoding="utf-8").splitlines()
    records = [encode(tokenizer, json.loads(line), args.length) for line in lines if line.strip()]
    records = [(ids, labels) for ids, labels in records if any(label >= 0 for label in labels[1:])]
    batches = make_batches(records, args, tokenizer.pad_token_id or 0)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=args.lr, weight_decay=0.0,
                                  fused=True)
    untuned = mean_loss(model, batches) if args.score else None  # B is zero as yet
    forward = torch.compile(model, dynamic=True) if args.compile else model
    for batch in batches[:2 if args.compile else 1]:
        forward(**batch, use_cache=False).loss.backward()
    optimizer.zero_grad(set_to_none=True)

    losses = []
    batches = batches[:args.batches] if args.batches else batches
    begin = time.perf_counter()
    for batch in batches:
        loss = forward(**batch, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    seconds = time.perf_counter() - begin
    tokens = sum(int(b["attention_mask"].sum()) if "attention_mask" in b else b["input_ids"].numel() for b in batches)
    computed = sum(batch["input_ids"].numel() for batch in batches)
    counts = [supervised(batch) for batch in batches]
    result = {
        "tokens_per_second": tokens / seconds,
        "seconds": seconds,
        "steps": len(batches),
        "records": len(records),
        "tokens": tokens,
        "padding_tokens": computed - tokens,
        "supervised_tokens": sum(counts),
        "loss_first": losses[0],
        "loss_last": losses[-1],
        "loss_mean": sum(loss * count for loss, count in zip(losses, counts)) / sum(counts),
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "batching": args.batching,
        "dtype": args.dtype,
        "compile": args.compile,
        "threads": args.threads,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
    }
    if untuned is not None:
        result["loss_untuned"] = untuned
    if args.save:
        model.save_pretrained(args.save)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
