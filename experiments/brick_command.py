"""The command as the experiments run it."""

import argparse
import json
import subprocess
import sys


def brick(args: argparse.Namespace, *command: object) -> dict:
    """What `args.brick` with the command prints as JSON, on `args.threads` if there are any; ends the experiment where it fails."""
    threads = ["--threads", str(args.threads)] if "threads" in args else []
    done = subprocess.run([args.brick, *map(str, command), *threads, "--json"], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(map(str, command))}")
    return json.loads(done.stdout)
