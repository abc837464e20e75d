"""Makes tests/golden/peft_golden.safetensors: a tiny Llama of transformers with a LoRA adapter of PEFT, its loss and the
gradients of all adapter matrices over three sequences, and the losses of twenty AdamW steps. All of it in float32, as
PEFT computes. tests/train/peft_parity_test.cc reads it.

    python tests/golden/make_peft_golden.py
"""

import json
import pathlib

import numpy
import peft
import safetensors.numpy
import torch
import transformers

OUT = pathlib.Path(__file__).parent / "peft_golden.safetensors"
LIMIT_BYTES = 1 << 20  # of a golden file
SEED, STEPS, LEARNING_RATE = 0, 20, 1e-3
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PROMPTS_AND_LENGTHS = [(4, 11), (9, 24), (1, 17)]  # tokens that are not supervised, tokens in all


def make_model(generator: torch.Generator) -> peft.PeftModel:
    config = transformers.LlamaConfig(
        vocab_size=96, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=True,
        architectures=["LlamaForCausalLM"])
    model = transformers.LlamaForCausalLM._from_config(config, attn_implementation="sdpa", dtype=torch.float32)
    # Larger than transformers' own initial weights, so that attention and SwiGLU are far from linear.
    for name, value in model.named_parameters():
        noise = torch.randn(value.shape, generator=generator)
        value.data = 1 + 0.1 * noise if "norm" in name else 0.15 * noise
    adapted = peft.get_peft_model(model, peft.LoraConfig(
        task_type="CAUSAL_LM", r=4, lora_alpha=8, lora_dropout=0.0, target_modules=LINEARS))
    for name, value in adapted.named_parameters():
        if "lora_" in name:
            value.data = 0.1 * torch.randn(value.shape, generator=generator)
    return adapted.train()


def make_sequences(generator: torch.Generator) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """(ids, supervised) of each; the second conversation has two turns."""
    sequences = []
    for prompt, length in PROMPTS_AND_LENGTHS:
        ids = torch.randint(0, 96, (length,), generator=generator)
        supervised = torch.arange(length) >= prompt
        if length > 20:
            supervised[14:18] = False
        sequences.append((ids, supervised))
    return sequences


def loss_of(model: torch.nn.Module, ids: torch.Tensor, supervised: torch.Tensor, count: int | None) -> torch.Tensor:
    """The sum of the sequence's losses over `count`, as transformers' Trainer divides (None: the sequence's own)."""
    labels = torch.where(supervised, ids, -100)
    return model(input_ids=ids[None], labels=labels[None], num_items_in_batch=count, use_cache=False).loss


def stored_names(model: peft.PeftModel) -> dict[str, torch.nn.Parameter]:
    """Adapter parameters by the names of PEFT's files."""
    return {name.replace(".default.", "."): value for name, value in model.named_parameters() if value.requires_grad}


def main() -> None:
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(SEED)
    model = make_model(generator)
    sequences = make_sequences(generator)
    adapter = stored_names(model)

    tensors = {name.replace("base_model.model.", "").replace(".base_layer.", "."): value
               for name, value in model.named_parameters() if not value.requires_grad}
    tensors |= {name: value.clone() for name, value in adapter.items()}
    tensors["ids"] = torch.cat([ids for ids, _ in sequences]).int()
    tensors["supervised"] = torch.cat([supervised for _, supervised in sequences]).byte()
    tensors["offsets"] = torch.tensor([0, *(len(ids) for ids, _ in sequences)]).cumsum(0)

    count = sum(int(supervised[1:].sum()) for _, supervised in sequences)
    loss = torch.zeros(())
    for ids, supervised in sequences:
        part = loss_of(model, ids, supervised, count)
        part.backward()
        loss += part.detach()
    tensors["loss"] = loss.reshape(1)
    tensors |= {"gradient." + name: value.grad.clone() for name, value in adapter.items()}

    optimizer = torch.optim.AdamW(adapter.values(), lr=LEARNING_RATE, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(model, *sequences[step % len(sequences)], None)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    tensors["step_losses"] = torch.tensor(losses)
    tensors |= {"after." + name: value for name, value in adapter.items()}

    adapter_config = model.peft_config["default"].to_dict()
    adapter_config["target_modules"] = sorted(adapter_config["target_modules"])
    about = {
        "adapter_config": {key: adapter_config[key] for key in (
            "peft_type", "task_type", "r", "lora_alpha", "lora_dropout", "use_rslora", "target_modules", "bias")},
        "config": model.config.to_dict(),
        "learning_rate": LEARNING_RATE,
        "seed": SEED,
        "versions": {m.__name__: m.__version__ for m in (numpy, peft, safetensors, torch, transformers)},
    }
    # One key: safetensors writes several in an order of its own, different each time.
    safetensors.numpy.save_file({name: value.detach().contiguous().numpy() for name, value in tensors.items()}, OUT,
                                metadata={"golden": json.dumps(about, sort_keys=True, default=str)})
    OUT.chmod(0o644)
    assert OUT.stat().st_size <= LIMIT_BYTES, OUT.stat().st_size
    print(f"{OUT}: {OUT.stat().st_size} bytes, {len(tensors)} tensors, {count} supervised tokens, "
          f"losses {losses[0]:.6f} to {losses[-1]:.6f}")


if __name__ == "__main__":
    main()
