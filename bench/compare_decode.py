"""Prefill and decoding speed of brick beside llama.cpp, on one machine and one GGUF file: runs both in turn and writes
bench/results/decode-<cpu>.json.

    python bench/compare_decode.py model.gguf --brick build/release/brick --python .venv-llama/bin/python \\
        --text wiki.test.tokens.txt

--python is one with bench/peers/requirements-llama.txt, which says how llama.cpp is built. It is fixed to the instruction
sets that it was built for: --isa avx2 needs one built for AVX2 and refuses another.

Timed on both sides, after one untimed repetition and as the median of --repeats: prefill is 512 random ids from an empty
cache to the last one's logits, decoding feeds --decode-tokens random ids one at a time after 16 others. No loading,
tokenising, sampling. llama.cpp's figures are those of its fastest setting of flash attention and micro-batch. Perplexity
is over the first --text-samples windows of 512 of --text, brick's with the arithmetic that was timed.
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
    parser = compare.make_parser(__doc__, "llama-cpp-python", dtypes=None)
    parser.add_argument("--text", required=True, help="plain text that perplexity is measured on")
    parser.add_argument("--text-samples", type=int, default=8, help="windows of --text")
    parser.add_argument("--compute", choices=["auto", "f32", "bf16"], default="auto", help="brick's arithmetic")
    parser.add_argument("--decode-tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5, help="of each run, after a warm-up")
    args = compare.parse(parser)
    with tempfile.TemporaryDirectory() as temp:
        ids = str(pathlib.Path(temp) / "windows.json")
        write_windows(args, ids)
        runs = compare.in_turn(
            args, "decode",
            {"brick": lambda turn: run_brick(args) | ({"perplexity": brick_perplexity(args)} if turn == 0 else {}),
             "llama": lambda turn: run_llama(args, ids if turn == 0 else None)},
            lambda run: " and ".join(f"{run[f'{kind}_tokens_per_second']:.0f}" for kind in KINDS) + " tokens/s")
    results = {"peak_rss_mb": {name: compare.summary(compare.values(made, "peak_rss_mb")) for name, made in runs.items()},
               "perplexity": {name: made[0]["perplexity"] for name, made in runs.items()}}
    arithmetic = f"{runs['brick'][0]['compute']} on {runs['brick'][0]['isa']}"
    rows = [["", f"brick ({arithmetic}), tokens/s", "llama.cpp, tokens/s", "brick / llama.cpp"]]
    for kind, title in KINDS.items():
        speeds = {name: compare.values(made, f"{kind}_tokens_per_second") for name, made in runs.items()}
        results[kind] = {"brick_tokens_per_second": compare.summary(speeds["brick"]),
                         "llama_tokens_per_second": compare.summary(speeds["llama"]),
                         "speed_ratio": compare.ratio(speeds["brick"], speeds["llama"])}
        rows.append([title, *(compare.cell(value, 2 if key == "speed_ratio" else 0)
                              for key, value in results[kind].items())])
    compare.print_table(rows)
    peer = runs["llama"][0]
    print(f"\nPerplexity over {args.text_samples} windows of {LENGTH}: brick {results['perplexity']['brick']:.3f}, "
          f"llama.cpp {results['perplexity']['llama']:.3f}. {args.threads} threads. llama.cpp: {peer['system']}")
    compare.write(args, "decode", {"llama_cpp_python": peer["llama_cpp_python"]},
                  ["compute", "decode_tokens", "repeats", "text_samples"], results | {"runs": runs}, timed=TIMED,
                  texts={"perplexity": pathlib.Path(args.text).name})


if __name__ == "__main__":
    main()
