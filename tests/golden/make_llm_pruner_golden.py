"""Makes tests/golden/llm_pruner_golden.safetensors: two tiny Llamas of transformers, one with a key/value head a query head
and one that shares them, and what LLM-Pruner's formulas (horseee/LLM-Pruner at 128a07d, hf_llama_pruner.py and
metapruner.py, read and written anew) make of them: by its importances but random, the heads and neurons that block-wise
local pruning of a quarter removes from all layers but the first, and the quarter of the residual stream's channels that goes
channel-wise. The heads of the second are scored as the reference folds them. Of the channels' groups gradients count of the
layers' linear weights alone, and there are no groups of channels. tests/prune/llm_pruner_test.cc reads it.

    python tests/golden/make_llm_pruner_golden.py
"""

import json
import pathlib

import safetensors.torch
import torch
import transformers

OUT = pathlib.Path(__file__).parent / "llm_pruner_golden.safetensors"
LIMIT_BYTES = 1 << 20  # of a golden file
SEQUENCES, LENGTH, RATIO, PROTECTED = 6, 12, 0.25, 1
IMPORTANCES = ["l1", "l2", "vectorize", "param_first", "param_second", "param_mix"]
# Heads, key/value heads and head size of each model.
SHAPES = {"plain": (4, 4, 8), "shared": (8, 4, 8)}


def make_model(heads: int, kv_heads: int, head_dim: int, generator: torch.Generator) -> transformers.LlamaForCausalLM:
    config = transformers.LlamaConfig(
        vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=heads,
        num_key_value_heads=kv_heads, head_dim=head_dim, max_position_embeddings=64, rms_norm_eps=1e-5,
        tie_word_embeddings=True, architectures=["LlamaForCausalLM"])
    model = transformers.LlamaForCausalLM._from_config(config, attn_implementation="sdpa", dtype=torch.float32)
    for name, value in model.named_parameters():
        noise = torch.randn(value.shape, generator=generator)
        value.data = 1 + 0.1 * noise if "norm" in name else 0.15 * noise
    return model


def find_gradients(model: torch.nn.Module, ids: torch.Tensor) -> tuple[dict, dict]:
    """By the weight: the gradient of the loss over all sequences, and the mean square of the sequences' own."""
    squares = {weight: torch.zeros_like(weight) for weight in model.parameters()}
    for sequence in ids:
        model.zero_grad()
        model(sequence[None], labels=sequence[None]).loss.backward()
        for weight, sum_of_squares in squares.items():
            sum_of_squares += weight.grad ** 2 / len(ids)
    model.zero_grad()
    model(ids, labels=ids).loss.backward()
    return {weight: weight.grad.clone() for weight in model.parameters()}, squares


def channels_of(kind: str, weight: torch.Tensor, gradient: torch.Tensor, square: torch.Tensor, dim: int) -> torch.Tensor:
    """Importance of each row (dim 1 is summed) or column (dim 0); a norm's entries are columns."""
    if kind in ("l1", "l2"):
        return torch.atleast_2d(weight.abs().pow(int(kind[1]))).sum(dim)
    salience = weight * gradient
    if kind == "param_second":
        salience = weight * square * weight
    elif kind == "param_mix":
        salience = salience - 0.5 * weight * square * weight
    return salience.sum(dim).abs() if kind == "vectorize" else salience.abs().sum(dim)


def group_importance(kind: str, group: list, gradients: dict, squares: dict) -> torch.Tensor:
    """The group's weights (each with the dimension that is summed), longer ones folded onto the shortest."""
    parts = [channels_of(kind, weight.detach(), gradients[weight], squares[weight], dim) for weight, dim in group]
    shortest = min(map(len, parts))
    return sum(part.view(len(part) // shortest, shortest).sum(0) for part in parts)


def stream_group(kind: str, model: torch.nn.Module) -> list:
    """All that has a row or a column for each channel of the residual stream."""
    group = []
    for layer in model.model.layers:
        attention, mlp = layer.self_attn, layer.mlp
        readers = [attention.q_proj, attention.k_proj, attention.v_proj, mlp.gate_proj, mlp.up_proj]
        group += [(reader.weight, 0) for reader in readers] + [(attention.o_proj.weight, 1), (mlp.down_proj.weight, 1)]
    if kind in ("l1", "l2"):
        norms = [value for name, value in model.named_parameters() if "norm" in name]
        group += [(norm, 0) for norm in norms] + [(model.model.embed_tokens.weight, 0)]
    return group


def lowest(importance: torch.Tensor, consecutive: int) -> torch.Tensor:
    """Ascending indices of what goes; `consecutive` channels go together."""
    channels = len(importance) * consecutive
    count = (channels - int(channels * (1 - RATIO))) // consecutive
    return importance.argsort()[:count].sort().values


def main() -> None:
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    tensors: dict[str, torch.Tensor] = {}
    configs = {}
    for name, (heads, kv_heads, head_dim) in SHAPES.items():
        model = make_model(heads, kv_heads, head_dim, generator)
        ids = torch.randint(0, 96, (SEQUENCES, LENGTH), generator=generator)
        gradients, squares = find_gradients(model, ids)
        configs[name] = model.config.to_dict()
        tensors |= {f"{name}.{key}": value.detach() for key, value in model.named_parameters()}
        tensors[f"{name}.ids"] = ids.int()
        for kind in IMPORTANCES:
            of_channels = group_importance(kind, stream_group(kind, model), gradients, squares)
            tensors[f"{name}.{kind}.removed_channels"] = lowest(of_channels, 1).int()
            for index, layer in list(enumerate(model.model.layers))[PROTECTED:]:
                attention, mlp = layer.self_attn, layer.mlp
                heads_group = [(attention.q_proj.weight, 1), (attention.k_proj.weight, 1), (attention.v_proj.weight, 1),
                               (attention.o_proj.weight, 0)]
                neurons_group = [(mlp.gate_proj.weight, 1), (mlp.up_proj.weight, 1), (mlp.down_proj.weight, 0)]
                of_heads = group_importance(kind, heads_group, gradients, squares).view(-1, head_dim).sum(1)
                of_neurons = group_importance(kind, neurons_group, gradients, squares)
                tensors[f"{name}.{kind}.{index}.removed_heads"] = lowest(of_heads, head_dim).int()
                tensors[f"{name}.{kind}.{index}.removed_neurons"] = lowest(of_neurons, 1).int()
    about = {"configs": configs, "importances": IMPORTANCES, "ratio": RATIO, "protected": PROTECTED,
             "versions": {"torch": torch.__version__, "transformers": transformers.__version__}}
    safetensors.torch.save_file({key: value.contiguous() for key, value in tensors.items()}, OUT,
                                metadata={"golden": json.dumps(about)})
    assert OUT.stat().st_size < LIMIT_BYTES
    print(OUT, OUT.stat().st_size)


if __name__ == "__main__":
    main()
