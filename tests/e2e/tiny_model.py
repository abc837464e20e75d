"""A small random Llama as a Hugging Face folder, made with the standard library alone."""
import json
import random
import struct
from pathlib import Path

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    "You are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def byte_alphabet():
    """GPT-2's visible character for each byte."""
    visible = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
    table, extra = {}, 0
    for byte in range(256):
        if byte in visible:
            table[byte] = chr(byte)
        else:
            table[byte] = chr(256 + extra)
            extra += 1
    return table


def write_tokenizer(folder):
    vocab = {token: i for i, token in enumerate(SPECIAL)}
    for byte, character in sorted(byte_alphabet().items()):
        vocab[character] = len(vocab)
    tokenizer = {
        "version": "1.0",
        "added_tokens": [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True} for i, t in enumerate(SPECIAL)],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocab,
                  "merges": []},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>",
        "add_bos_token": False, "tokenizer_class": "GPT2Tokenizer", "chat_template": CHATML}), encoding="utf-8")
    return len(vocab)


def write_model(folder, seed=0, layers=2, hidden=64, heads=4, kv_heads=2, ffn=96):
    folder = Path(folder)
    folder.mkdir(parents=True)
    vocab = write_tokenizer(folder)
    head_dim = hidden // heads
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden,
        "intermediate_size": ffn, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "head_dim": head_dim, "vocab_size": vocab,
        "max_position_embeddings": 1024, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
        "torch_dtype": "float32"}))
    rng = random.Random(seed)
    shapes = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        shapes[prefix + "input_layernorm.weight"] = (hidden,)
        shapes[prefix + "post_attention_layernorm.weight"] = (hidden,)
        shapes[prefix + "self_attn.q_proj.weight"] = (heads * head_dim, hidden)
        shapes[prefix + "self_attn.k_proj.weight"] = (kv_heads * head_dim, hidden)
        shapes[prefix + "self_attn.v_proj.weight"] = (kv_heads * head_dim, hidden)
        shapes[prefix + "self_attn.o_proj.weight"] = (hidden, heads * head_dim)
        shapes[prefix + "mlp.gate_proj.weight"] = (ffn, hidden)
        shapes[prefix + "mlp.up_proj.weight"] = (ffn, hidden)
        shapes[prefix + "mlp.down_proj.weight"] = (hidden, ffn)
    header, body, offset = {}, [], 0
    for name, shape in shapes.items():
        count = 1
        for dimension in shape:
            count *= dimension
        if "norm" in name:
            values = [1.0 + rng.gauss(0, 0.05) for _ in range(count)]
        else:
            values = [rng.gauss(0, 0.08) for _ in range(count)]
        body.append(struct.pack(f"<{count}f", *values))
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [offset, offset + 4 * count]}
        offset += 4 * count
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + b"".join(body))
    return folder


def read_npy(path):
    """(shape, values) of a float32 array."""
    data = Path(path).read_bytes()
    length = struct.unpack("<H", data[8:10])[0]
    header = eval(data[10:10 + length].decode(), {"__builtins__": {}})
    assert header["descr"] == "<f4" and not header["fortran_order"]
    count = 1
    for dimension in header["shape"]:
        count *= dimension
    return header["shape"], struct.unpack(f"<{count}f", data[10 + length:10 + length + 4 * count])


def write_records(path, count, seed=0):
    rng = random.Random(seed)
    words = "desk form fee room key note call date file seal".split()
    with open(path, "w", encoding="utf-8") as out:
        for _ in range(count):
            asked = " ".join(rng.choices(words, k=4))
            out.write(json.dumps({"instruction": f"What of {asked}?", "response": " ".join(reversed(asked.split())) + "."}) + "\n")
    return path


def write_text(path, kilobytes=8, seed=0):
    rng = random.Random(seed)
    words = "the river runs over stones while a small boat drifts past old mills and quiet fields".split()
    text = ""
    while len(text) < kilobytes * 1000:
        text += " ".join(rng.choices(words, k=12)).capitalize() + ". "
    Path(path).write_text(text, encoding="utf-8")
    return path
