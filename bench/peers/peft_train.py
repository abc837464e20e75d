"""PEFT's LoRA training on this machine, at its best: what `brick bench --what train` is compared with.

    brick export model.gguf --format hf --dtype f32 --out model-hf
    python bench/peers/peft_train.py --model model-hf --ids ids.npy --rank 8 --dtype float32 --steps 6

Given ids [sequences, length], all tokens supervised, an adapter on all linear layers, scaled-dot-product attention, fused AdamW, no
gradient checkpointing, no padding, no data loading. In bfloat16 the adapter is bfloat16 too (PEFT's float32 default is
slower). Prints one JSON line; rates count the tokens of a step, the first step (compiled: the first two) is warm-up.
"""

import argparse
import json
import resource
import statistics
import time
import warnings

import numpy
import peft
import torch
import transformers


def make_model(args: argparse.Namespace) -> torch.nn.Module:
    dtype = getattr(torch, args.dtype)
    model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=dtype, attn_implementation="sdpa")
    model.config.use_cache = False
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=args.rank, lora_alpha=2 * args.rank, lora_dropout=0.0,
                             target_modules="all-linear")
    return peft.get_peft_model(model, config, autocast_adapter_dtype=args.dtype == "float32").train()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="Hugging Face folder")
    parser.add_argument("--ids", required=True, help=".npy of the ids [sequences, length] of each step")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--steps", type=int, default=6, help="the first is not counted")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--compile", action="store_true", help="torch.compile; the first two steps are not counted")
    args = parser.parse_args()
    warm_up = 2 if args.compile else 1
    if args.steps <= warm_up:
        parser.error(f"needs more than {warm_up} steps")
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)

    model = make_model(args)
    ids = torch.from_numpy(numpy.load(args.ids).astype(numpy.int64))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-4, weight_decay=0.0,
                                  fused=True)
    forward = torch.compile(model) if args.compile else model
    rates, losses = [], []
    for step in range(args.steps):
        begin = time.perf_counter()
        loss = forward(input_ids=ids, labels=ids, use_cache=False).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        if step >= warm_up:
            rates.append(ids.numel() / (time.perf_counter() - begin))
    print(json.dumps({
        "tokens_per_second": statistics.median(rates),
        "spread": [min(rates), max(rates)],
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "loss_first": losses[0],
        "losses": losses,
        "dtype": args.dtype,
        "compile": args.compile,
        "threads": args.threads,
        "trainable_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peft": peft.__version__,
    }))


if __name__ == "__main__":
    main()
