"""Checks by hand that transformers, PEFT and the gguf package read what Brickwork writes.

    BRICK_INTEROP_DIR=/tmp/interop build/tests/model_test --gtest_filter='Interop.*'
    python tests/golden/check_interop.py /tmp/interop

Prints one line a check and fails at the first difference.
"""

import pathlib
import sys
import warnings

import gguf
import numpy as np
import peft
import torch
import transformers
from gguf.quants import dequantize

MERGE_TOLERANCE = 2e-6  # float32 sums of a few products in another order
LOGIT_TOLERANCE = 1e-5  # likewise, through two layers
PADDED_IDS = [1, 17, 40, 5, 9, 33, 2, 61]  # kIds of tests/model/logits.h
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
GGUF_NAMES = {"q_proj": "attn_q", "k_proj": "attn_k", "v_proj": "attn_v", "o_proj": "attn_output",
              "gate_proj": "ffn_gate", "up_proj": "ffn_up", "down_proj": "ffn_down"}


def load(folder: pathlib.Path, **options) -> transformers.LlamaForCausalLM:
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[kind], (folder, kind, info[kind])
    return model


def linear_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: v for k, v in model.state_dict().items() if "_proj" in k and "lora" not in k}


def check_folders(root: pathlib.Path) -> None:
    exact = load(root / "hf-f32", dtype=torch.float32).state_dict()
    for name, dtype in DTYPES.items():
        model = load(root / f"hf-{name}", dtype="auto")
        assert model.dtype == dtype, (name, model.dtype)
        for key, value in model.state_dict().items():
            assert torch.equal(value, exact[key].to(dtype)), (name, key)
        print(f"hf-{name}: transformers {transformers.__version__} loads it, all tensors equal")
    tokenizer = transformers.AutoTokenizer.from_pretrained(root / "hf-f32")
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Hi all"}], tokenize=False,
                                         add_generation_prompt=True)
    assert text == "<|im_start|>user\nHi all<|im_end|>\n<|im_start|>assistant\n", text
    ids = tokenizer(text)["input_ids"]
    assert ids[0] == 1 and 2 in ids and tokenizer.decode(ids) == text, ids
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    print("hf-f32: its tokenizer and chat template")
    try:
        transformers.AutoModelForCausalLM.from_pretrained(root / "block")
        raise AssertionError("transformers loaded a block")
    except ValueError as error:
        print(f"block: transformers refuses it ({str(error).splitlines()[0][:70]}...)")
    assert transformers.AutoTokenizer.from_pretrained(root / "block").bos_token_id == 1


def check_padded(root: pathlib.Path) -> None:
    model = load(root / "padded", dtype=torch.float32)
    assert type(model) is transformers.LlamaForCausalLM, type(model)
    wanted = torch.from_numpy(np.load(root / "padded.npy"))
    with torch.no_grad():
        worst = float((model(torch.tensor([PADDED_IDS])).logits[0] - wanted).abs().max())
        model.model.layers[0].self_attn.o_proj.bias[3] += 0.1
        moved = float((model(torch.tensor([PADDED_IDS])).logits[0] - wanted).abs().max())
    assert worst <= LOGIT_TOLERANCE < moved, (worst, moved)
    print(f"padded: the logits of a block of uneven layers with biases (largest difference {worst:.1e})")


def check_adapters(root: pathlib.Path) -> None:
    for name in ("plain", "rslora"):
        base = load(root / "hf-f32", dtype=torch.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            adapted = peft.PeftModel.from_pretrained(base, str(root / f"adapter-{name}"))
        merged = linear_weights(adapted.merge_and_unload())
        wanted = linear_weights(load(root / f"merged-{name}", dtype=torch.float32))
        worst = max(float((merged[k] - wanted[k]).abs().max()) for k in wanted)
        moved = max(float((linear_weights(load(root / "hf-f32", dtype=torch.float32))[k] - wanted[k]).abs().max())
                    for k in wanted)
        assert worst <= MERGE_TOLERANCE < moved, (worst, moved)
        print(f"adapter-{name}: PEFT {peft.__version__} merges it as Brickwork does (largest difference {worst:.1e})")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        peft.PeftConfig.from_pretrained(str(root / "adapter-masked"))
    assert any("brick" in str(w.message) for w in caught), "PEFT should say that it leaves out the brick section"
    print("adapter-masked: PEFT warns that it leaves out the brick section")


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    return weight.reshape(heads, 2, weight.shape[0] // heads // 2, -1).swapaxes(1, 2).reshape(weight.shape)


def check_gguf(root: pathlib.Path) -> None:
    model = load(root / "hf-f32", dtype=torch.float32)
    heads = {"q_proj": model.config.num_attention_heads, "k_proj": model.config.num_key_value_heads}
    exact = {k: v.numpy() for k, v in model.state_dict().items()}
    for file in sorted(root.glob("*.gguf")):
        reader = gguf.GGUFReader(file)
        kind = getattr(gguf.GGMLQuantizationType, file.stem.upper())
        tensors = {t.name: t for t in reader.tensors}
        for key, value in exact.items():
            if "_proj" not in key:
                continue
            layer, proj = key.split(".")[2], key.split(".")[4]
            tensor = tensors.pop(f"blk.{layer}.{GGUF_NAMES[proj]}.weight")
            wanted = permuted(value, heads[proj]) if proj in heads else value
            assert tensor.tensor_type == kind, (file, tensor.name)
            assert tuple(tensor.shape) == wanted.shape[::-1]
            found = dequantize(tensor.data, kind)
            again = dequantize(gguf.quants.quantize(wanted, kind), kind)
            assert np.array_equal(found, again), (file, key, np.abs(found - again).max())
        print(f"{file.name}: gguf {len(reader.fields)} fields, all linear weights as its own quantisers make them")
        loaded = transformers.AutoModelForCausalLM.from_pretrained(root, gguf_file=file.name)
        if file.stem == "f32":
            for key, value in loaded.state_dict().items():
                assert np.array_equal(value.numpy(), exact[key]), key
            print(f"{file.name}: transformers reads the same model from it")


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    check_folders(folder)
    check_padded(folder)
    check_adapters(folder)
    check_gguf(folder)
    print("all as expected")
