"""Writes the tables of bench/README.md between its markers, and the pictures beside it, from bench/results/.

    python bench/report.py             tables and pictures (needs matplotlib)
    python bench/report.py --check     fails where the tables are not those of the results files; needs nothing

Nothing in the tables is written by hand. Each bar of the issue that asked for this engine stands beside what was measured;
a median that meets it is "met". Results of --smoke are left out.
"""

import argparse
import difflib
import json
import pathlib
import sys

import compare

README = compare.HERE / "README.md"
BEGIN, END = "<!-- begin: written by report.py -->", "<!-- end -->"
COMPARISONS = {"training": "Training beside PEFT", "dolly": "Training on real records beside PEFT", "pruning": "Pruning beside torch",
               "decode": "Prefill and decoding beside llama.cpp", "blocks": "Blocks beside the dense model",
               "aggregation": "Aggregation of 100 clients", "big-model": "A model of 7B's shape", "length": "Length and threads",
               "limits": "What the machine can do", "profile": "Where a training step's time goes"}
LARGER, SMALLER = "≥", "≤"
# What is asked, comparison, its ratio, sense, bar on AVX2 and AVX-512, bar with AMX. None: not asked.
BARS = [
    ("LoRA training 4×256, over PEFT at its best", "training", "speed", LARGER, 1.5, 5),
    ("the same, both in float32", "training", "speed_float32", LARGER, 1.5, 2.5),
    ("products at their full rate alone, of a training step's time", "profile", "products_at_full_rate", LARGER, 0.8, 0.4),
    ("Dolly, useful tokens a second, over PEFT in padded batches", "dolly", "padded", LARGER, 4.5, 10),
    ("the same, over PEFT one record a step", "dolly", "single", LARGER, 1.7, 4),
    ("peak memory of training 4×256, MB", "training", "memory_mb", SMALLER, 600, 700),
    ("the same, of PEFT's at the same shape and dtype", "training", "memory", SMALLER, 1 / 6, 1 / 5),
    ("peak memory with `--memory low`, MB", "training", "low_memory_mb", SMALLER, 350, 350),
    ("speed with `--memory low`, of the full one", "training", "low_speed", LARGER, 0.6, 0.6),
    ("training a 75 % block, over dense, plain adapter", "blocks", "train_plain", LARGER, 1.3, 1),
    ("the same, masked adapter", "blocks", "train_masked", LARGER, 1.3, 1),
    ("its peak memory, of dense, plain adapter", "blocks", "train_plain_memory", SMALLER, 1, 1),
    ("the same, masked adapter", "blocks", "train_masked_memory", SMALLER, 1, 1),
    ("prefill of 512, over llama.cpp", "decode", "prefill", LARGER, 2, 8),
    ("decoding 128 tokens, over llama.cpp", "decode", "decode", LARGER, 1.2, 1.2),
    ("decoding a 50 % block, over dense, bfloat16 values", "blocks", "decode_50_bf16", LARGER, 1.3, 1.3),
    ("a 75 % block, bfloat16 values", "blocks", "decode_75_bf16", LARGER, 1.8, 1.8),
    ("a 50 % block, 4-bit values", "blocks", "decode_50_q4", LARGER, 1.05, 1.05),
    ("a 75 % block, 4-bit values", "blocks", "decode_75_q4", LARGER, 1.25, 1.25),
    ("weights of the 75 % block while decoding, of dense, bfloat16 values", "blocks", "weights_75_bf16", SMALLER, 0.47, 0.47),
    ("the same, 4-bit values", "blocks", "weights_75_q4", SMALLER, 0.64, 0.64),
    ("Wanda 50 %, over torch", "pruning", "wanda", LARGER, 2, 2),
    ("SparseGPT 50 %, over torch", "pruning", "sparsegpt", LARGER, 2, 2),
    ("FlexLoRA on 100 clients, s", "aggregation", "flexlora_seconds", SMALLER, 10, 10),
    ("H0, s", "aggregation", "hete-h0_seconds", SMALLER, 5, 5),
    ("H-tau, s", "aggregation", "hete-tau_seconds", SMALLER, 120, 120),
    ("FlexLoRA, over torch's dense SVD", "aggregation", "flexlora", LARGER, 10, 10),
    ("its distance from that, worst matrix", "aggregation", "flexlora_difference", SMALLER, 1e-4, 1e-4),
    ("memory of 1,000 clients, of that of 10 (\"flat\": our reading)", "aggregation", "memory_growth", SMALLER, 1.25, 1.25),
    ("7B shape: a LoRA step of 512 tokens, GiB", "big-model", "tune_auto_gib", SMALLER, 8, 8),
    ("7B shape: SparseGPT of two layers, GiB", "big-model", "sparsegpt_gib", SMALLER, 10, 10),
    ("length 128 to 8,192: least operations a second, of those at 128", "length", "steadiness", LARGER, 0.75, 0.75),
    ("two threads, over one, at the worst length", "length", "threads", LARGER, 1.7, 1.7),
]


