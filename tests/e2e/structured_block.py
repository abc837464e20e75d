#!/usr/bin/env python3
"""Cuts a structured block out of a float32 Hugging Face folder (`brick export --format hf --dtype f32`), by the standard library
alone and by places, not by importance: for tests, and to try a federation of structured blocks without a pruner.

    tests/e2e/structured_block.py FOLDER --keep-kv 2/3 --keep-neurons 2/3 --drop-layers 20,21 --out BLOCK
"""
import argparse
import array
import json
import shutil
import struct
from fractions import Fraction
from pathlib import Path

QUERIES, KEYS, NEURONS = ("q_proj",), ("k_proj", "v_proj"), ("gate_proj", "up_proj")


def read_tensors(path):
    """name -> (shape, array of float32)."""
    data = memoryview(Path(path).read_bytes())
    length = struct.unpack("<Q", data[:8])[0]
    tensors = {}
    for name, entry in json.loads(bytes(data[8:8 + length])).items():
        if name == "__metadata__":
            continue
        if entry["dtype"] != "F32":
            raise SystemExit(f"{path}: {name} is {entry['dtype']}; export the folder with --dtype f32")
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        tensors[name] = entry["shape"], array.array("f", bytes(data[begin:end]))
    return tensors


def write_tensors(path, tensors):
    """name -> (dtype, shape, bytes)."""
    header, at = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for _, _, data in tensors.values():
            out.write(data)


def take(matrix, rows, cols):
    (height, width), values = matrix
    out = array.array("f")
    for r in range(height) if rows is None else rows:
        row = values[r * width:(r + 1) * width]
        out.extend(row if cols is None else array.array("f", map(row.__getitem__, cols)))
    return [height if rows is None else len(rows), width if cols is None else len(cols)], out


def cut_block(folder, out, cuts, sparsity):
    """`cuts`: of each layer that stays its place in the parent, "layer", and the kept "kv_heads" and "neurons" (indices)."""
    folder, out = Path(folder), Path(out)
    config = json.loads((folder / "config.json").read_text())
    tensors = read_tensors(folder / "model.safetensors")
    heads, kv_heads, ffn = config["num_attention_heads"], config["num_key_value_heads"], config["intermediate_size"]
    dim, group = config.get("head_dim") or config["hidden_size"] // heads, heads // kv_heads
    stored, written = {}, {}

    def add(name, matrix):
        shape, values = matrix
        written[name] = "F32", shape, values.tobytes()
        if len(shape) == 2:
            stored[name] = {"coding": "dense", "dtype": "f32", "shape": shape, "kept": shape[0] * shape[1]}

    for name, tensor in tensors.items():
        if not name.startswith("model.layers."):
            add(name, tensor)
    layers = []
    for i, cut in enumerate(cuts):
        kept_heads = [group * kv + j for kv in cut["kv_heads"] for j in range(group)]
        units = {**dict.fromkeys(QUERIES, [dim * h + d for h in kept_heads for d in range(dim)]),
                 **dict.fromkeys(KEYS, [dim * h + d for h in cut["kv_heads"] for d in range(dim)]),
                 **dict.fromkeys(NEURONS, cut["neurons"])}
        prefix = f"model.layers.{cut['layer']}."
        for name in (n for n in tensors if n.startswith(prefix)):
            module, own = name.split(".")[-2], f"model.layers.{i}." + name[len(prefix):]
            columns = {"o_proj": units["q_proj"], "down_proj": units["up_proj"]}.get(module)
            is_matrix = len(tensors[name][0]) == 2
            add(own, take(tensors[name], units.get(module), columns) if is_matrix else tensors[name])
        for kind, kept in (("self_attn.kept_heads", kept_heads), ("self_attn.kept_kv_heads", cut["kv_heads"]),
                           ("mlp.kept_neurons", cut["neurons"])):
            written[f"model.layers.{i}.{kind}"] = "I32", [len(kept)], array.array("i", kept).tobytes()
        layers.append({"heads": len(kept_heads), "kv_heads": len(cut["kv_heads"]), "head_dim": dim, "ffn": len(cut["neurons"]),
                       "parent": {"layer": cut["layer"], "heads": heads, "kv_heads": kv_heads, "ffn": ffn}})
    frequencies = [config["rope_theta"] ** (-2 * i / dim) for i in range(dim // 2)]
    config["brick"] = {"format": 1, "method": "by place", "pattern": "", "sparsity": sparsity, "values": "f32",
                       "inverse_frequency": frequencies, "layers": layers, "parent_layers": config["num_hidden_layers"],
                       "tensors": stored}
    config |= {"model_type": "brickwork_block", "num_hidden_layers": len(layers)}
    out.mkdir(parents=True)
    (out / "config.json").write_text(json.dumps(config))
    write_tensors(out / "model.safetensors", written)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"):
        if (folder / name).exists():
            shutil.copy(folder / name, out / name)
    return out


def even(count, share):
    """round(count * share) of `count` places, evenly spread."""
    kept = max(1, round(count * share))
    return [i * count // kept for i in range(kept)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--keep-kv", type=Fraction, default=Fraction(1), help="share of the key/value heads, with their query heads")
    parser.add_argument("--keep-neurons", type=Fraction, default=Fraction(1))
    parser.add_argument("--drop-layers", default="", help="indices, by commas")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    config = json.loads((args.folder / "config.json").read_text())
    dropped = {int(i) for i in args.drop_layers.split(",") if i}
    kept = [i for i in range(config["num_hidden_layers"]) if i not in dropped]
    kv_heads, neurons = even(config["num_key_value_heads"], args.keep_kv), even(config["intermediate_size"], args.keep_neurons)
    share = len(neurons) / config["intermediate_size"] * len(kept) / config["num_hidden_layers"]
    cut_block(args.folder, args.out, [{"layer": i, "kv_heads": kv_heads, "neurons": neurons} for i in kept], round(1 - share, 2))


if __name__ == "__main__":
    main()
