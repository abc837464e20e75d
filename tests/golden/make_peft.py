"""Makes tests/golden/peft: a tiny Llama written by transformers, two LoRA adapters written by PEFT, and the weights that
PEFT's merge gives. tests/model/interop_test.cc reads them.

    python tests/golden/make_peft.py
"""

import json
import pathlib
import shutil

import peft
import safetensors.torch
import torch
import transformers

HERE = pathlib.Path(__file__).parent / "peft"


def fill(model: torch.nn.Module, name: str, generator: torch.Generator) -> None:
    for key, value in model.named_parameters():
        if name in key:
            value.data = 0.1 * torch.randn(value.shape, generator=generator)


def main() -> None:
    shutil.rmtree(HERE, ignore_errors=True)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=48, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=32, rms_norm_eps=1e-5, tie_word_embeddings=False,
        rope_parameters={"rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0,
                         "high_freq_factor": 4.0, "original_max_position_embeddings": 16})
    model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(HERE / "base")
    cases = {
        "plain": dict(r=4, lora_alpha=6, target_modules=["q_proj", "v_proj", "down_proj"]),
        "rslora": dict(r=3, lora_alpha=2, use_rslora=True, target_modules="all-linear", lora_dropout=0.05),
    }
    for name, settings in cases.items():
        base = transformers.LlamaForCausalLM.from_pretrained(HERE / "base")
        adapted = peft.get_peft_model(base, peft.LoraConfig(task_type="CAUSAL_LM", **settings))
        fill(adapted, "lora_", torch.Generator().manual_seed(1))
        adapted.save_pretrained(HERE / name)
        (HERE / name / "README.md").unlink(missing_ok=True)
        config_file = HERE / name / "adapter_config.json"
        written = json.loads(config_file.read_text())
        written["base_model_name_or_path"] = "base"
        if isinstance(written["target_modules"], list):
            written["target_modules"].sort()  # PEFT's order is that of a set
        config_file.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n")
        merged = {k: v.contiguous() for k, v in adapted.merge_and_unload().state_dict().items() if "_proj" in k}
        safetensors.torch.save_file(merged, HERE / name / "merged.safetensors")
    for file in HERE.rglob("*.safetensors"):
        file.chmod(0o644)
    versions = {m.__name__: m.__version__ for m in (torch, transformers, peft)}
    (HERE / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")


if __name__ == "__main__":
    main()