def load(folder: pathlib.Path) -> dict[str, dict[str, dict]]:
    """Machine -> comparison -> results."""
    machines: dict[str, dict[str, dict]] = {}
    for path in sorted(folder.glob("*.json")):
        result = json.loads(path.read_text())
        slug = compare.machine_slug(result["cpu"], result["isa"], result["held"])
        if path.stem.endswith(f"-{slug}") and (what := path.stem.removesuffix(f"-{slug}")) in COMPARISONS:
            machines.setdefault(slug, {})[what] = result
    return machines


def middle(value: dict | float) -> float:
    return value["median"] if isinstance(value, dict) else value


def bar_of(row: tuple, isa: str) -> float:
    return row[5] if isa == "amx" else row[4]


def is_met(row: tuple, value: dict | float, isa: str) -> bool:
    return middle(value) >= bar_of(row, isa) if row[3] == LARGER else middle(value) <= bar_of(row, isa)


def measured(results: dict, row: tuple) -> dict | float | None:
    return results.get(row[1], {}).get("ratios", {}).get(row[2])


def any_of(results: dict) -> dict:
    """One of a machine's results: all say the same of the machine."""
    return next(iter(results.values()))


def machine_name(results: dict) -> str:
    one = any_of(results)
    return f"{one['cpu']}, {one['isa']}{' (held to it)' if one['held'] else ''}"


def bars_table(machines: dict[str, dict]) -> str:
    rows = [["what", "bar", "with AMX", *map(machine_name, machines.values())]]
    for row in BARS:
        cells = []
        for results in machines.values():
            value = measured(results, row)
            cells.append("" if value is None else f"{compare.cell(value)} {'met' if is_met(row, value, any_of(results)['isa']) else '**missed**'}")
        rows.append([row[0], f"{row[3]} {compare.number(row[4])}", "" if row[5] == row[4] else compare.number(row[5]), *cells])
    return compare.markdown(rows)


def tried_table(tried: list[dict]) -> str:
    rows = [["setting tried", "rate", "peak MB"]]
    for one in tried:
        rows.append([", ".join(f"{k} {v}" for k, v in one["setting"].items()), f"failed: {one['failed'][:80]}".replace("|", "/")
                     if "failed" in one else compare.number(one["rate"]), compare.number(one["peak_rss_mb"]) if "rate" in one else ""])
    return compare.markdown(rows)


def shares(results: dict) -> dict[str, float]:
    """Speeds as shares of what the machine's products or memory allow."""
    limits = results.get("limits", {}).get("limits")
    if limits is None:
        return {}
    found = {}
    for name, one in results.get("training", {}).get("arms", {}).items():
        dtype = "bfloat16" if "bfloat16" in one["title"] else "float32"
        found[one["title"]] = middle(one["columns"]["tokens/s"]) / limits[f"step_{dtype}"]
    for name, one in results.get("decode", {}).get("arms", {}).items():
        found[f"decoding, {one['title'].split(' ')[0].rstrip(',')}"] = middle(one["columns"]["decoding, tokens/s"]) / limits["decode"]
    return found


def machine_text(slug: str, results: dict) -> str:
    commits = sorted({r["commit"] or "?" for r in results.values()})
    dates = sorted({r["date"] for r in results.values()})
    parts = [f"## {machine_name(results)}",
             f"Measured {dates[0]}{'' if len(dates) == 1 else f' to {dates[-1]}'} at {', '.join(commits)}. Median (range) of interleaved runs; ratios are of each turn's runs."]
    pictures = [f"![{title}]({kind}-{slug}.png)" for kind, title in PICTURES.items() if (compare.HERE / f"{kind}-{slug}.png").exists()]
    parts += pictures
    for what, title in COMPARISONS.items():
        if what not in results:
            continue
        result = results[what]
        versions = ", ".join(f"{name} {version}" for name, version in result.get("versions", {}).items())
        settings = ", ".join(f"{k} {v}" for k, v in result["settings"].items())
        parts += [f"### {title}", compare.arms_table(result["arms"]),
                  " ".join(filter(None, [result.get("note"), f"{versions}." if versions else "", f"[Results](results/{what}-{slug}.json): {settings}."]))]
        tried = result.get("tried", {})
        for of in [tried] if isinstance(tried, list) else tried.values():
            if of:
                parts.append(tried_table(of))
        if what == "limits" and (found := shares(results)):
            parts.append(compare.markdown([["speed", "share of the limit"], *([name, f"{share:.0%}"] for name, share in found.items())]))
    return "\n\n".join(parts)


