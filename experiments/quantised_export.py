"""`brick export` beside llama.cpp's quantiser, tensor by tensor: writes experiments/results/quantised_export.json.

    python experiments/quantised_export.py model.gguf --brick build/brick --peer .venv-llama/bin/python

This Python needs bench/peers/requirements.txt (numpy, gguf), --peer bench/peers/requirements-llama.txt. Both sides start from one
F32 file, an export of the model. Each tensor has to have the same type on both sides. Where bytes differ, errors are root
mean squares of the difference to the F32 weights, as the gguf package decodes both.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

import gguf
import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
DTYPES = ("f16", "bf16", "q8_0", "q4_0", "q4_1", "q4_k", "q6_k")
SAME_BYTES = ("F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1")


def run(*command: object) -> None:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(map(str, command))}\n{done.stderr[-2000:]}")


def tensors(path: pathlib.Path) -> dict[str, gguf.ReaderTensor]:
    return {t.name: t for t in gguf.GGUFReader(path).tensors}


def values(tensor: gguf.ReaderTensor) -> np.ndarray:
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float64)


def rms(difference: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(difference))))


def compare_files(exact: dict, ours: dict, theirs: dict) -> dict:
    """By type: tensors, how many have equal bytes, and the ratios of errors where they differ."""
    assert ours.keys() == theirs.keys(), sorted(ours.keys() ^ theirs.keys())
    by_type: dict[str, dict] = {}
    for name, mine in ours.items():
        other = theirs[name]
        assert mine.tensor_type == other.tensor_type, (name, mine.tensor_type, other.tensor_type)
        kind = mine.tensor_type.name
        entry = by_type.setdefault(kind, {"tensors": 0, "equal": 0, "error_ratios": []})
        entry["tensors"] += 1
        if np.array_equal(mine.data.view(np.uint8), other.data.view(np.uint8)):
            entry["equal"] += 1
            continue
        wanted = exact[name].data.astype(np.float64).reshape(values(mine).shape)
        entry["error_ratios"].append(rms(values(mine) - wanted) / rms(values(other) - wanted))
    for kind, entry in by_type.items():
        ratios = entry.pop("error_ratios")
        assert not ratios or kind not in SAME_BYTES, (kind, entry)
        if ratios:
            entry |= {"error_ratio_mean": float(np.mean(ratios)), "error_ratio_largest": max(ratios)}
    return by_type


def perplexity(args: argparse.Namespace, model: pathlib.Path) -> float:
    made = subprocess.run([args.brick, "eval", model, "--text", args.text, "--length", "512", "--samples",
                           str(args.text_samples), "--json"], capture_output=True, text=True, check=True)
    return json.loads(made.stdout)["perplexity"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a GGUF file, a Hugging Face folder or a block")
    parser.add_argument("--brick", default="brick", help="the command")
    parser.add_argument("--peer", required=True, help="a Python with llama-cpp-python")
    parser.add_argument("--dtypes", default=",".join(DTYPES))
    parser.add_argument("--text", help="plain text: also the perplexity of both files where their bytes differ")
    parser.add_argument("--text-samples", type=int, default=8, help="windows of 512 of --text")
    parser.add_argument("--out", default=str(HERE / "results" / "quantised_export.json"))
    args = parser.parse_args()
    results: dict[str, dict] = {}
    rows = [["file", "type", "tensors", "equal bytes", "error beside llama.cpp's, mean (largest)"]]
    with tempfile.TemporaryDirectory() as temp:
        folder = pathlib.Path(temp)
        source, ours, theirs = folder / "f32.gguf", folder / "ours.gguf", folder / "theirs.gguf"
        run(args.brick, "export", args.model, "--format", "gguf", "--dtype", "f32", "--out", source)
        exact = tensors(source)
        for dtype in args.dtypes.split(","):
            run(args.brick, "export", source, "--format", "gguf", "--dtype", dtype, "--out", ours, "--force")
            run(args.peer, HERE / "peers" / "llama_quantise.py", "--model", source, "--out", theirs, "--dtype", dtype)
            found = compare_files(exact, tensors(ours), tensors(theirs))
            results[dtype] = {"types": found}
            for kind, entry in found.items():
                ratio = f"{entry['error_ratio_mean']:.4f} ({entry['error_ratio_largest']:.4f})" \
                    if "error_ratio_mean" in entry else "–"
                rows.append([dtype, kind, str(entry["tensors"]), str(entry["equal"]), ratio])
            if args.text and any("error_ratio_mean" in entry for entry in found.values()):
                results[dtype] |= {"perplexity": perplexity(args, ours), "perplexity_llama_cpp": perplexity(args, theirs)}
            print(f"{dtype}: {results[dtype]}", file=sys.stderr)
    rows.insert(1, ["---"] * len(rows[0]))
    print("\n".join(f"| {' | '.join(row)} |" for row in rows))
    about = {"model": pathlib.Path(args.model).name, "versions": {"llama-cpp-python": "0.3.36", "gguf": "0.19.0"},
             "text_samples": args.text_samples if args.text else 0}
    pathlib.Path(args.out).write_text(json.dumps(about | {"results": results}, indent=2) + "\n")


if __name__ == "__main__":
    main()
