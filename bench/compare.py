"""What the scripts of this folder share: options, running programs in turn, a journal to go on from, the results file, tables.

Ours and theirs run in turn, so that whatever else the machine does meets both alike. Ratios are of each turn's runs;
a figure is a median with its range. A script that was interrupted goes on after its last whole turn.
"""

import argparse
import contextlib
import datetime
import hashlib
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

HERE = pathlib.Path(__file__).resolve().parent
PEERS = HERE / "peers"
RESULTS = HERE / "results"
WORK = HERE.parent / "build" / "comparisons"  # journals and what the scripts make to work on
COMPUTE = {"float32": "f32", "bfloat16": "bf16"}  # torch's name -> brick's
LEAST_RUNS = 5
# brick; torch's own kernels, its oneDNN and its MKL, which each choose for themselves.
AVX2 = {"BRICK_ISA": "avx2", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}


class Journal:
    """What is measured already, a line each. Other settings, another build of brick or another machine begin anew."""

    def __init__(self, path: pathlib.Path, of: dict, fresh: bool):
        self.path, self.made = path, {}
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() and not fresh else []
        if lines and lines[0] == of:
            self.made = {line["label"]: line["value"] for line in lines[1:]}
        if len(self.made) > 1:
            print(f"going on after {len(self.made) - 1} measurements of {path}; --fresh begins anew", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(of) + "\n")

    def once(self, label: str, make: Callable[[], dict]) -> dict:
        if label not in self.made:
            self.made[label] = make()
            with self.path.open("a") as file:
                file.write(json.dumps({"label": label, "value": self.made[label]}) + "\n")
        return self.made[label]


def make_parser(doc: str, peer: str | None = None, folder: bool = False) -> argparse.ArgumentParser:
    """The options of every script; `folder`: the peer works on a Hugging Face folder in an arithmetic of its choice."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="what brick works on: a GGUF file, a Hugging Face folder or a block")
    parser.add_argument("--brick", default=str(HERE.parent / "build" / "brick"), help="the command")
    if peer is not None:
        parser.add_argument("--python", default=sys.executable, help=f"one with {peer}")
    if folder:
        parser.add_argument("--hf-folder", help=f"what {peer} works on (default: an export of the model, float32)")
        parser.add_argument("--dtypes", default="float32,bfloat16", help="that are tried; brick's as far as it has them")
    parser.add_argument("--runs", type=int, help="of each, interleaved (default and least: %(default)s, unless --smoke)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--isa", choices=["avx2"], help="hold all to this instruction set (default: the machine's best)")
    parser.add_argument("--smoke", action="store_true", help="one small run, to try this script")
    parser.add_argument("--fresh", action="store_true", help="don't go on where an earlier run was interrupted")
    parser.add_argument("--out", help="results file (default: in bench/results, named after CPU and instruction set)")
    return parser


def parse(parser: argparse.ArgumentParser, what: str, smoke: dict | None = None, least: int = LEAST_RUNS) -> argparse.Namespace:
    """The arguments; with --smoke their defaults are those of `smoke`, `least` is that of --runs otherwise. Sets
    `machine`, `name`, `out` and `journal`."""
    parser.set_defaults(runs=least)
    if "--smoke" in sys.argv:
        parser.set_defaults(runs=1, **(smoke or {}))
    args = parser.parse_args()
    if args.runs < (1 if args.smoke else least):
        parser.error(f"--runs: at least {least}")
    if hasattr(args, "dtypes"):
        args.dtypes = args.dtypes.split(",")
        if unknown := set(args.dtypes) - set(COMPUTE):
            parser.error(f"--dtypes: {', '.join(sorted(unknown))}: expected float32, bfloat16")
    settings = {k: str(v) for k, v in vars(args).items() if k not in ("runs", "fresh", "out", "python", "hf_folder")}
    args.machine = run_json(args, [args.brick, "cpu", "--json"])
    del args.machine["process_seconds"], args.machine["process_peak_rss_mb"]  # the journal begins anew where these differ
    args.name = "-".join([what, machine_slug(args.machine["model"], args.machine["isa"], args.isa is not None)] +
                         (["smoke"] if args.smoke else []))
    args.out = pathlib.Path(args.out) if args.out else RESULTS / f"{args.name}.json"
    build = hashlib.sha256(pathlib.Path(shutil.which(args.brick) or args.brick).read_bytes()).hexdigest()
    args.journal = Journal(WORK / f"{args.name}.jsonl", {"settings": settings, "machine": args.machine, "brick": build},
                           args.fresh)
    args.made = args.journal.once("made", lambda: {"commit": commit(), "date": datetime.date.today().isoformat()})
    return args


def machine_slug(cpu: str, isa: str, held: bool) -> str:
    return re.sub(r"[^a-z0-9]+", "-", f"{cpu} {'held to ' if held else ''}{isa}".lower()).strip("-")


def brick_dtypes(args: argparse.Namespace) -> list[str]:
    return [d for d in args.dtypes if d == "float32" or args.machine["bf16"]]


class CommandFailedError(Exception):
    """With the command and the end of what it said."""


def run_json(args: argparse.Namespace, command: list) -> dict:
    """The JSON that a command prints (whole or as its last line), with the process's own seconds and peak memory as
    the system counts them."""
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
            raise CommandFailedError(f"failed ({process.returncode}): {' '.join(command)}\n{err.read()[-2000:]}")
    result = json.loads(text if text.startswith("{") else text.splitlines()[-1])
    # A child starts with its parent's peak, so this is right while this program is smaller than the command.
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


def choose(args: argparse.Namespace, label: str, settings: list[dict], run: Callable[[dict], dict],
           rate: str = "tokens_per_second") -> list[dict]:
    """A short run of each setting of a peer, with its rate; one that fails is listed with its last words."""
    def attempt(setting: dict) -> dict:
        try:
            made = run(setting)
        except CommandFailedError as error:
            lines = [line for line in str(error).splitlines() if line.strip()]
            said = [line for line in lines if re.match(r"[\w.]*Error\b", line)] or lines  # Python's, where it is one
            return {"setting": setting, "failed": said[-1][:300]}
        return {"setting": setting, "rate": made[rate], "peak_rss_mb": made["peak_rss_mb"]}

    tried = []
    for setting in settings:
        words = ", ".join(f"{k} {v}" for k, v in setting.items())
        tried.append(args.journal.once(f"{label}: try {words}", lambda setting=setting: attempt(setting)))
        print(f"{label}, trying {words}: " + (tried[-1].get("failed") or f"{tried[-1]['rate']:.4g}"), file=sys.stderr)
    return tried


def worth_compiling(tried: list[dict]) -> list[str]:
    """The arithmetics that reach 60 % of the fastest one's speed: compiling takes minutes and gains no two thirds."""
    top = {}
    for one in tried:
        top[one["setting"]["dtype"]] = max(top.get(one["setting"]["dtype"], 0), one.get("rate", 0))
    return [dtype for dtype, rate in top.items() if rate >= 0.6 * max(top.values())]


