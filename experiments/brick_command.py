"""The command as the experiments run it, and what they measure by it."""

import argparse
import json
import os
import pathlib
import subprocess
import sys


def parser_of(text: str) -> argparse.ArgumentParser:
    """For an experiment on one model and WikiText-2; `text` is what it does."""
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--brick", default="build/brick")
    parser.add_argument("--data", default=os.environ.get("BRICK_DATA", "../shared/data"))
    return parser


def wikitext(args: argparse.Namespace, split: str) -> pathlib.Path:
    return pathlib.Path(args.data) / "wikitext2" / f"wiki.{split}.tokens.txt"


def brick(args: argparse.Namespace, *command: object) -> dict:
    """What `args.brick` with the command prints as JSON, on `args.threads` if there are any; ends the experiment where it fails."""
    threads = ["--threads", str(args.threads)] if "threads" in args else []
    done = subprocess.run([args.brick, *map(str, command), *threads, "--json"], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"failed: {' '.join(map(str, command))}")
    return json.loads(done.stdout)


def perplexity(args: argparse.Namespace, model: object) -> float:
    """On the first 32 windows of 512 tokens of WikiText-2's test split, in `args.compute` or float32."""
    return brick(args, "eval", model, "--text", wikitext(args, "test"), "--length", 512, "--samples", 32,
                 "--compute", args.compute if "compute" in args else "f32")["perplexity"]
