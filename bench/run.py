"""All comparisons of this folder on this machine, then the report: what `make bench` runs.

    python3 bench/run.py model.gguf [--only training,decode] [--runs 7] [--smoke] [--isa avx2]

Makes the peers' environments once, in build/peers and build/llama (BENCH_PEERS and BENCH_LLAMA name others). What an
interrupted run has measured is kept. Comparisons that need the data sets are left out where BRICK_DATA is absent. Nothing
else should run meanwhile.
"""

import argparse
import hashlib
import os
import pathlib
import subprocess
import sys
import time

import compare

BUILD = compare.HERE.parent / "build"
# All that the machine has but AMX, with which this version of llama.cpp crashes.
LLAMA_TARGET = "-DGGML_NATIVE=ON" if "amx_tile" not in pathlib.Path("/proc/cpuinfo").read_text() else "-DGGML_NATIVE=OFF " + " ".join(
    f"-DGGML_{name}=ON" for name in ("AVX", "AVX2", "FMA", "F16C", "BMI2", "AVX512", "AVX512_VBMI", "AVX512_VNNI", "AVX512_BF16"))
LLAMA_FLAGS = f"{LLAMA_TARGET} -DLLAMA_BUILD_TESTS=OFF -DLLAVA_BUILD=OFF"
# Comparison: script, environment; minutes on two Zen 3 cores.
SCRIPTS = {"limits": ("limits.py", "peers", 1), "training": ("compare_training.py", "peers", 20), "dolly": ("compare_dolly.py", "peers", 20),
           "pruning": ("compare_pruning.py", "peers", 35), "decode": ("compare_decode.py", "llama", 8), "blocks": ("compare_blocks.py", "peers", 12),
           "aggregation": ("aggregate_scale.py", "peers", 15), "big-model": ("big_model.py", "peers", 15),
           "length": ("length_and_threads.py", "peers", 16), "profile": ("profile_training.py", "peers", 3)}


def environment(name: str, requirements: pathlib.Path) -> str:
    """The Python of an environment with the requirements, made where it is not there or they have changed."""
    if given := os.environ.get(f"BENCH_{name.upper()}"):
        return str(pathlib.Path(given) / "bin" / "python")
    folder = BUILD / name
    python, stamp = folder / "bin" / "python", folder / "made-from"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        print(f"making {folder} from {requirements}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "--no-cache-dir", "-r", requirements], check=True,
                       env=os.environ | {"CMAKE_ARGS": os.environ.get("CMAKE_ARGS", LLAMA_FLAGS)})
        stamp.write_text(wanted)
    return str(python)


def data_options(what: str, data: pathlib.Path) -> list | None:
    """What a comparison takes from the data sets; None where it can't do without them and they are absent."""
    wiki, dolly = data / "wikitext2", data / "dolly15k"
    needs = {"dolly": {"--data": dolly / "local_training_0.json", "--test": dolly / "global_test.json"},
             "pruning": {"--calibration": wiki / "wiki.valid.tokens.txt", "--text": wiki / "wiki.test.tokens.txt"},
             "decode": {"--text": wiki / "wiki.test.tokens.txt"}}.get(what, {})
    if all(path.is_file() for path in needs.values()):
        return [str(word) for pair in needs.items() for word in pair]
    return [] if what == "decode" else None  # its perplexity alone needs them


def exported(model: str, brick: str) -> pathlib.Path:
    folder = compare.WORK / f"{pathlib.Path(model).stem}-f32"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([brick, "export", model, "--format", "hf", "--dtype", "f32", "--out", folder], check=True, stdout=subprocess.DEVNULL)
    return folder


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--brick", default=str(BUILD / "brick"))
    parser.add_argument("--only", default=",".join(SCRIPTS), help="of %(default)s, separated by commas")
    parser.add_argument("--data", type=pathlib.Path, default=os.environ.get("BRICK_DATA", "../shared/data"))
    parser.add_argument("--runs", help="passed on, as are --smoke, --fresh and --isa")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--isa")
    args = parser.parse_args()
    chosen = args.only.split(",")
    if unknown := set(chosen) - set(SCRIPTS):
        parser.error(f"--only: {', '.join(sorted(unknown))}: expected {', '.join(SCRIPTS)}")
    pythons = {name: environment(name, compare.PEERS / file) for name, file in
               {"peers": "requirements.txt", "llama": "requirements-llama.txt"}.items() if name == "peers" or any(SCRIPTS[w][1] == name for w in chosen)}
    print(f"{', '.join(chosen)}: about {sum(SCRIPTS[what][2] for what in chosen)} min on two Zen 3 cores" +
          (" without --smoke" if args.smoke else ""), file=sys.stderr)
    passed = [word for name in ("smoke", "fresh") if getattr(args, name) for word in [f"--{name}"]]
    passed += [word for name in ("runs", "isa") if getattr(args, name) for word in [f"--{name}", getattr(args, name)]]
    failed = []
    for what in chosen:
        script, peer, _ = SCRIPTS[what]
        options = data_options(what, args.data)
        if options is None:
            print(f"{what}: skipped, {args.data} (BRICK_DATA) does not have its data sets", file=sys.stderr)
            continue
        if script in ("compare_training.py", "compare_dolly.py", "compare_pruning.py"):
            options += ["--hf-folder", str(exported(args.model, args.brick))]
        if script not in ("compare_blocks.py", "big_model.py", "length_and_threads.py", "profile_training.py"):
            options += ["--python", pythons[peer]]
        print(f"== {what}", flush=True)
        begin = time.monotonic()
        done = subprocess.run([pythons["peers"], compare.HERE / script, args.model, "--brick", args.brick, *options, *passed])
        print(f"{what}: {(time.monotonic() - begin) / 60:.1f} min", file=sys.stderr)
        failed += [what] if done.returncode != 0 else []
    if not args.smoke:
        subprocess.run([pythons["peers"], compare.HERE / "report.py"], check=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