def draw_ratios(results: dict, isa: str, axes) -> None:
    rows = [(row, measured(results, row)) for row in BARS if row[3] == LARGER and measured(results, row) is not None]
    for y, (row, value) in enumerate(reversed(rows)):
        bar, colour = bar_of(row, isa), "tab:green" if is_met(row, value, isa) else "tab:red"
        low, high = (value["low"], value["high"]) if isinstance(value, dict) else (value, value)
        axes.errorbar(middle(value), y, xerr=[[middle(value) - low], [high - middle(value)]], fmt="o", color=colour, capsize=3)
        axes.plot([bar, bar], [y - 0.35, y + 0.35], color="black", linewidth=2)
    axes.set_yticks(range(len(rows)), [row[0].replace("`", "") for row, _ in reversed(rows)])
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(lambda x, _: f"{x:g}×")
    axes.set_xlabel("ratio, median and range; black: the bar, green where it is met, red where it is missed")


def draw_memory(results: dict, isa: str, axes) -> None:
    found = {f"{one['title']}": middle(one["columns"]["peak MB"]) for what in ("training", "dolly", "pruning")
             for one in results.get(what, {}).get("arms", {}).values()}
    bars = axes.barh(list(found)[::-1], list(found.values())[::-1], color=["tab:blue" if "brick" in n else "tab:gray" for n in reversed(found)])
    axes.bar_label(bars, fmt="{:,.0f}", padding=3)
    axes.margins(x=0.1)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("peak memory, MB; blue: brick")


def draw_limit(results: dict, isa: str, axes) -> None:
    found = shares(results)
    axes.barh(list(found)[::-1], [100 * v for v in list(found.values())[::-1]],
              color=["tab:blue" if "brick" in n else "tab:gray" for n in reversed(found)])
    axes.set_xlabel("% of what dense products alone (training) or reading memory (decoding) allow")


PICTURES = {"ratios": "Ratios with their range and the bars", "memory": "Peak memory", "limit": "Share of the machine's limit"}
DRAWN = {"ratios": draw_ratios, "memory": draw_memory, "limit": draw_limit}


def draw(slug: str, results: dict) -> None:
    import matplotlib
    matplotlib.use("Agg")
    from matplotlib import pyplot
    for kind, title in PICTURES.items():
        figure, axes = pyplot.subplots(layout="constrained")
        DRAWN[kind](results, any_of(results)["isa"], axes)
        if axes.has_data():
            figure.set_size_inches(10, 1.2 + 0.38 * len(axes.get_yticks()))
            axes.set_title(f"{title}\n{machine_name(results)}")
            axes.grid(axis="x", alpha=0.3)
            figure.savefig(compare.HERE / f"{kind}-{slug}.png", dpi=100, metadata={"Software": None})
        pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    machines = load(compare.RESULTS)
    if not args.check:
        for slug, results in machines.items():
            draw(slug, results)
    before = README.read_text(encoding="utf-8")
    if before.count(BEGIN) != 1 or before.count(END) != 1:
        sys.exit(f"{README} needs its markers once each: {BEGIN} {END}")
    texts = ["## Bars\n\nMedian (range); empty: not measured there.", bars_table(machines),
             *(machine_text(slug, results) for slug, results in machines.items())]
    after = "\n\n".join([before[:before.index(BEGIN) + len(BEGIN)], *texts, before[before.index(END):]])
    if args.check:
        if before != after:
            difference = difflib.unified_diff(before.splitlines(), after.splitlines(), "README.md", "results", lineterm="")
            sys.exit("\n".join([*list(difference)[:20], f"{README} is not what the results say: python bench/report.py"]))
        return
    README.write_text(after, encoding="utf-8")
    print(README)


if __name__ == "__main__":
    main()
