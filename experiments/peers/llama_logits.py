"""llama.cpp's logits and greedy continuation: what experiments/export_round_trips.py compares an exported GGUF with.

    python experiments/peers/llama_logits.py --model m.gguf --ids ids.json --out logits.npy --generate 64 [--lora adapter.gguf]

--ids is a JSON array of ids. Prints one JSON line: the continuation's ids and text, up to an end of generation. Keys and
values are cached in float32.
"""

import argparse
import ctypes
import json
import pathlib

import llama_cpp as llama
import numpy


def decode(context, ids: list[int], first: int, vocab: int) -> numpy.ndarray:
    """Logits [ids, vocab] after `first` positions that are there."""
    batch = llama.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for i, token in enumerate(ids):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, first + i, 1, 1
        batch.seq_id[i][0] = 0
    if llama.llama_decode(context, batch) != 0:
        raise SystemExit("llama_decode failed")
    logits = numpy.ctypeslib.as_array(llama.llama_get_logits(context), (len(ids), vocab)).copy()
    llama.llama_batch_free(batch)
    return logits


def piece(vocabulary, token: int) -> bytes:
    buffer = ctypes.create_string_buffer(256)
    length = llama.llama_token_to_piece(vocabulary, token, buffer, len(buffer), 0, False)
    return buffer.raw[:length]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--ids", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--generate", type=int, default=0)
    parser.add_argument("--lora")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    model = llama.llama_model_load_from_file(args.model.encode(), llama.llama_model_default_params())
    if not model:
        raise SystemExit(f"llama.cpp does not load {args.model}")
    vocabulary = llama.llama_model_get_vocab(model)
    vocab = llama.llama_vocab_n_tokens(vocabulary)
    params = llama.llama_context_default_params()
    params.n_ctx, params.n_batch, params.n_ubatch = 1024, 512, 512
    params.n_threads = params.n_threads_batch = args.threads
    params.type_k = params.type_v = 0  # F32
    params.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
    context = llama.llama_init_from_model(model, params)
    if args.lora:
        adapter = llama.llama_adapter_lora_init(model, args.lora.encode())
        if not adapter:
            raise SystemExit(f"llama.cpp does not load {args.lora}")
        llama.llama_set_adapters_lora(context, (llama.llama_adapter_lora_p_ctypes * 1)(adapter), 1,
                                      (ctypes.c_float * 1)(1.0))
    ids = json.loads(pathlib.Path(args.ids).read_text())
    logits = decode(context, ids, 0, vocab)
    numpy.save(args.out, logits)
    made: list[int] = []
    last = logits[-1]
    while len(made) < args.generate:
        token = int(last.argmax())
        if llama.llama_vocab_is_eog(vocabulary, token):
            break
        made.append(token)
        last = decode(context, [token], len(ids) + len(made) - 1, vocab)[-1]
    text = b"".join(piece(vocabulary, token) for token in made).decode("utf-8", "replace")
    print(json.dumps({"ids": made, "text": text, "version": llama.__version__}))


if __name__ == "__main__":
    main()
