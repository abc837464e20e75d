"""Losses of PEFT's first steps on real records, to lay beside those of `brick tune`.

    brick export model.gguf --format hf --dtype f32 --out model-hf
    python bench/peers/loss_curve.py --model model-hf --records records.jsonl --save-init init --out peft.json
    brick tune model.gguf --data records.jsonl --init init --out adapter --steps 20 --batch-records 1 --no-shuffle \
        --schedule constant --warmup 0 --clip 0 --compute f32 --log brick.jsonl

One record {"instruction", "context"?, "response"} a step, in the file's order; only the response and the token that ends
its turn are supervised. --save-init writes the adapter that PEFT begins with, so that both runs begin alike; --init
begins with one that is there.
"""

import argparse
import json
import pathlib
import warnings

import peft
import torch
import transformers


def encode(tokenizer, record: dict, length: int) -> tuple[list[int], list[int]]:
    """Ids and labels, cut on the right. The response's tokens end with the last special one of the turn."""
    context = record.get("context") or ""
    question = record["instruction"] + ("\n\n" + context if context else "")
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": record["response"]}]
    prompt = tokenizer.apply_chat_template(messages[:1], add_generation_prompt=True, tokenize=False)
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    if not whole.startswith(prompt):
        raise SystemExit("the template's prompt is not the beginning of the whole conversation")
    head = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    tail = tokenizer(whole[len(prompt):], add_special_tokens=False)["input_ids"]
    end = max((i for i, token in enumerate(tail) if token in tokenizer.all_special_ids), default=len(tail) - 1)
    labels = [-100] * len(head) + tail[:end + 1] + [-100] * (len(tail) - end - 1)
    return (head + tail)[:length], labels[:length]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="Hugging Face folder, with its tokenizer")
    parser.add_argument("--records", required=True, help="JSONL")
    parser.add_argument("--out", required=True, help="JSON of the losses")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=float, default=16)
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--init", help="PEFT folder to begin with; rank and alpha are its own")
    parser.add_argument("--save-init", help="folder for the adapter before the first step")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)

    tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
    model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=torch.float32,
                                                              attn_implementation="sdpa")
    model.config.use_cache = False
    if args.init:
        model = peft.PeftModel.from_pretrained(model, args.init, is_trainable=True)
    else:
        linears = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        model = peft.get_peft_model(model, peft.LoraConfig(
            task_type="CAUSAL_LM", r=args.rank, lora_alpha=args.alpha, lora_dropout=0.0, target_modules=linears))
    if args.save_init:
        model.save_pretrained(args.save_init)
    model.train()

    lines = pathlib.Path(args.records).read_text(encoding="utf-8").splitlines()
    encoded = [encode(tokenizer, json.loads(line), args.length) for line in lines if line.strip()]
    encoded = [(ids, labels) for ids, labels in encoded if any(label >= 0 for label in labels[1:])]
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=args.lr, betas=(0.9, 0.999),
                                  eps=1e-8, weight_decay=0.0)
    losses, counts = [], []
    for step in range(args.steps):
        ids, labels = (torch.tensor([part]) for part in encoded[step % len(encoded)])
        optimizer.zero_grad(set_to_none=True)
        loss = model(input_ids=ids, labels=labels, use_cache=False).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        counts.append([ids.numel(), int((labels[0, 1:] >= 0).sum())])
        print(f"step {step + 1}: loss {losses[-1]:.6f}, {counts[-1][0]} tokens, {counts[-1][1]} supervised", flush=True)
    versions = {m.__name__: m.__version__ for m in (torch, transformers, peft)}
    pathlib.Path(args.out).write_text(json.dumps(
        {"losses": losses, "tokens_and_supervised": counts, "lr": args.lr, "seed": args.seed, **versions}, indent=2) + "\n")


if __name__ == "__main__":
    main()
