"""Makes tests/golden/quantised: rows of weights, ggml's own encoding of them without importance matrix, and what ggml
decodes from it. tests/tensor/ggml_golden_test.cc reads them.

    python tests/golden/make_quantised.py LIBRARY

LIBRARY is llama_cpp/lib/libggml-base.so of an installed llama-cpp-python (bench/peers/requirements-llama.txt).
"""

import ctypes
import json
import pathlib
import sys

import numpy as np

HERE = pathlib.Path(__file__).parent / "quantised"
COLUMNS = 256
TYPES = {  # name: ggml's id, values and bytes a block, the decoder's name
    "q8_0": (8, 32, 34, "q8_0"), "q4_0": (2, 32, 18, "q4_0"), "q4_1": (3, 32, 20, "q4_1"), "q5_0": (6, 32, 22, "q5_0"),
    "q5_1": (7, 32, 24, "q5_1"), "q4_k": (12, 256, 144, "q4_K"), "q5_k": (13, 256, 176, "q5_K"),
    "q6_k": (14, 256, 210, "q6_K")}


def rows() -> np.ndarray:
    rng = np.random.default_rng(7)
    normal = rng.standard_normal
    ramp = np.arange(COLUMNS) - 100.0
    outlier = 0.02 * normal(COLUMNS)
    outlier[77] = 4
    ties = rng.integers(-16, 16, COLUMNS) / 2  # halves between the steps of a scale of 1
    ties[::32] = -16
    signed_zeros = np.where(rng.random(COLUMNS) < 0.5, 0.0, -0.0)
    return np.stack([
        0.02 * normal(COLUMNS), 0.02 * normal(COLUMNS), 0.02 * rng.standard_t(3, COLUMNS), 0.1 + 0.02 * normal(COLUMNS),
        -0.1 + 0.02 * normal(COLUMNS), normal(COLUMNS) * (rng.random(COLUMNS) < 0.5),
        normal(COLUMNS) * (rng.random(COLUMNS) < 0.1), 1e-6 * normal(COLUMNS), 300 * normal(COLUMNS), outlier, ties, ramp,
        np.abs(normal(COLUMNS)), np.full(COLUMNS, 0.37), np.full(COLUMNS, -0.37), signed_zeros]).astype(np.float32)


def main() -> None:
    ggml = ctypes.CDLL(sys.argv[1])
    ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
    HERE.mkdir(exist_ok=True)
    values = rows()
    values.tofile(HERE / "rows.f32")
    for name, (kind, block_values, block_bytes, decoder) in TYPES.items():
        encoded = np.zeros(values.size // block_values * block_bytes, np.uint8)
        decoded = np.zeros_like(values)
        ggml.ggml_quantize_chunk(ctypes.c_int(kind), ctypes.c_void_p(values.ctypes.data),
                                 ctypes.c_void_p(encoded.ctypes.data), ctypes.c_int64(0), ctypes.c_int64(len(values)),
                                 ctypes.c_int64(COLUMNS), ctypes.c_void_p(0))
        getattr(ggml, f"dequantize_row_{decoder}")(ctypes.c_void_p(encoded.ctypes.data),
                                                   ctypes.c_void_p(decoded.ctypes.data), ctypes.c_int64(values.size))
        encoded.tofile(HERE / f"{name}.bin")
        decoded.tofile(HERE / f"{name}.f32")
    versions = {"llama-cpp-python": "0.3.36", "numpy": np.__version__}
    (HERE / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")


if __name__ == "__main__":
    main()
