"""What makes decoding on a CPU faster than PyTorch's operations alone; each kernel stays for a measured reason.

A kernel stays while the engine without it loses more than 10 % in a case of `benchmarks/generation.py`, or while LISA
without it misses its bar in `benchmarks/lisa_decode.py`: 1.2 times the base with SDPA in a fixed budget of cache bytes,
from 1,024 tokens on. Measured 2026-11-30 with torch 2.13 on a virtual machine with two cores of an AMD EPYC (AVX-512),
one thread, other programs beside it, so in processor time. Medians of the ratios within a round, from to; two rounds
for SmolLM2, five for the tiny Llama.

    python benchmarks/generation.py --without onednn fused written_out --processor-time

| engine / engine without | tiny_llama group | tiny_llama ragged | smollm2 group | smollm2 ragged |
| --- | --- | --- | --- | --- |
| `linear` (`onednn`) | 1.06 (0.98 to 1.29) | 1.08 (1.01 to 1.14) | 1.03 (1.03 to 1.04) | 1.15 (1.15 to 1.16) |
| `llama_step` (`written_out`) | 1.30 (1.22 to 1.35) | 1.41 (1.26 to 1.47) | 1.07 (1.06 to 1.07) | not measured |
| `fused_attention` (`fused`) | 1.02 (0.91 to 1.19) | 0.97 (0.82 to 1.05) | 1.02 (1.01 to 1.03) | not measured |

    python benchmarks/lisa_decode.py --contexts 2048 4096 --repeats 4    # `perf_counter` replaced by `process_time`

| LISA / base with SDPA, fixed budget | 2,048 tokens | 4,096 tokens |
| --- | --- | --- |
| as it is | 1.57 (1.44 to 1.64) | 1.59 (1.52 to 1.60) |
| without `fused_attention` | 1.22 (1.03 to 1.31) | 1.18 (1.16 to 1.20) |
| without `llama_step` | 1.32 (1.30 to 1.32) | 1.29 (1.26 to 1.32) |
| without `linear`, in both | 1.59 (1.56 to 1.65) | 1.68 (1.67 to 1.68) |

So `linear` stays for `ragged` on SmolLM2 (13 % lost without it), `llama_step` for small models (23 to 29 % lost), and
`fused_attention` for LISA alone, which misses its bar without it.

Since then `llama_step` is one compiled call for all plain layers (`decoder_layers.cpp`), in float32 and bfloat16. Its
reason, a product [rows, 576] by [1536, 576] in microseconds, two threads of a Xeon with AMX, best of eight passes over
120 matrices (2026-11-30, torch 2.13; other programs were stopped as far as possible):

| rows | kernel, bfloat16 | oneDNN with packed weights, bfloat16 | kernel, float32 | MKL, float32 |
| --- | --- | --- | --- | --- |
| 1 | 92 | 121 | 146 | 154 |
| 8 | 86 | 96 | 205 | 301 |
| 16 | 113 | 123 | 279 | 359 |
| 64 | 261 | 170 | 692 | 668 |

The tables above were not measured again with it.
"""
