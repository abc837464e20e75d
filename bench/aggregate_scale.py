"""Aggregates 100 adapters of SmolLM2-135M (all linear layers, r = 8; a quarter of the clients each on blocks of 0, 25, 50 and
75 %) with each rule: seconds and peak memory of `brick aggregate`, which reviews, aggregates and writes. Beside FlexLoRA the
dense SVD of the same sum in torch; then the memory of 10 and of 1,000 clients. Writes bench/results/aggregation-<machine>.json.

    python bench/aggregate_scale.py model.gguf --python .venv/bin/python

The adapters, 1 GB in build/comparisons, are random but have what tuned ones have: one start, a change that all share and one of
each client's own. Beyond --distinct clients their files are hard links of earlier ones, which saves disk and changes nothing
else: each is read anew. Both times have the reading in them, brick's also its start, its checks and the writing.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import subprocess

import numpy

import compare

RANK, ALPHA, LAYERS = 8, 16, 30
D, KV, F = 576, 192, 1536
MODULES = {"self_attn.q_proj": (D, D), "self_attn.k_proj": (KV, D), "self_attn.v_proj": (KV, D), "self_attn.o_proj": (D, D),
           "mlp.gate_proj": (F, D), "mlp.up_proj": (F, D), "mlp.down_proj": (D, F)}
BLOCKS = ["", "25", "50", "75"]
RULES = ["fedit", "flexlora", "hete-h0", "hete-h1", "hete-h2", "hete-tau"]
FEW = 10
NAME = "base_model.model.model.layers.{}.{}.lora_{}.weight"


def shapes():
    for layer in range(LAYERS):
        for module, (rows, cols) in MODULES.items():
            yield NAME.format(layer, module, "A"), (RANK, cols)
            yield NAME.format(layer, module, "B"), (rows, RANK)


def write_adapter(folder: pathlib.Path, tensors: dict) -> None:
    folder.mkdir(parents=True)
    header, at = {}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [at, at + tensor.nbytes]}
        at += tensor.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(folder / "adapter_model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            file.write(tensor.tobytes())
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": [m.split(".")[1] for m in MODULES]}
    (folder / "adapter_config.json").write_text(json.dumps(config))  # last: a folder with it is whole


def make_clients(work: pathlib.Path, count: int, distinct: int) -> None:
    rng = numpy.random.default_rng(7)
    normal = lambda shape, deviation: rng.standard_normal(shape, dtype=numpy.float32) * numpy.float32(deviation)
    # A as it starts, 1/sqrt(3 in) a weight; B a hundredth of that.
    size = {name: (3 * shape[1]) ** -0.5 if "lora_A" in name else 4e-4 for name, shape in shapes()}
    start = {name: normal(shape, size[name]) for name, shape in shapes()}
    shared = {name: normal(shape, size[name]) for name, shape in shapes()}
    for i, folder in [(-1, work / "start")] + list(enumerate(client_folders(work, count))):
        own = {name: normal(shape, size[name]) for name, shape in shapes()} if 0 <= i < distinct else None
        if (folder / "adapter_config.json").exists():
            continue
        if folder.exists():
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
        if i < 0:
            write_adapter(folder, start)
        elif i < distinct:
            write_adapter(folder, {n: start[n] + (0.1 if "lora_A" in n else 1) * (shared[n] + 0.5 * own[n]) for n in start})
        else:
            folder.mkdir()
            for name in ("adapter_model.safetensors", "adapter_config.json"):
                os.link(work / f"client{i % distinct:04}" / name, folder / name)


def client_folders(work: pathlib.Path, count: int) -> list[pathlib.Path]:
    return [work / f"client{i:04}" for i in range(count)]


def records(i: int) -> int:
    return 50 + 37 * i % 100


def aggregate(args: argparse.Namespace, work: pathlib.Path, rule: str, count: int) -> dict:
    command = [args.brick, "aggregate", "--base", args.model, "--global", work / "start", "--rule", rule, "--out",
               work / f"made-{rule}", "--force", "--json", "--threads", args.threads, "--tau", "0.1"]
    for i, client in enumerate(client_folders(work, count)):
        block = BLOCKS[i % len(BLOCKS)]
        command += ["--client", f"{client},{work / 'blocks' / block if block else ''},{records(i)}"]
    result = compare.run_json(args, command)
    if result["clients"] != count:
        raise SystemExit(f"{rule}: {result['clients']} of {count} clients accepted: {result['rejected'][:2]}")
    return {"seconds": result["process_seconds"], "peak_rss_mb": result["process_peak_rss_mb"]}


def beside_torch(args: argparse.Namespace, work: pathlib.Path) -> dict:
    listed = work / "clients.json"
    listed.write_text(json.dumps([[str(folder), records(i)] for i, folder in enumerate(client_folders(work, args.clients))]))
    made = compare.run_json(args, [args.python, compare.PEERS / "torch_svd.py", "--clients", listed, "--ours",
                                   work / "made-flexlora", "--threads", args.threads])
    return made | {"peak_rss_mb": made["process_peak_rss_mb"]}


def main() -> None:
    parser = compare.make_parser(__doc__, "torch")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--many", type=int, default=1000, help=f"clients of the memory's comparison with {FEW}; 0: none")
    parser.add_argument("--distinct", type=int, default=100)
    parser.add_argument("--rules", default=",".join(RULES))
    parser.add_argument("--many-rules", default="flexlora,hete-h0,hete-tau", help="whose memory is compared")
    args = compare.parse(parser, "aggregation", smoke={"clients": 12, "many": 24, "distinct": 12})
    work = compare.WORK / f"adapters-{args.distinct}"
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "blocks").exists():
        subprocess.run([args.brick, "blocks", args.model, "--method", "magnitude", "--sparsities", "0.25,0.5,0.75", "--out",
                        work / "blocks"], check=True, stdout=subprocess.DEVNULL)
    # A process of its own: a child's peak memory starts with its parent's.
    maker = multiprocessing.Process(target=make_clients, args=(work, max(args.clients, args.many), args.distinct))
    maker.start(), maker.join()
    if maker.exitcode != 0:
        raise SystemExit("the adapters could not be made")
    programs = {rule: (lambda _, rule=rule: aggregate(args, work, rule, args.clients)) for rule in args.rules.split(",")}
    if "flexlora" in programs:
        programs["torch"] = lambda _: beside_torch(args, work)
    runs = compare.in_turn(args, "aggregation", programs, lambda run: f"{run['seconds']:.1f} s")
    memory = {}
    for rule in args.many_rules.split(",") if args.many else []:
        memory[rule] = {str(count): args.journal.once(f"{rule} of {count}", lambda rule=rule, count=count: aggregate(
            args, work, rule, count))["peak_rss_mb"] for count in (FEW, args.many)}
    arms, ratios = {}, {}
    for name, made in runs.items():
        arms[name] = compare.arm("torch, dense SVD" if name == "torch" else name, made, {"seconds": "seconds", "peak MB": "peak_rss_mb"}, {})
        if name in memory:
            arms[name]["columns"] |= {f"MB of {count} clients": mb for count, mb in memory[name].items()}
        if name != "torch":
            ratios[f"{name}_seconds"] = arms[name]["columns"]["seconds"]
    note = None
    if "torch" in runs:
        ratios["flexlora"] = compare.ratio(compare.values(runs["torch"], "seconds"), compare.values(runs["flexlora"], "seconds"))
        ratios["flexlora_difference"] = max(compare.values(runs["torch"], "difference_of_the_worst_matrix"))
        medians = {what: compare.summary(compare.values(runs["torch"], f"seconds_{what}"))["median"] for what in ("read", "sum", "svd")}
        note = "Of torch's seconds: " + ", ".join(f"{what} {value:.1f}" for what, value in medians.items()) + "."
    if memory:
        ratios["memory_growth"] = max(of[str(args.many)] / of[str(FEW)] for of in memory.values())
    compare.write(args, ["clients", "many", "distinct"], arms, ratios, note=note, memory=memory, runs=runs)


if __name__ == "__main__":
    compare.run_main(main)
