"""transformers' logits, and its tokenizer's ids, of a Hugging Face folder: what experiments/export_round_trips.py compares an exported one
with.

    python experiments/peers/hf_logits.py --model folder --ids ids.json --out logits.npy [--cases cases.json --messages messages.json]

--cases is a JSON array of {text, ids}; --messages one of chat messages. Prints one JSON line: the cases whose ids differ
and the rendered chat.
"""

import argparse
import json
import pathlib

import numpy
import torch
import transformers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--ids", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--cases")
    parser.add_argument("--messages")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(
        args.model, dtype=torch.float32, trust_remote_code=False, output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info[kind]:
            raise SystemExit(f"{args.model}: {kind} {info[kind]}")
    ids = json.loads(pathlib.Path(args.ids).read_text())
    with torch.no_grad():
        numpy.save(args.out, model(torch.tensor([ids])).logits[0].numpy())
    printed: dict = {"class": type(model).__name__, "version": transformers.__version__}
    if args.cases:
        tokenizer = transformers.AutoTokenizer.from_pretrained(args.model, trust_remote_code=False)
        cases = json.loads(pathlib.Path(args.cases).read_text())
        printed["cases"] = len(cases)
        printed["differing"] = [case["text"] for case in cases if tokenizer(case["text"])["input_ids"] != case["ids"]]
        if args.messages:
            printed["chat"] = tokenizer.apply_chat_template(json.loads(pathlib.Path(args.messages).read_text()),
                                                            tokenize=False, add_generation_prompt=True)
    print(json.dumps(printed))


if __name__ == "__main__":
    main()
