#!/usr/bin/env python3
"""A federation of Dolly-15k's ten clients (the first 100 records of each, blocks of 0, 25, 50 and 75 %, three rounds), run
once unbroken and once killed with SIGKILL at ten random moments and resumed: both must leave the same bits. Each client is
tested on its next ten records. Writes experiments/results/ten_clients.json.

    experiments/ten_clients.py model.gguf --brick build/brick
"""

import argparse
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
SPARSITIES = [0.0, 0.25, 0.5, 0.75]
KILLS = 10
DIFFER = {"metrics.jsonl", "summary.json", "report.html"}  # they hold times


def write_config(folder: pathlib.Path, model: pathlib.Path, data: pathlib.Path) -> pathlib.Path:
    clients = ""
    for i in range(10):
        records = json.loads((data / "dolly15k" / f"local_training_{i}.json").read_text())
        train, test = folder / f"client{i}.jsonl", folder / f"client{i}_test.jsonl"
        train.write_text("".join(json.dumps(record) + "\n" for record in records[:100]))
        test.write_text("".join(json.dumps(record) + "\n" for record in records[100:110]))
        clients += (f'[[client]]\nname = "client{i}"\ndata = "{train}"\ntest = "{test}"\n'
                    f"sparsity = {SPARSITIES[i % len(SPARSITIES)]}\n")
    config = folder / "federation.toml"
    config.write_text(f"""title = "Dolly-15k, ten clients"
model = "{model.resolve()}"
rounds = 3
[blocks]
method = "sparsegpt"
calibration = "{(data / 'wikitext2' / 'wiki.valid.tokens.txt').resolve()}"
samples = 8
length = 512
[tune]
rank = 8
masked = true
steps = 2
batch_tokens = 512
length = 384
lr = 1e-3
[aggregate]
rule = "hete-h1"
{clients}[evaluate]
text = "{(data / 'wikitext2' / 'wiki.test.tokens.txt').resolve()}"
samples = 2
arms = ["untuned"]
""")
    return config


def results(run: pathlib.Path) -> tuple[dict, list]:
    """Blocks and adapters as bytes; losses as they were recorded."""
    files = {str(p.relative_to(run)): p.read_bytes() for p in sorted(run.rglob("*")) if p.is_file() and p.name not in DIFFER}
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return files, [{k: v for k, v in event.items() if k != "seconds"} for event in events]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--brick", default="build/brick")
    parser.add_argument("--data", type=pathlib.Path, default=os.environ.get("BRICK_DATA", "../shared/data"))
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "results" / "ten_clients.json")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        config = write_config(folder, args.model, pathlib.Path(args.data))
        begun = time.time()
        done = subprocess.run([args.brick, "simulate", config, "--out", folder / "whole", "--json"], stdout=subprocess.PIPE, text=True)
        if done.returncode != 0:
            sys.exit("the unbroken run failed")
        length, summary = time.time() - begun, json.loads(done.stdout)
        summary.pop("report", None)  # a path
        print(f"unbroken: {length:.0f} s", flush=True)

        command = [args.brick, "simulate", config, "--out", folder / "killed", "--resume"]
        rng, moments = random.Random(4), []
        for _ in range(KILLS):
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            moments.append(round(rng.uniform(0.01, 0.17) * length, 1))
            time.sleep(moments[-1])
            if process.poll() is not None:
                sys.exit("a run ended before its kill; kill earlier")
            process.send_signal(signal.SIGKILL)
            process.wait()
            print(f"killed after {moments[-1]} s", flush=True)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        same = results(folder / "whole") == results(folder / "killed")
        cpu = json.loads(subprocess.run([args.brick, "cpu", "--json"], stdout=subprocess.PIPE, check=True).stdout)
        report = {"cpu": cpu["model"], "isa": cpu["isa"], "seconds_unbroken": round(length), "killed_after_seconds": moments,
                  "same_bits": same, "summary": summary}
        args.out.write_text(json.dumps(report, indent=1) + "\n")
        print("same bits" if same else "DIFFERENT BITS")
        sys.exit(0 if same else 1)


if __name__ == "__main__":
    main()
