"""Prefill and decoding speed of brick beside llama.cpp, on one machine and one GGUF file: runs both in turn and writes
bench/results/decode-<machine>.json.

    python bench/compare_decode.py model.gguf --python .venv-llama/bin/python --text wiki.test.tokens.txt

--python is one with bench/peers/requirements-llama.txt, which says how llama.cpp is built. It is fixed to the instruction
sets that it was built for: --isa avx2 needs one built for AVX2 and refuses another.

Timed on both sides, after one untimed repetition and as the median of --repeats: prefill is 512 random ids from an empty
cache to the last one's logits, decoding feeds --decode-tokens random ids one at a time after 16 others. No loading,
tokenising, sampling. llama.cpp's figures are those of its fastest setting of flash attention and micro-batch. Perplexity
is over the first --text-samples windows of 512 of --text, where that is given, brick's with the arithmetic that was timed.
"""

import argparse
import json
import pathlib
import tempfile

import compare

LENGTH = 512
KINDS = {"prefill": "prefill of 512", "decode": "decoding"}
TIMED = {
    "prefill": "512 random ids from an empty cache to the last one's logits",
    "decode": "random ids one at a time after 16 others, each to its logits, without sampling",
}


def run_brick(args: argparse.Namespace) -> dict:
    common = ["--compute", args.compute, "--threads", args.threads, "--json"]
    made = compare.run_json(args, [args.brick, "bench", args.model, "--what", "prefill,decode", "--decode-tokens",
                                   args.decode_tokens, "--repeats", args.repeats, *common])
    keys = [f"{kind}_tokens_per_second{end}" for kind in KINDS for end in ("", "_spread")]
    return {key: made[key] for key in [*keys, "peak_rss_mb", "isa", "compute", "threads"]}


def brick_perplexity(args: argparse.Namespace) -> float:
    return compare.run_json(args, [args.brick, "eval", args.model, "--text", args.text, "--length", LENGTH, "--samples",
                                   args.text_samples, "--compute", args.compute, "--threads", args.threads,
                                   "--json"])["perplexity"]


def run_llama(args: argparse.Namespace, ids: str | None) -> dict:
    made = compare.run_json(args, [args.python, compare.PEERS / "llama_decode.py", "--model", args.model,
                                   "--decode-tokens", args.decode_tokens, "--repeats", args.repeats, "--threads",
                                   args.threads] + (["--ids", ids] if ids else []))
    if args.isa == "avx2" and "AVX512 = 1" in made["system"]:
        raise SystemExit("this llama.cpp is built for AVX-512; --isa avx2 needs a --python with one built for AVX2 "
                         "(bench/peers/requirements-llama.txt)")
    del made["process_seconds"], made["process_peak_rss_mb"]  # with the perplexity, where there is one
    return made


def write_windows(args: argparse.Namespace, path: str) -> None:
    ids = compare.run_json(args, [args.brick, "tokenize", args.model, "--file", args.text, "--json"])["ids"]
    if len(ids) < args.text_samples * LENGTH:
        raise SystemExit(f"{args.text}: {len(ids)} tokens, {args.text_samples} windows of {LENGTH} need more")
    windows = [ids[i * LENGTH:(i + 1) * LENGTH] for i in range(args.text_samples)]
    pathlib.Path(path).write_text(json.dumps(windows))


def main() -> None:
    parser = compare.make_parser(__doc__, "llama-cpp-python")
    parser.add_argument("--text", help="plain text that perplexity is measured on")
    parser.add_argument("--text-samples", type=int, default=8, help="windows of --text")
    parser.add_argument("--compute", choices=["auto", "f32", "bf16"], default="auto", help="brick's arithmetic")
    parser.add_argument("--decode-tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5, help="of each run, after a warm-up")
    args = compare.parse(parser, "decode", smoke={"decode_tokens": 16, "repeats": 1, "text_samples": 1})
    with tempfile.TemporaryDirectory() as temp:
        ids = str(pathlib.Path(temp) / "windows.json") if args.text else None
        if ids:
            write_windows(args, ids)
        runs = compare.in_turn(
            args, "decode",
            {"brick": lambda turn: run_brick(args) | ({"perplexity": brick_perplexity(args)} if ids and turn == 0 else {}),
             "llama": lambda turn: run_llama(args, ids if turn == 0 else None)},
            lambda run: " and ".join(f"{run[f'{kind}_tokens_per_second']:.0f}" for kind in KINDS) + " tokens/s")
    ours, peer = runs["brick"][0], runs["llama"][0]
    summaries = {f"{title}, tokens/s": f"{kind}_tokens_per_second" for kind, title in KINDS.items()} | {"peak MB": "peak_rss_mb"}
    firsts = {"perplexity": "perplexity"} if ids else {}
    arms = {"brick": compare.arm(f"brick, {ours['compute']} on {ours['isa']}", runs["brick"], summaries, firsts),
            "llama": compare.arm(f"llama.cpp ({peer['llama_cpp_python']} of llama-cpp-python)", runs["llama"], summaries, firsts)}
    ratios = {kind: compare.ratio(*(compare.values(made, f"{kind}_tokens_per_second") for made in runs.values())) for kind in KINDS}
    compare.write(args, ["compute", "decode_tokens", "repeats", "text_samples"], arms, ratios, timed=TIMED,
                  note=f"llama.cpp: {peer['system']}", versions={"llama_cpp_python": peer["llama_cpp_python"]},
                  texts={"perplexity": pathlib.Path(args.text).name if args.text else None}, runs=runs)


if __name__ == "__main__":
    compare.run_main(main)
