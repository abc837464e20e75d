"""What others compute from exports of a model or block, beside brick itself: writes
experiments/results/export_round_trips.json.

    python experiments/export_round_trips.py model.gguf block-50 --brick build/brick --llama .venv-llama/bin/python \\
        --peers .venv/bin/python --cases smollm2_cases.json [--adapter ADAPTER]

This Python needs numpy; --llama bench/peers/requirements-llama.txt, --peers bench/peers/requirements.txt. Of each model:

- gguf: F16 in llama.cpp: 64 tokens after a prompt, chosen greedily, and the largest difference of the logits over prompt and
  continuation. llama.cpp rounds activations to F16, too, which moves its logits by more than the bar; so the same is done in
  F32, and how far llama.cpp's logits in F16 are from its own in F32 stands beside it;
- hf: a float32 folder in transformers, without remote code, layers of unequal width padded: the same difference, the texts of
  --cases whose ids its tokenizer gets wrong, the chat as its template renders it. What brick refuses to export so, with its
  reason;
- lora: --adapter as a GGUF of its own beside the model's, in F32, against brick with the adapter (the first model alone).

Ends with status 1 where a bar is missed.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
PROMPT = "The old mill by the river had been silent for years. One morning in spring,"
MESSAGES = [{"role": "user", "content": "What is 2 + 2?"}, {"role": "assistant", "content": "4."},
            {"role": "user", "content": "And 3 + 3?"}]
TOKENS = 64
BARS = {"gguf f16": 2e-2, "gguf f32": 2e-2, "hf": 1e-4, "lora": 2e-2}  # largest difference of a logit


def start(*command: object) -> subprocess.CompletedProcess:
    return subprocess.run([str(part) for part in command], capture_output=True, text=True)


def run(*command: object) -> dict:
    done = start(*command)
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


class Brick:
    def __init__(self, command: str, model: str, folder: pathlib.Path):
        self.command, self.model, self.folder = command, model, folder

    def __call__(self, verb: str, *arguments: object) -> dict:
        return run(self.command, verb, self.model, *arguments, "--json")

    def export_or_reason(self, *arguments: object) -> dict:
        done = start(self.command, "export", self.model, *arguments, "--json")
        return json.loads(done.stdout) if done.returncode == 0 else {"refused": done.stderr.strip().splitlines()[-1]}

    def logits(self, ids: list[int], *arguments: object) -> np.ndarray:
        self("logits", "--ids", ",".join(map(str, ids)), "--compute", "f32", "--out", self.folder / "own.npy", "--force",
             *arguments)
        return np.load(self.folder / "own.npy")

    def ids(self, text: str) -> list[int]:
        return self("tokenize", "--text", text)["ids"]


def peer_logits(args: argparse.Namespace, folder: pathlib.Path, ids: list[int], which: str, *arguments: object) -> tuple:
    (folder / "ids.json").write_text(json.dumps(ids))
    python = args.llama if which == "llama" else args.peers
    made = run(python, HERE / "peers" / f"{which}_logits.py", "--ids", folder / "ids.json", "--out", folder / "peer.npy",
               *arguments)
    return made, np.load(folder / "peer.npy")


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).max())


def distances(a: np.ndarray, b: np.ndarray) -> dict:
    return {"logits": distance(a, b), "logits_rms": float(np.sqrt(np.square(a - b).mean()))}


def check_gguf(args: argparse.Namespace, brick: Brick, folder: pathlib.Path) -> dict:
    """By dtype, F16 and F32."""
    ids = brick.ids(PROMPT)
    own = brick("generate", "--prompt", PROMPT, "--max-tokens", TOKENS, "--temperature", 0, "--compute", "f32")
    found, logits = {}, {}
    for dtype in ("f16", "f32"):
        file = folder / f"{dtype}.gguf"
        exported = brick("export", "--format", "gguf", "--dtype", dtype, "--out", file)
        peer, _ = peer_logits(args, folder, ids, "llama", "--model", file, "--generate", TOKENS)
        whole = ids + peer["ids"]
        _, logits[dtype] = peer_logits(args, folder, whole, "llama", "--model", file)
        found[f"gguf {dtype}"] = {"bytes": exported["bytes"], "tokens": len(peer["ids"]),
                                  "text_equal": own["text"] == peer["text"], "text": own["text"],
                                  "llama_cpp": peer["version"], **distances(brick.logits(whole), logits[dtype])}
    if logits["f16"].shape == logits["f32"].shape:
        found["gguf f16"]["llama_cpp_from_its_f32"] = distance(logits["f16"], logits["f32"])
    return found


def check_hf(args: argparse.Namespace, brick: Brick, folder: pathlib.Path) -> dict:
    target = folder / "hf"
    exported = brick.export_or_reason("--format", "hf", "--dtype", "f32", "--pad", "--out", target)
    if "refused" in exported:
        return {"hf": exported}
    ids = brick.ids(PROMPT)
    (folder / "messages.json").write_text(json.dumps(MESSAGES))
    peer, logits = peer_logits(args, folder, ids, "hf", "--model", target, "--cases", args.cases, "--messages",
                               folder / "messages.json")
    return {"hf": {"bytes": exported["bytes"], "padded_bytes": exported["padded_bytes"], "class": peer["class"],
                   "transformers": peer["version"], "cases": peer["cases"], "cases_differing": peer["differing"],
                   "chat": peer["chat"], **distances(brick.logits(ids), logits)}}


def check_lora(args: argparse.Namespace, brick: Brick, folder: pathlib.Path) -> dict:
    base, lora = folder / "base.gguf", folder / "lora.gguf"
    brick("export", "--format", "gguf", "--dtype", "f32", "--out", base)
    exported = brick("export", "--adapter", args.adapter, "--adapter-only", "--format", "gguf", "--dtype", "f32", "--out",
                     lora)
    ids = brick.ids(PROMPT)
    plain, tuned = brick.logits(ids), brick.logits(ids, "--adapter", args.adapter)
    _, logits = peer_logits(args, folder, ids, "llama", "--model", base, "--lora", lora)
    return {"lora": {"bytes": exported["bytes"], **distances(tuned, logits), "logits_moved": distance(tuned, plain)}}


def remark(entry: dict) -> str:
    if "cases" in entry:
        padded = f"; {entry['padded_bytes'] / entry['bytes']:.0%} of the bytes are padding" if entry["padded_bytes"] else ""
        return f"{entry['cases'] - len(entry['cases_differing'])} of {entry['cases']} texts have its ids{padded}"
    if "logits_moved" in entry:
        return f"the adapter moves them by {entry['logits_moved']:.2f}"
    text = f"text of {entry['tokens']} tokens {'equal' if entry['text_equal'] else 'differs'}"
    own = entry.get("llama_cpp_from_its_f32")
    return text if own is None else f"{text}; llama.cpp's F16 is {own:.1e} from its F32"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="GGUF files, Hugging Face folders or blocks")
    parser.add_argument("--brick", default="brick", help="the command")
    parser.add_argument("--llama", required=True, help="a Python with llama-cpp-python")
    parser.add_argument("--peers", help="a Python with transformers; without it, hf is left out")
    parser.add_argument("--cases", help="JSON array of {text, ids}, for hf")
    parser.add_argument("--adapter", help="PEFT folder, for lora")
    parser.add_argument("--out", default=str(HERE / "results" / "export_round_trips.json"))
    args = parser.parse_args()
    results: dict[str, dict] = {}
    for i, model in enumerate(args.models):
        found = results[pathlib.Path(model).name] = {}
        checks = [check_gguf] + ([check_hf] if args.peers else []) + ([check_lora] if args.adapter and i == 0 else [])
        for check in checks:
            with tempfile.TemporaryDirectory() as temp:
                entries = check(args, Brick(args.brick, model, pathlib.Path(temp)), pathlib.Path(temp))
            found.update(entries)
            print(f"{model}: {entries}", file=sys.stderr)
    rows = [["model", "export", "largest difference of a logit", "root mean square", "bar", "and"]]
    missed = False
    for model, found in results.items():
        for name, entry in found.items():
            if "refused" in entry:
                rows.append([model, name, "–", "–", "–", entry["refused"]])
                continue
            missed = missed or entry["logits"] > BARS[name] or not entry.get("text_equal", True) or \
                bool(entry.get("cases_differing"))
            rows.append([model, name, f"{entry['logits']:.1e}", f"{entry['logits_rms']:.1e}", f"{BARS[name]:.0e}", remark(entry)])
    rows.insert(1, ["---"] * len(rows[0]))
    print("\n".join(f"| {' | '.join(row)} |" for row in rows))
    pathlib.Path(args.out).write_text(json.dumps({"prompt": PROMPT, "bars": BARS, "results": results}, indent=2) + "\n")
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
