"""FlexLoRA's aggregation in torch: the weighted sum of the clients' products and its dense SVD, a matrix at a time. What
`brick aggregate --rule flexlora` is compared with.

    python bench/peers/torch_svd.py --clients clients.json --ours adapter

--clients is a JSON array of [PEFT folder, weight]; all have one rank and scale. Prints one JSON line: the seconds of
reading, summing and decomposing, and how far the truncated products are from those of --ours, relatively.
"""

import argparse
import json
import pathlib
import time

import safetensors
import torch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", required=True, type=pathlib.Path)
    parser.add_argument("--ours", required=True, type=pathlib.Path, help="the adapter that brick made")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    clients = json.loads(args.clients.read_text())
    config = json.loads((pathlib.Path(clients[0][0]) / "adapter_config.json").read_text())
    rank, scale = config["r"], config["lora_alpha"] / config["r"]
    whole = sum(weight for _, weight in clients)
    files = [safetensors.safe_open(pathlib.Path(folder) / "adapter_model.safetensors", "pt") for folder, _ in clients]
    ours = safetensors.safe_open(args.ours / "adapter_model.safetensors", "pt")
    seconds = {"read": 0.0, "sum": 0.0, "svd": 0.0}
    error = energy = worst = 0.0

    def timed(what: str, make):
        begin = time.perf_counter()
        made = make()
        seconds[what] += time.perf_counter() - begin
        return made

    for a in (name for name in files[0].keys() if name.endswith("lora_A.weight")):
        b = a.replace("lora_A", "lora_B")
        parts = timed("read", lambda: [(file.get_tensor(b), file.get_tensor(a)) for file in files])
        total = timed("sum", lambda: torch.cat([left * (scale * weight / whole) for (left, _), (_, weight) in zip(parts, clients)], 1)
                      @ torch.cat([right for _, right in parts]))
        u, s, vt = timed("svd", lambda: torch.linalg.svd(total, full_matrices=False))
        best = (u[:, :rank] * s[:rank]) @ vt[:rank]
        mine = ours.get_tensor(b) @ ours.get_tensor(a) * scale
        one, of = float((mine - best).double().square().sum()), float(best.double().square().sum())
        error, energy, worst = error + one, energy + of, max(worst, (one / of) ** 0.5)
    print(json.dumps({"seconds": sum(seconds.values()), **{f"seconds_{k}": v for k, v in seconds.items()},
                      "difference": (error / energy) ** 0.5, "difference_of_the_worst_matrix": worst,
                      "torch": torch.__version__}))


if __name__ == "__main__":
    main()
