"""Peak memory and speed of pruning and LoRA on a model of Llama-2-7B's shape with random Q4_0 weights, made in build/comparisons:
steps of LoRA on 512 tokens with all layers, and Wanda and SparseGPT on models of few such layers, whose differences are what
a layer costs; the whole is projected from them. Writes bench/results/big-model-<machine>.json. Needs numpy and gguf.

    python bench/big_model.py TOKENIZER.gguf

MODEL is a GGUF whose byte-level BPE tokenizer is taken. Everything is measured once: what counts is the memory.
"""

import argparse
import json
import pathlib

import gguf
import numpy

import compare

STD = 0.02  # of the weights
HEAD_DIM = 128
Q4_0_BLOCK = numpy.dtype([("scale", "<f2"), ("nibbles", "u1", 16)])  # of 32 weights


def random_q4_0(rng: numpy.random.Generator, rows: int, cols: int):
    """Pieces of a normally distributed matrix in Q4_0."""
    levels = numpy.arange(16)
    share = numpy.exp(-0.5 * ((levels - 8) / 2.7) ** 2)
    nibble = numpy.searchsorted(numpy.cumsum(share / share.sum()), (numpy.arange(256) + 0.5) / 256).astype(numpy.uint8)
    pair = (nibble[:, None] << 4 | nibble[None, :]).reshape(-1)  # of 16 random bits
    step = max(1, (32 << 20) // cols)
    for begin in range(0, rows, step):
        blocks = numpy.empty((min(begin + step, rows) - begin) * cols // 32, Q4_0_BLOCK)
        blocks["scale"] = STD / 2.7 * rng.uniform(0.8, 1.2, len(blocks)).astype(numpy.float32)
        blocks["nibbles"] = pair[rng.integers(0, 1 << 16, (len(blocks), 16), numpy.uint16)]
        yield blocks


def add_tokenizer(writer: gguf.GGUFWriter, source: gguf.GGUFReader, vocab: int) -> None:
    """The source's, cut or padded to the vocabulary."""
    fields = {name: field.contents() for name, field in source.fields.items() if name.startswith("tokenizer.")}
    tokens, types = fields["tokenizer.ggml.tokens"][:vocab], fields["tokenizer.ggml.token_type"][:vocab]
    known = set(tokens)
    kept = [merge for merge in fields["tokenizer.ggml.merges"] if known.issuperset([*merge.split(" "), merge.replace(" ", "")])]
    padding = vocab - len(tokens)
    writer.add_tokenizer_model(fields["tokenizer.ggml.model"])
    writer.add_tokenizer_pre(fields["tokenizer.ggml.pre"])
    writer.add_token_list(tokens + [f"<unused{i}>" for i in range(padding)])
    writer.add_token_types(types + [int(gguf.TokenType.UNUSED)] * padding)
    writer.add_token_merges(kept)
    writer.add_bos_token_id(fields["tokenizer.ggml.bos_token_id"])
    writer.add_eos_token_id(fields["tokenizer.ggml.eos_token_id"])
    writer.add_add_bos_token(False)
    writer.add_chat_template(fields["tokenizer.chat_template"])


def make_model(path: pathlib.Path, args: argparse.Namespace, layers: int) -> None:
    hidden, ffn = args.hidden, args.ffn
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(layers)
    writer.add_context_length(4096)
    writer.add_embedding_length(hidden)
    writer.add_feed_forward_length(ffn)
    writer.add_head_count(hidden // HEAD_DIM)
    writer.add_head_count_kv(hidden // HEAD_DIM)
    writer.add_rope_dimension_count(HEAD_DIM)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(args.vocab)
    add_tokenizer(writer, gguf.GGUFReader(args.model), args.vocab)

    matrices = {"attn_q": (hidden, hidden), "attn_k": (hidden, hidden), "attn_v": (hidden, hidden), "attn_output": (hidden, hidden),
                "ffn_gate": (ffn, hidden), "ffn_up": (ffn, hidden), "ffn_down": (hidden, ffn)}
    shapes = {"token_embd": (args.vocab, hidden), "output_norm": (hidden,), "output": (args.vocab, hidden)}
    for i in range(layers):
        shapes |= {f"blk.{i}.{name}": shape for name, shape in matrices.items()}
        shapes |= {f"blk.{i}.attn_norm": (hidden,), f"blk.{i}.ffn_norm": (hidden,)}

    def size(shape: tuple) -> int:
        return 4 * shape[0] if len(shape) == 1 else shape[0] * shape[1] // 32 * Q4_0_BLOCK.itemsize

    for name, shape in shapes.items():
        dtype = gguf.GGMLQuantizationType.F32 if len(shape) == 1 else gguf.GGMLQuantizationType.Q4_0
        writer.add_tensor_info(f"{name}.weight", shape, numpy.dtype(numpy.float32), size(shape), raw_dtype=dtype)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    rng = numpy.random.default_rng(0)
    alignment = gguf.GGUF_DEFAULT_ALIGNMENT
    with open(path, "ab") as file:
        file.write(bytes(-file.tell() % alignment))
        for shape in shapes.values():
            for piece in [numpy.ones(shape, numpy.float32)] if len(shape) == 1 else random_q4_0(rng, *shape):
                file.write(piece.tobytes())
            file.write(bytes(-size(shape) % alignment))


def run(args: argparse.Namespace, *command: object) -> dict:
    made = compare.run_json(args, [args.brick, *command, "--threads", args.threads, "--json"])
    return made | {"wall_seconds": round(made["process_seconds"], 1), "peak_rss_gib": round(made["process_peak_rss_mb"] / 1024, 3)}


def tune(args: argparse.Namespace, model: pathlib.Path, memory: str) -> dict:
    record = {"instruction": "Count.", "response": " ".join(str(i) for i in range(args.length))}  # cut at --length
    data = compare.WORK / "count.jsonl"
    data.write_text(json.dumps(record) + "\n")
    result = run(args, "tune", model, "--data", data, "--out", compare.WORK / "big-adapter", "--force", "--steps", args.steps,
                 "--batch-tokens", args.length, "--length", args.length, "--memory", memory, "--compute", args.compute)
    return {key: result[key] for key in ("steps", "tokens", "tokens_per_second", "loss_first", "loss_last", "compute",
                                         "wall_seconds", "peak_rss_gib")}


def prune(args: argparse.Namespace, model: pathlib.Path, method: str, layers: int) -> dict:
    ids = numpy.random.default_rng(1).integers(0, args.vocab, (args.samples, args.window))
    numpy.save(compare.WORK / "big-ids.npy", ids)
    result = run(args, "prune", model, "--method", method, "--sparsity", 0.5, "--calibration", compare.WORK / "big-ids.npy",
                 "--values", args.values, "--out", compare.WORK / "big-block", "--force", "--compute", args.compute)
    return {"layers": layers, "bytes": result["bytes"], "wall_seconds": result["wall_seconds"], "peak_rss_gib": result["peak_rss_gib"]}


def project(runs: list, layers: int) -> dict:
    """The straight line through the first and last run, at `layers`."""
    low, high = runs[0], runs[-1]

    def at(key: str) -> float:
        slope = (high[key] - low[key]) / (high["layers"] - low["layers"])
        return round(high[key] + slope * (layers - high["layers"]), 2)

    return {"layers": layers, "bytes": at("bytes"), "wall_seconds": at("wall_seconds"), "peak_rss_gib": at("peak_rss_gib")}


def main() -> None:
    parser = compare.make_parser(__doc__)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--ffn", type=int, default=11008)
    parser.add_argument("--vocab", type=int, default=32000)
    parser.add_argument("--prune-layers", type=int, nargs="+", default=[2, 3])
    parser.add_argument("--samples", type=int, default=32, help="calibration windows")
    parser.add_argument("--window", type=int, default=512, help="tokens each")
    parser.add_argument("--values", default="bf16")
    parser.add_argument("--length", type=int, default=512, help="tokens a step")
    parser.add_argument("--steps", type=int, default=1)
    parser.add_argument("--compute", default="auto")
    parser.add_argument("--memory", nargs="*", choices=["auto", "low"], default=["auto", "low"], help="to tune with")
    parser.add_argument("--methods", nargs="*", choices=["wanda", "sparsegpt"], default=["wanda", "sparsegpt"])
    args = compare.parse(parser, "big-model", smoke={"layers": 2, "hidden": 1024, "ffn": 2816, "prune_layers": [1, 2], "samples": 4,
                                                     "window": 128, "length": 128})

    args.runs = 1  # of each: what is compared is memory

    def model(layers: int) -> pathlib.Path:
        path = compare.WORK / f"random-{args.hidden}x{args.ffn}-{args.vocab}-{layers}.gguf"
        if not path.exists():
            beside = path.with_suffix(".partial")
            make_model(beside, args, layers)
            beside.rename(path)
        return path

    arms, ratios, whole = {}, {}, {}
    for memory in args.memory:
        made = args.journal.once(f"tune {memory}", lambda memory=memory: tune(args, model(args.layers), memory))
        print(f"tune --memory {memory}:", made, flush=True)
        arms[f"tune {memory}"] = {"title": f"LoRA, {args.layers} layers, {args.length} tokens a step, --memory {memory}, {made['compute']}",
                                  "columns": {"peak GiB": made["peak_rss_gib"], "seconds in all": made["wall_seconds"],
                                              "tokens/s": made["tokens_per_second"]}}
        ratios[f"tune_{memory}_gib"] = made["peak_rss_gib"]
    for method in args.methods:
        runs = [args.journal.once(f"{method} {layers}", lambda method=method, layers=layers: prune(args, model(layers), method, layers))
                for layers in sorted(args.prune_layers)]
        print(f"{method}:", runs, flush=True)
        whole[method] = [project(runs, args.layers)] if len(runs) > 1 else []
        for made in runs + whole[method]:
            title = f"{method} 50 %, {made['layers']} layers, {args.samples}×{args.window} tokens{'' if made in runs else ', projected'}"
            arms[f"{method} {made['layers']}"] = {"title": title, "columns": {"peak GiB": made["peak_rss_gib"],
                                                                             "seconds in all": made["wall_seconds"]}}
        ratios[f"{method}_gib"] = runs[0]["peak_rss_gib"]
    compare.write(args, ["layers", "hidden", "ffn", "vocab", "samples", "window", "values", "length", "steps", "compute"], arms, ratios,
                  projected=whole)


if __name__ == "__main__":
    compare.run_main(main)
