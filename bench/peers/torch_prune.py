"""Wanda and SparseGPT in plain torch on a transformers model: what `brick prune` is compared with.

    brick export model.gguf --format hf --dtype f32 --out model-hf
    python bench/peers/torch_prune.py --model model-hf --method sparsegpt --sparsity 0.5 --calibration text.txt

Our own program from the papers' formulas (Sun et al. 2306.11695; Frantar and Alistarh 2301.00774), as fast as plain
torch gets here. Layer by layer: one pass over the layer's inputs for its statistics, stopped before the last product,
whose result nobody needs; then, with the pruned weights, a pass for the next layer's inputs. Matrices that share an
input share its statistics and factor, and SparseGPT treats them as one matrix but for the threshold, which is each
one's own. Windows go through in batches. Forward passes are in --dtype, sums of squares and solving in float32.

Prints one JSON line. `seconds` is from embedding the calibration ids to the last pruned layer: no start, loading,
tokenising, saving or evaluation. `peak_rss_mb` is taken at that point and has loading in it.
"""

import argparse
import hashlib
import json
import math
import pathlib
import resource
import shutil
import time
import warnings

import numpy
import torch
import transformers

SHARED = {"q_proj": ["q_proj", "k_proj", "v_proj"], "o_proj": ["o_proj"], "gate_proj": ["gate_proj", "up_proj"],
          "down_proj": ["down_proj"]}  # the first of each stands for all that have its input


class EnoughError(Exception):
    """Raised by the last statistics hook of a layer: the rest of its forward pass is not needed."""


def linears_of(layer: torch.nn.Module) -> dict[str, torch.nn.Linear]:
    return {name.rsplit(".", 1)[-1]: part for name, part in layer.named_modules() if isinstance(part, torch.nn.Linear)}


class Statistics:
    """Per input channel the sum of squares (Wanda), or the whole sum of x x^T (SparseGPT), in float32."""

    def __init__(self, width: int, whole: bool):
        self.whole = whole
        self.sum = torch.zeros(width, width) if whole else torch.zeros(width)
        self.tokens = 0

    def add(self, inputs: torch.Tensor) -> None:
        x = inputs.reshape(-1, inputs.shape[-1]).float()
        self.tokens += x.shape[0]
        if self.whole:
            self.sum.addmm_(x.T, x)
        else:
            self.sum += x.square().sum(0)


def gather(layer: torch.nn.Module, batches: list[torch.Tensor], rotary: tuple, whole: bool) -> dict[str, Statistics]:
    linears = linears_of(layer)
    found = {name: Statistics(linears[name].in_features, whole) for name in SHARED}

    def hook(name: str):
        def see(_, inputs):
            found[name].add(inputs[0])
            if name == "down_proj":
                raise EnoughError
        return see

    handles = [linears[name].register_forward_pre_hook(hook(name)) for name in SHARED]
    for hidden in batches:
        try:
            layer(hidden, attention_mask=None, position_embeddings=rotary)
        except EnoughError:
            pass
    for handle in handles:
        handle.remove()
    return found


def prune_wanda(weights: list[torch.nn.Parameter], statistics: Statistics, sparsity: float) -> None:
    """|w| times the norm of its input; the lowest floor(in * sparsity) of every row go."""
    norm = statistics.sum.sqrt()
    for weight in weights:
        score = weight.float().abs() * norm
        lowest = score.topk(int(weight.shape[1] * sparsity), dim=1, largest=False, sorted=False).indices
        weight.scatter_(1, lowest, 0)


def inverse_factor(hessian: torch.Tensor, damping: float) -> torch.Tensor:
    """Upper U with U^T U = H^-1, H damped by a share of its mean diagonal; ten times more until it is definite."""
    mean = hessian.diagonal().mean()
    while True:
        damped = hessian.clone()
        damped.diagonal().add_(damping * mean)
        factor, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(factor), upper=True)
            if not failed:
                return upper
        damping *= 10


def prune_sparsegpt(weights: list[torch.nn.Parameter], statistics: Statistics, sparsity: float, damping: float,
                    columns: int) -> None:
    """Blocks of columns; in a block the lowest w^2 / U_jj^2 of each matrix go, and what a removed weight did is spread
    over the later columns of its row. Weights lie transposed here, so that a column is contiguous."""
    hessian = statistics.sum * (2 / statistics.tokens)
    dead = hessian.diagonal() == 0
    hessian.diagonal()[dead] = 1
    rows = [weight.shape[0] for weight in weights]
    work = torch.cat([weight.float() for weight in weights]).T.contiguous()  # [in, out of all]
    work[dead] = 0
    upper = inverse_factor(hessian, damping)
    diagonal = upper.diagonal()
    width = work.shape[0]
    for begin in range(0, width, columns):
        end = min(begin + columns, width)
        block, local, scale = work[begin:end], upper[begin:end, begin:end], diagonal[begin:end, None]
        score = (block / scale).square()
        keep = torch.empty_like(block)
        for part, kept in zip(score.split(rows, 1), keep.split(rows, 1)):
            flat = part.reshape(-1)
            kept.copy_(part > flat.kthvalue(int(flat.numel() * sparsity) + 1).values)
        gone, errors = 1 - keep, torch.empty_like(block)
        steps = diagonal[begin:end].tolist()
        for i in range(end - begin):
            torch.mul(block[i], gone[i], out=errors[i]).div_(steps[i])
            if i + 1 < end - begin:
                block[i + 1:].addmm_(local[i, i + 1:, None], errors[i:i + 1], alpha=-1)
        block.mul_(keep)
        if end < width:
            work[end:].addmm_(upper[begin:end, end:].T, errors, alpha=-1)
    for weight, part in zip(weights, work.split(rows, 1)):
        weight.copy_(part.T)


