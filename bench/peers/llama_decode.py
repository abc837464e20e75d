"""llama.cpp's speed on this machine: what `brick bench --what prefill,decode` is compared with.

    python bench/peers/llama_decode.py --model model.gguf --ids windows.json

Uses llama-cpp-python's low-level calls, so that Python costs nothing that counts. As brick does it: prefill is 512
random ids from an empty cache to the last one's logits; decoding feeds random ids one at a time after 16 others, each
to its logits. Measured with flash attention off and on and, for prefill, micro-batches of 128 and 512; the fastest
counts. The build is whatever was installed; `system` in the output says which instruction sets it uses. --ids is a JSON array of windows whose perplexity is printed: the mean over each window's ids but the first.
Prints one JSON line.
"""

import argparse
import ctypes
import json
import pathlib
import resource
import statistics
import time

import llama_cpp as llama
import numpy

PREFILL, PROMPT, MICRO_BATCHES = 512, 16, (512, 128)


class Session:
    def __init__(self, model, threads: int, flash: bool, micro_batch: int):
        params = llama.llama_context_default_params()
        params.n_ctx = 1024
        params.n_batch = PREFILL
        params.n_ubatch = micro_batch
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = (llama.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else
                                  llama.LLAMA_FLASH_ATTN_TYPE_DISABLED)
        self.context = llama.llama_init_from_model(model, params)
        if not self.context:
            raise SystemExit("llama.cpp made no context")

    def clear(self) -> None:
        llama.llama_memory_clear(llama.llama_get_memory(self.context), True)

    def feed(self, ids: numpy.ndarray) -> None:
        """Ids after those that are there, up to the last one's logits."""
        array = (llama.llama_token * len(ids))(*ids.tolist())
        if llama.llama_decode(self.context, llama.llama_batch_get_one(array, len(ids))) != 0:
            raise SystemExit("llama_decode failed")
        llama.llama_synchronize(self.context)

    def all_logits(self, ids: list[int], vocab: int) -> numpy.ndarray:
        """Logits [ids, vocab] from an empty cache."""
        self.clear()
        batch = llama.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
            batch.seq_id[i][0] = 0
        if llama.llama_decode(self.context, batch) != 0:
            raise SystemExit("llama_decode failed")
        logits = numpy.ctypeslib.as_array(llama.llama_get_logits(self.context), (len(ids), vocab)).copy()
        llama.llama_batch_free(batch)
        return logits

    def close(self) -> None:
        llama.llama_free(self.context)


def rates(repeats: int, tokens: int, before, timed) -> dict:
    """Tokens a second; the first repetition warms up."""
    found = []
    for repeat in range(repeats + 1):
        before()
        begin = time.perf_counter()
        timed()
        if repeat > 0:
            found.append(tokens / (time.perf_counter() - begin))
    return {"tokens_per_second": statistics.median(found), "spread": [min(found), max(found)]}


def measure(model, args: argparse.Namespace, vocab: int) -> tuple[list[dict], list[dict]]:
    random = numpy.random.default_rng(args.seed)
    prompt, first = random.integers(0, vocab, PREFILL), random.integers(0, vocab, PROMPT)
    ones = random.integers(0, vocab, (args.decode_tokens, 1))
    prefill, decode = [], []
    for flash in (False, True):
        for micro_batch in MICRO_BATCHES:
            session = Session(model, args.threads, flash, micro_batch)
            setting = {"flash_attention": flash, "micro_batch": micro_batch}
            prefill.append(setting | rates(args.repeats, PREFILL, session.clear, lambda: session.feed(prompt)))
            if micro_batch == MICRO_BATCHES[0]:  # decoding has none
                def begin():
                    session.clear()
                    session.feed(first)
                decode.append(setting | rates(args.repeats, len(ones), begin,
                                              lambda: [session.feed(one) for one in ones]))
            session.close()
    return prefill, decode


def perplexity(model, args: argparse.Namespace, vocab: int) -> float:
    session = Session(model, args.threads, False, PREFILL)
    total, count = 0.0, 0
    for ids in json.loads(pathlib.Path(args.ids).read_text()):
        logits = session.all_logits(ids, vocab)[:-1].astype(numpy.float64)
        top = logits.max(1, keepdims=True)
        norm = numpy.log(numpy.exp(logits - top).sum(1)) + top[:, 0]
        total += (norm - logits[numpy.arange(len(ids) - 1), ids[1:]]).sum()
        count += len(ids) - 1
    session.close()
    return float(numpy.exp(total / count))


@llama.llama_log_callback
def silent(level, text, data):
    """llama.cpp's log is not wanted on standard error."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="GGUF file")
    parser.add_argument("--ids", help="JSON: windows of ids, of at most 512")
    parser.add_argument("--decode-tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5, help="timed repetitions after a warm-up; the median counts")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    llama.llama_log_set(silent, ctypes.c_void_p(0))
    llama.llama_backend_init()
    model = llama.llama_model_load_from_file(args.model.encode(), llama.llama_model_default_params())
    if not model:
        raise SystemExit(f"{args.model}: llama.cpp can't read it")
    vocab = llama.llama_vocab_n_tokens(llama.llama_model_get_vocab(model))
    prefill, decode = measure(model, args, vocab)
    fastest = [max(found, key=lambda one: one["tokens_per_second"]) for found in (prefill, decode)]
    result = {
        "prefill_tokens_per_second": fastest[0]["tokens_per_second"],
        "decode_tokens_per_second": fastest[1]["tokens_per_second"],
        "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "prefill": prefill,
        "decode": decode,
        "threads": args.threads,
        "system": llama.llama_print_system_info().decode().strip(),
        "llama_cpp_python": llama.__version__,
    }
    if args.ids:
        result["perplexity"] = perplexity(model, args, vocab)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