def fastest(tried: list[dict], **wanted) -> dict:
    """The fastest setting among those that agree with `wanted`."""
    able = [t for t in tried if "rate" in t and all(t["setting"][k] == v for k, v in wanted.items())]
    if not able:
        sys.exit("none of the peer's settings works: " + "; ".join(t.get("failed", "") for t in tried))
    return max(able, key=lambda t: t["rate"])["setting"]


def in_turn(args: argparse.Namespace, label: str, programs: dict[str, Callable[[int], dict]],
            shown: Callable[[dict], str]) -> dict[str, list[dict]]:
    """--runs runs of each program, one of each a turn; a program is given the turn's number."""
    runs = {name: [] for name in programs}
    for i in range(args.runs):
        begin = time.monotonic()
        made = args.journal.once(f"{label}: turn {i}", lambda i=i: {name: program(i) for name, program in programs.items()})
        minutes = (time.monotonic() - begin) / 60 * (args.runs - i - 1)
        for name in programs:
            runs[name].append(made[name])
        print(f"{label} {i + 1}/{args.runs}: " + ", ".join(f"{name} {shown(run)}" for name, run in made.items())
              + f"; about {minutes:.1f} min left", file=sys.stderr)
    return runs


def summary(values: list[float]) -> dict:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def values(runs: list[dict], key: str) -> list[float]:
    return [run[key] for run in runs]


def ratio(numerators: list[float], denominators: list[float]) -> dict:
    return summary([n / d for n, d in zip(numerators, denominators, strict=True)])


def arm(title: str, runs: list[dict], summaries: dict[str, str], firsts: dict[str, str]) -> dict:
    """One program's row of a table: column -> key of its runs, as a summary of all or as the first run has it."""
    return {"title": title, "columns": {column: summary(values(runs, key)) for column, key in summaries.items()}
            | {column: runs[0][key] for column, key in firsts.items()}}


def number(value: float, column: str = "") -> str:
    if isinstance(value, int):
        return f"{value:,}"
    if "loss" in column or "perplexity" in column:
        return f"{value:.4f}" if abs(value) < 1e3 else f"{value:.0f}"
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}" if size >= 0.01 else f"{value:.1e}"


def cell(value: object, column: str = "") -> str:
    if isinstance(value, dict):
        middle, low, high = (number(value[key], column) for key in ("median", "low", "high"))
        return middle if low == high else f"{middle} ({low} to {high})"
    return number(value, column) if isinstance(value, (int, float)) else str(value)


def markdown(rows: list[list[str]]) -> str:
    """A table; the first row is the head."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], f"|{' --- |' * len(rows[0])}", *lines[1:]])


def arms_table(arms: dict) -> str:
    columns = list(dict.fromkeys(column for one in arms.values() for column in one["columns"]))
    return markdown([["", *columns]] + [[one["title"], *(cell(one["columns"].get(c, ""), c) for c in columns)]
                                        for one in arms.values()])


def commit() -> str | None:
    done = subprocess.run(["git", "-C", HERE, "describe", "--always", "--dirty", "--exclude", "*"], capture_output=True,
                          text=True)
    return done.stdout.strip() or None


def write(args: argparse.Namespace, settings: list[str], arms: dict, ratios: dict, **more) -> None:
    """Prints the arms' table and writes the results file; `settings` names options of the command line, `ratios`
    are what bench/report.py holds against the issue's bars."""
    print(arms_table(arms))
    print(markdown([["ratio", "measured"]] + [[key, cell(value)] for key, value in ratios.items()]))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({
        "model": pathlib.Path(args.model).name,
        "cpu": args.machine["model"],
        "isa": args.machine["isa"],
        "held": args.isa is not None,
        **args.made,
        "settings": {key: getattr(args, key) for key in ["runs", "threads", *settings]},
        "arms": arms,
        "ratios": ratios,
        **more,
    }, indent=1) + "\n"
    beside = args.out.with_suffix(".partial")
    beside.write_text(text)
    beside.rename(args.out)
    print(f"\n{args.out}")


def run_main(main: Callable[[], None]) -> None:
    try:
        main()
    except CommandFailedError as error:
        sys.exit(str(error))
