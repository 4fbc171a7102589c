"""A generator as judge, over HTTP or through llama.cpp: the probability of yes against no, at the first token.

A server that tells neither of the two answers in words, and its first word counts; what is neither yes nor no counts
as no. Both are counted. Replies are kept on disk by the engine, so that nothing is asked twice, after a kill neither.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cached_property

from hydra.utils import get_class

from athlos.generation.http_config import LlamaCppConfig
from athlos.generation.interface import Prompt, SamplingRule
from athlos.generation.llama_cpp_engine import LlamaCppEngine
from athlos.generation.openai_engine import OpenAIEngine
from athlos.judging.config import GeneratorJudgeConfig
from athlos.judging.interface import NUM_DIGITS, Pair, judge_id
from athlos.judging.windows import best_of_windows
from athlos.stages import StageStore, content_hash

YES, NO = "yes", "no"
REPLY_TOKENS = 8
"""Longest reply in words that is read: room for a mark or a line end before the yes or no."""
_FIELD = re.compile(r"\{(premise|hypothesis)\}")
_WORD = re.compile(r"\w+")


class GeneratorJudge:
    """Asks a generator by a prompt. Its identity holds the prompt's hash and the model as the engine names it."""

    def __init__(self, config: GeneratorJudgeConfig, *, stages: StageStore) -> None:
        self.config = config
        places = {"stages": stages} if isinstance(config.engine, LlamaCppConfig) else {}
        self.engine: OpenAIEngine = get_class(config.engine._target_)(config.engine, cache_root=stages.root, **places)
        self.counters = {"pairs": 0, "fallbacks": 0, "unread": 0}

    @cached_property
    def identity(self) -> Mapping[str, str]:
        return {
            "judge": self.engine.name,
            "model": self._model(),
            "prompt": content_hash(self.config.prompt)[:NUM_DIGITS],
            "api": self.engine.config.api.value,
            "window": f"{self.config.window_words} words",
        }

    def _model(self) -> str:
        """The content of a file of weights, or the name that a server is asked for."""
        if isinstance(self.engine, LlamaCppEngine):
            return f"gguf:{self.engine.gguf.sha256}"
        return self.engine.config.model or "the only one of its server"

    @property
    def id(self) -> str:
        return judge_id(self.identity)

    def scores(self, pairs: Sequence[Pair]) -> list[float]:
        self.counters["pairs"] += len(pairs)
        return best_of_windows(pairs, num_words=self.config.window_words, score=self._scores)

    def _scores(self, pairs: list[Pair]) -> list[float]:
        prompts = [Prompt(text=filled(self.config.prompt, pair), max_new_tokens=REPLY_TOKENS) for pair in pairs]
        probs = [[0.0, 0.0] for _ in pairs]
        if self.engine.config.log_probs:
            probs = self.engine.first_token_probs(prompts, options=(YES, NO))
        scores = [yes / (yes + no) if yes + no > 0 else None for yes, no in probs]
        untold = [prompt for prompt, score in zip(prompts, scores, strict=True) if score is None]
        replies = iter(self._replies(untold))
        return [next(replies) if score is None else score for score in scores]

    def _replies(self, prompts: Sequence[Prompt]) -> list[float]:
        """1 for a reply that begins with yes, else 0."""
        self.counters["fallbacks"] += len(prompts)
        words = [first_word(sample.text) for [sample] in self.engine.generate(prompts, rule=SamplingRule())]
        self.counters["unread"] += sum(word not in (YES, NO) for word in words)
        return [float(word == YES) for word in words]


def filled(prompt: str, pair: Pair) -> str:
    """The prompt with a pair in it; what looks like a field in the pair's own texts stays as it is."""
    return _FIELD.sub(lambda match: str(getattr(pair, match[1])), prompt)


def first_word(reply: str) -> str:
    """In lower case; empty where there is none."""
    match = _WORD.search(reply.casefold())
    return match[0] if match else ""
