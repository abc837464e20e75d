#!/usr/bin/env python3
"""Aggregates 100 adapters of SmolLM2-135M (all linear layers, r = 8; a quarter of the clients each on blocks of 0, 25, 50 and
75 %) with each rule: seconds and peak memory of `brick aggregate`, which reviews, aggregates and writes. Then FlexLoRA beside a
dense SVD by torch of the same sum, and the memory of 10 and of 1,000 clients. Needs numpy and torch.

The adapters are random but have what tuned ones have: one start, a change that all share and one of each client's own. Beyond
--distinct clients their files are hard links of earlier ones, which saves disk and changes nothing else: each is read anew.

    experiments/aggregate_scale.py model.gguf --brick build/brick --work FOLDER
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time

import numpy
import torch

HERE = pathlib.Path(__file__).resolve().parent
RANK, ALPHA, LAYERS = 8, 16, 30
D, KV, F = 576, 192, 1536
MODULES = {"self_attn.q_proj": (D, D), "self_attn.k_proj": (KV, D), "self_attn.v_proj": (KV, D), "self_attn.o_proj": (D, D),
           "mlp.gate_proj": (F, D), "mlp.up_proj": (F, D), "mlp.down_proj": (D, F)}
BLOCKS = ["", "25", "50", "75"]
RULES = ["fedit", "flexlora", "hete-h0", "hete-h1", "hete-h2", "hete-tau"]
NAME = "base_model.model.model.layers.{}.{}.lora_{}.weight"


def shapes():
    for layer in range(LAYERS):
        for module, (rows, cols) in MODULES.items():
            yield NAME.format(layer, module, "A"), (RANK, cols)
            yield NAME.format(layer, module, "B"), (rows, RANK)


def write_adapter(folder: pathlib.Path, tensors: dict) -> None:
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": [m.split(".")[1] for m in MODULES]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
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


def make_clients(work: pathlib.Path, count: int, distinct: int) -> list:
    """The start, and the folders of the clients."""
    rng = numpy.random.default_rng(7)
    normal = lambda shape, deviation: rng.standard_normal(shape, dtype=numpy.float32) * numpy.float32(deviation)
    # A as it starts, 1/sqrt(3 in) a weight; B a hundredth of that.
    size = {name: (3 * shape[1]) ** -0.5 if "lora_A" in name else 4e-4 for name, shape in shapes()}
    start = {name: normal(shape, size[name]) for name, shape in shapes()}
    shared = {name: normal(shape, size[name]) for name, shape in shapes()}
    if not (work / "start").exists():
        write_adapter(work / "start", start)
    for i in range(count):
        folder = work / f"client{i:04}"
        own = {name: normal(shape, size[name]) for name, shape in shapes()} if i < distinct else None
        if folder.exists():
            continue
        if i < distinct:
            write_adapter(folder, {n: start[n] + (0.1 if "lora_A" in n else 1) * (shared[n] + 0.5 * own[n]) for n in start})
        else:
            folder.mkdir()
            for file in (work / f"client{i % distinct:04}").iterdir():
                os.link(file, folder / file.name)
    return [work / f"client{i:04}" for i in range(count)]


# Runs a command and prints its peak memory. A process of its own: a child starts with its parent's peak, and this one has
# torch loaded.
WITH_PEAK = """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)
"""


def records(i: int) -> int:
    return 50 + 37 * i % 100


def aggregate(args, clients: list, rule: str, out: str) -> dict:
    command = [args.brick, "aggregate", "--base", args.model, "--global", args.work / "start", "--rule", rule, "--out",
               args.work / out, "--force", "--json", "--threads", "2", "--tau", "0.1"]
    for i, client in enumerate(clients):
        block = BLOCKS[i % len(BLOCKS)]
        command += ["--client", f"{client},{args.work / 'blocks' / block if block else ''},{records(i)}"]
    begun = time.time()
    done = subprocess.run([sys.executable, "-S", "-c", WITH_PEAK, *map(str, command)], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{rule} failed")
    output, peak_kb = done.stdout.rsplit("\n", 2)[:2]
    result = json.loads(output)
    if result["clients"] != len(clients):
        sys.exit(f"{rule}: {result['clients']} of {len(clients)} clients accepted: {result['rejected'][:2]}")
    measured = {"seconds": round(time.time() - begun, 2), "peak_mb": round(int(peak_kb) / 1024)}
    print(f"{len(clients):5} clients  {rule:9} {measured}", flush=True)
    return measured


def read_adapter(folder: pathlib.Path) -> dict:
    data = numpy.memmap(folder / "adapter_model.safetensors", mode="r", dtype=numpy.uint8)
    length = int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:8 + length].tobytes())
    header.pop("__metadata__", None)
    return {name: torch.frombuffer(bytearray(data[8 + length + info["data_offsets"][0]:8 + length + info["data_offsets"][1]]),
                                   dtype=torch.float32).reshape(info["shape"]) for name, info in header.items()}


def beside_torch(args, clients: list, result: pathlib.Path) -> dict:
    """The dense sum and its SVD by torch; how far Brickwork's result is from it."""
    torch.set_num_threads(2)
    adapters = [read_adapter(client) for client in clients]
    weights = torch.tensor([records(i) for i in range(len(clients))], dtype=torch.float64)
    weights = (weights / weights.sum()).float()
    ours = read_adapter(result)
    seconds = {"sum": 0.0, "svd": 0.0}
    error = energy = worst = 0.0
    for layer in range(LAYERS):
        for module in MODULES:
            a, b = NAME.format(layer, module, "A"), NAME.format(layer, module, "B")
            begun = time.time()
            left = torch.cat([adapter[b] * (w * ALPHA / RANK) for adapter, w in zip(adapters, weights)], dim=1)
            total = left @ torch.cat([adapter[a] for adapter in adapters])
            seconds["sum"] += time.time() - begun
            begun = time.time()
            u, s, vt = torch.linalg.svd(total, full_matrices=False)
            seconds["svd"] += time.time() - begun
            best = (u[:, :RANK] * s[:RANK]) @ vt[:RANK]
            mine = ours[b] @ ours[a] * (ALPHA / RANK)
            one, of = float((mine - best).double().square().sum()), float(best.double().square().sum())
            error, energy, worst = error + one, energy + of, max(worst, (one / of) ** 0.5)
    return {"seconds_sum": round(seconds["sum"], 2), "seconds_svd": round(seconds["svd"], 2),
            "difference": float(f"{(error / energy) ** 0.5:.2g}"), "difference_of_the_worst_matrix": float(f"{worst:.2g}")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--brick", default="build/brick")
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder for adapters and blocks: 1 GB a hundred adapters")
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--many", type=int, default=1000, help="clients of the memory's comparison with 10")
    parser.add_argument("--distinct", type=int, default=100)
    parser.add_argument("--rules", default=",".join(RULES))
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results" / "aggregate_scale.json")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    if not (args.work / "blocks").exists():
        subprocess.run([args.brick, "blocks", args.model, "--method", "magnitude", "--sparsities", "0.25,0.5,0.75", "--out",
                        args.work / "blocks"], check=True)
    clients = make_clients(args.work, max(args.clients, args.many), args.distinct)
    rules = args.rules.split(",")
    cpu = json.loads(subprocess.run([args.brick, "cpu", "--json"], stdout=subprocess.PIPE, check=True).stdout)
    report = {"cpu": cpu["model"], "isa": cpu["isa"], "threads": 2, "rank": RANK, "clients": args.clients,
              "distinct": args.distinct, "rules": {}, "memory": {}}
    for rule in rules:
        report["rules"][rule] = aggregate(args, clients[:args.clients], rule, rule)
    if "flexlora" in rules:
        report["flexlora_beside_torch"] = beside_torch(args, clients[:args.clients], args.work / "flexlora")
        print(report["flexlora_beside_torch"], flush=True)
    for rule in rules if args.many else []:
        few, many = (aggregate(args, clients[:n], rule, "memory")["peak_mb"] for n in (10, args.many))
        report["memory"][rule] = {"10": few, str(args.many): many}
    args.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
