"""What the comparisons of this folder share: options, running both programs in turn, ratios, the results file, tables.

Ours and theirs run in turn, so that whatever else the machine does meets both alike. Ratios are of each turn's runs;
a figure is a median with its range.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

HERE = pathlib.Path(__file__).resolve().parent
PEERS = HERE / "peers"
COMPUTE = {"float32": "f32", "bfloat16": "bf16"}  # torch's name -> brick's
LEAST_RUNS = 5
# brick; torch's own kernels, its oneDNN and its MKL, which each choose for themselves.
AVX2 = {"BRICK_ISA": "avx2", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


def make_parser(doc: str, peer: str, dtypes: str | None = "float32") -> argparse.ArgumentParser:
    """The options of every comparison; `dtypes` None where the arithmetic is not the caller's choice."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="what brick works on: a GGUF file, a Hugging Face folder or a block")
    parser.add_argument("--brick", default="brick", help="the command")
    parser.add_argument("--python", default=sys.executable, help=f"one with {peer}")
    if dtypes is not None:
        parser.add_argument("--hf-folder", help=f"what {peer} works on (default: an export of the model, float32)")
        parser.add_argument("--dtypes", default=dtypes, help="float32, bfloat16 or both, separated by commas")
    parser.add_argument("--runs", type=int, default=LEAST_RUNS, help=f"of each, {LEAST_RUNS} or more unless --smoke")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--isa", choices=["avx2"], help="hold both to this instruction set (default: the machine's best)")
    parser.add_argument("--smoke", action="store_true", help="allow fewer runs, to try this program")
    parser.add_argument("--out", help="results file (default: in bench/results, named after the CPU and --isa)")
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    args = parser.parse_args()
    if args.runs < (1 if args.smoke else LEAST_RUNS):
        parser.error(f"--runs: at least {LEAST_RUNS}")
    if hasattr(args, "dtypes"):
        args.dtypes = args.dtypes.split(",")
        if unknown := set(args.dtypes) - set(COMPUTE):
            parser.error(f"--dtypes: {', '.join(sorted(unknown))}: expected float32, bfloat16")
        if args.isa == "avx2" and "bfloat16" in args.dtypes:
            parser.error("--isa avx2 has no bfloat16 arithmetic: --dtypes float32")
    return args


def run_json(args: argparse.Namespace, command: list) -> dict:
    """The JSON that a command prints (whole or as its last line), with the process's own seconds and peak memory as
    the system counts them; ends this program where the command fails."""
    command = [str(part) for part in command]
    environment = {k: v for k, v in os.environ.items() if k not in AVX2} | (AVX2 if args.isa == "avx2" else {})
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        begin = time.perf_counter()
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0), err.seek(0)
        text = out.read().strip()
        if process.returncode != 0 or not text:
            sys.exit(f"failed ({process.returncode}): {' '.join(command)}\n{err.read()[-2000:]}")
    result = json.loads(text if text.startswith("{") else text.splitlines()[-1])
    return result | {"process_seconds": seconds, "process_peak_rss_mb": usage.ru_maxrss / 1024}


@contextlib.contextmanager
def hf_folder(args: argparse.Namespace) -> Iterator[str]:
    """--hf-folder, or an export of the model in float32 that is gone afterwards."""
    if args.hf_folder is not None:
        yield args.hf_folder
        return
    with tempfile.TemporaryDirectory() as temp:
        folder = str(pathlib.Path(temp) / "model")
        subprocess.run([args.brick, "export", args.model, "--format", "hf", "--dtype", "f32", "--out", folder],
                       check=True, stdout=subprocess.DEVNULL)
        yield folder


def in_turn(args: argparse.Namespace, label: str, programs: dict[str, Callable[[int], dict]],
            shown: Callable[[dict], str]) -> dict[str, list[dict]]:
    """--runs runs of each program, one of each a turn; a program is given the turn's number."""
    runs = {name: [] for name in programs}
    for i in range(args.runs):
        for name, program in programs.items():
            runs[name].append(program(i))
        print(f"{label} {i + 1}/{args.runs}: " + ", ".join(f"{name} {shown(made[-1])}" for name, made in runs.items()),
              file=sys.stderr)
    return runs


def summary(values: list[float]) -> dict:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def values(runs: list[dict], key: str) -> list[float]:
    return [run[key] for run in runs]


def ratio(numerators: list[float], denominators: list[float]) -> dict:
    return summary([n / d for n, d in zip(numerators, denominators, strict=True)])


def cell(value: dict, digits: int) -> str:
    return f"{value['median']:.{digits}f} ({value['low']:.{digits}f} to {value['high']:.{digits}f})"


def print_table(rows: list[list[str]]) -> None:
    """Markdown; the first row is the head."""
    for i, row in enumerate(rows):
        print(f"| {' | '.join(row)} |")
        if i == 0:
            print(f"|{' --- |' * len(row)}")


def write(args: argparse.Namespace, what: str, versions: dict, settings: list[str], results: dict, **more) -> None:
    """The results file; `settings` names options of the command line."""
    machine = run_json(args, [args.brick, "cpu", "--json"])
    cpu = re.sub(r"[^a-z0-9]+", "-", machine["model"].lower()).strip("-") or "unknown"
    name = "-".join([what, cpu] + ([args.isa] if args.isa else []) + (["smoke"] if args.smoke else []))
    out = pathlib.Path(args.out) if args.out else HERE / "results" / f"{name}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({
        "model": pathlib.Path(args.model).name,
        "cpu": machine["model"],
        "isa": machine["isa"],
        "versions": versions,
        "settings": {key: getattr(args, key) for key in ["runs", "threads", *settings]},
        **more,
        "results": results,
    }, indent=2) + "\n")
    print(f"\n{out}")
