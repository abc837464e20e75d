"""llama.cpp's own quantiser: what experiments/quantised_export.py compares `brick export` with.

    python experiments/peers/llama_quantise.py --model f32.gguf --out q4_0.gguf --dtype q4_0

Without importance matrix, everything else as llama_model_quantize has it by default.
"""

import argparse
import ctypes

import llama_cpp as llama

FILE_TYPES = {"f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "q4_k": 15, "q6_k": 18, "bf16": 32}  # q4_k is Q4_K_M


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--dtype", required=True, choices=FILE_TYPES)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    params = llama.llama_model_quantize_default_params()
    params.ftype = FILE_TYPES[args.dtype]
    params.nthread = args.threads
    status = llama.llama_model_quantize(args.model.encode(), args.out.encode(), ctypes.byref(params))
    if status != 0:
        raise SystemExit(f"llama_model_quantize: {status}")


if __name__ == "__main__":
    main()
