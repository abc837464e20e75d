"""Rate of dense products at a layer's shapes, the faster of plain torch and of oneDNN with packed weights, and of reading memory.

    python bench/peers/torch_limits.py --hidden 576 --ffn 1536 --kv 192 --rows 1024

Prints one JSON line: GFLOP/s in float32 and bfloat16 over a layer's seven products, GB/s of summing 1 GB.
"""

import argparse
import json
import time

import torch


def best_seconds(run, seconds: float = 1.0) -> float:
    found, until = [], time.perf_counter() + seconds
    run()
    while not found or time.perf_counter() < until:
        begin = time.perf_counter()
        run()
        found.append(time.perf_counter() - begin)
    return min(found)


def products(shapes: list, rows: int, dtype: torch.dtype) -> float:
    inputs = {cols: torch.randn(rows, cols, dtype=dtype) for _, cols in shapes}
    weights = [torch.randn(shape, dtype=dtype) for shape in shapes]
    ways = [lambda: [torch.nn.functional.linear(inputs[w.shape[1]], w) for w in weights]]
    try:
        packed = [torch.ops.mkldnn._reorder_linear_weight(weight, rows) for weight in weights]
        ways.append(lambda: [torch.ops.mkldnn._linear_pointwise(inputs[w.shape[1]], p, None, "none", [], "")
                             for w, p in zip(weights, packed)])
    except RuntimeError:
        pass  # bfloat16 where the CPU has no arithmetic for it
    return 2 * rows * sum(a * b for a, b in shapes) / min(map(best_seconds, ways)) / 1e9


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("hidden", "ffn", "kv", "rows"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    d, f = args.hidden, args.ffn
    shapes = [(d, d), (args.kv, d), (args.kv, d), (d, d), (f, d), (f, d), (d, f)]
    large = torch.ones(1 << 28)
    print(json.dumps({"float32": products(shapes, args.rows, torch.float32), "bfloat16": products(shapes, args.rows, torch.bfloat16),
                      "read": large.nbytes / best_seconds(large.sum) / 1e9, "threads": args.threads, "torch": torch.__version__}))


if __name__ == "__main__":
    main()