def prune(model: torch.nn.Module, ids: torch.Tensor, args: argparse.Namespace) -> None:
    body = model.model
    batches = [body.embed_tokens(part) for part in ids.split(args.batch)]
    rotary = body.rotary_emb(batches[0], torch.arange(ids.shape[1])[None])
    layers = body.layers[:args.layers] if args.layers else body.layers
    for number, layer in enumerate(layers):
        found = gather(layer, batches, rotary, args.method == "sparsegpt")
        linears = linears_of(layer)
        for name, statistics in found.items():
            weights = [linears[other].weight for other in SHARED[name]]
            if args.method == "wanda":
                prune_wanda(weights, statistics, args.sparsity)
            else:
                prune_sparsegpt(weights, statistics, args.sparsity, args.damping, args.block_columns)
        if number + 1 < len(layers):
            for i, hidden in enumerate(batches):
                batches[i] = layer(hidden, attention_mask=None, position_embeddings=rotary)


def windows(tokenizer, path: str, samples: int, length: int) -> torch.Tensor:
    """The first consecutive windows of the text's ids, no special token added: [samples, length]."""
    ids = tokenizer(pathlib.Path(path).read_text(encoding="utf-8"), add_special_tokens=False)["input_ids"]
    if len(ids) < samples * length:
        raise SystemExit(f"{path}: {len(ids)} tokens, {samples} windows of {length} need more")
    return torch.tensor(ids[:samples * length]).view(samples, length)


def perplexity(model: torch.nn.Module, ids: torch.Tensor, batch: int) -> float:
    total = 0.0
    for part in ids.split(batch):
        logits = model(input_ids=part, use_cache=False).logits[:, :-1].float()
        total += torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]), part[:, 1:].reshape(-1),
                                                   reduction="sum").item()
    return math.exp(total / (ids.numel() - ids.shape[0]))


def save(model: torch.nn.Module, source: str, folder: str) -> None:
    """A folder that brick reads: the weights in float32 and the source's other files."""
    model.save_pretrained(folder)
    for path in pathlib.Path(source).iterdir():
        if path.is_file() and path.suffix != ".safetensors":
            shutil.copy(path, folder)


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="Hugging Face folder, with its tokenizer")
    parser.add_argument("--method", choices=["wanda", "sparsegpt"], required=True)
    parser.add_argument("--sparsity", type=float, default=0.5)
    parser.add_argument("--calibration", required=True, help="plain text")
    parser.add_argument("--samples", type=int, default=32, help="windows of calibration text, the first ones")
    parser.add_argument("--length", type=int, default=512, help="tokens a window")
    parser.add_argument("--batch", type=int, default=4, help="windows that go through a layer together")
    parser.add_argument("--damping", type=float, default=0.01, help="share of the Hessian's mean diagonal")
    parser.add_argument("--block-columns", type=int, default=128)
    parser.add_argument("--layers", type=int, default=0, help="only the first ones, to try a setting; 0: all")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="float32", help="of the forward passes")
    parser.add_argument("--text", help="plain text: also print the result's perplexity, computed in float32")
    parser.add_argument("--text-samples", type=int, default=32)
    parser.add_argument("--save", help="folder for the result, as float32")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if not 0 <= args.sparsity < 1:
        parser.error("--sparsity: from 0 to below 1")
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(args.threads)

    begin = time.perf_counter()
    tokenizer = transformers.AutoTokenizer.from_pretrained(args.model)
    model = transformers.AutoModelForCausalLM.from_pretrained(args.model, dtype=getattr(torch, args.dtype),
                                                              attn_implementation="sdpa").eval()
    model.config.use_cache = False
    ids = windows(tokenizer, args.calibration, args.samples, args.length)
    loaded = time.perf_counter()
    prune(model, ids, args)
    done = time.perf_counter()
    weights = [linear.weight for layer in model.model.layers for linear in linears_of(layer).values()]
    result = {
        "method": args.method,
        "seconds": done - loaded,
        "load_seconds": loaded - begin,
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "sparsity": 1 - sum(int(w.count_nonzero()) for w in weights) / sum(w.numel() for w in weights),
        "calibration_sha256": hashlib.sha256(ids.numpy().astype(numpy.int32).tobytes()).hexdigest(),
        "dtype": args.dtype,
        "batch": args.batch,
        "threads": args.threads,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    model.float()
    if args.text:
        result["perplexity"] = perplexity(model, windows(tokenizer, args.text, args.text_samples, args.length), 2)
    if args.save:
        save(model, args.model, args.save)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
