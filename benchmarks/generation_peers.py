"""One side of `generation.py --peers`, in a process of its own: reads tasks as JSON lines, answers with seconds.

    python benchmarks/generation_peers.py SIDE FORMAT FOLDER

SIDE is athlos, transformers, vllm or llama_cpp; FORMAT float32 or bfloat16 (llama.cpp: f32, bf16 or f16); FOLDER holds
the weights in Hugging Face form, for llama_cpp as one GGUF file. A task is `{"prompts": [[ids]], "limits": [n],
"num_samples": n, "temperature": t}`; every sample is as long as its limit. vLLM and llama.cpp stand in an environment
of their own (`make peers`), so nothing of Athlos is imported for them.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

MOST_ROWS, MOST_TOKENS = 16, 512
Task = dict[str, Any]
Side = Callable[[Task], int]
"""Generates; returns the number of tokens."""


def athlos(number_format: str, folder: Path) -> Side:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from athlos.generation.config import NativeConfig, NumberFormat
    from athlos.generation.interface import Prompt, SamplingRule
    from athlos.generation.native import NativeEngine

    engine = NativeEngine(
        NativeConfig(_target_="", batch_size=MOST_ROWS, dtype=NumberFormat(number_format)),
        model=AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval(),
        tokenizer=AutoTokenizer.from_pretrained(folder),
    )

    def run(task: Task) -> int:
        prompts = [
            Prompt(token_ids=row, max_new_tokens=limit)
            for row, limit in zip(task["prompts"], task["limits"], strict=True)
        ]
        rule = SamplingRule(temperature=task["temperature"])
        answers = engine.generate(prompts, rule=rule, num_samples=task["num_samples"], end_token_ids=())
        return sum(sample.num_tokens for samples in answers for sample in samples)

    return run


def transformers(number_format: str, folder: Path) -> Side:
    """All rows in one call, left-padded; a stopping criterion ends each at its length."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig
    from transformers.generation import StoppingCriteriaList

    from generation import OwnLength

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=number_format).eval()
    model.generation_config = GenerationConfig()

    @torch.inference_mode()
    def run(task: Task) -> int:
        width, limits = max(map(len, task["prompts"])), task["limits"]
        ids = torch.tensor([[0] * (width - len(row)) + row for row in task["prompts"]])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in task["prompts"]])
        sampled = {"do_sample": True, "temperature": task["temperature"], "top_k": 0} if task["temperature"] else {}
        options = GenerationConfig(
            max_new_tokens=max(limits), pad_token_id=0, num_return_sequences=task["num_samples"], **sampled
        )
        stopping = StoppingCriteriaList([OwnLength(width=width, limits=limits)] if len(limits) > 1 else [])
        model.generate(ids, attention_mask=mask, generation_config=options, stopping_criteria=stopping)
        return sum(limits) * task["num_samples"]

    return run


def vllm(number_format: str, folder: Path) -> Side:
    os.environ |= {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
    from vllm import LLM, SamplingParams

    model = LLM(model=str(folder), dtype=number_format, max_model_len=MOST_TOKENS, max_num_seqs=MOST_ROWS)

    def run(task: Task) -> int:
        options = [
            SamplingParams(
                n=task["num_samples"],
                max_tokens=limit,
                temperature=task["temperature"],
                ignore_eos=True,
                detokenize=False,
            )
            for limit in task["limits"]
        ]
        prompts = [{"prompt_token_ids": row} for row in task["prompts"]]
        answers = model.generate(prompts, options, use_tqdm=False)
        return sum(len(sample.token_ids) for answer in answers for sample in answer.outputs)

    return run


def llama_cpp(number_format: str, folder: Path) -> Side:
    """Its server, with as many requests side by side as there are samples."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(folder)
    params.n_ctx, params.n_parallel = MOST_TOKENS * MOST_ROWS, MOST_ROWS
    params.fit_params = params.ui = params.endpoint_slots = False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(os.environ["OMP_NUM_THREADS"])
    params.verbosity = 0
    server = xllamacpp.Server(params)

    def run(task: Task) -> int:
        def ask(number: int) -> int:
            prompt = number // task["num_samples"]
            body = {
                "prompt": task["prompts"][prompt],
                "n_predict": task["limits"][prompt],
                "temperature": task["temperature"],
                "ignore_eos": True,
                "samplers": ["temperature"],
                "cache_prompt": True,
            }
            asked = Request(
                f"{server.listening_address}/completion",
                json.dumps(body).encode(),
                {"Content-Type": "application/json"},
            )
            with urlopen(asked) as reply:
                return int(json.load(reply)["tokens_predicted"])

        count = len(task["prompts"]) * task["num_samples"]
        with ThreadPoolExecutor(count) as pool:
            return sum(pool.map(ask, range(count)))

    return run


SIDES = {"athlos": athlos, "transformers": transformers, "vllm": vllm, "llama_cpp": llama_cpp}


def main() -> None:
    # What a library prints must not get between the answers.
    answers, sys.stdout = os.fdopen(os.dup(1), "w"), sys.stderr
    os.dup2(2, 1)
    side = SIDES[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        num_tokens = side(json.loads(line))
        print(json.dumps({"tokens": num_tokens, "seconds": time.perf_counter() - start}), file=answers, flush=True)


if __name__ == "__main__":
    main()
