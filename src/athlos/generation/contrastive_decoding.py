"""Decoding rules that contrast two streams of one model, or two of its depths: CAD, SID, DeCoRe and DoLa.

Equations: `contrast.py`. They take the engine `native`, where both streams stand in one batch.
"""

import dataclasses
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from athlos.errors import ConfigError, DataError
from athlos.generation.config import CadConfig, ContrastConfig, DecoreConfig, DolaConfig, SidConfig
from athlos.generation.decoding import answer_requests
from athlos.generation.interface import Contrast, Engine, Prediction, Progress, Prompt, Request, Sample, SamplingRule
from athlos.generation.native import NativeEngine
from athlos.models.control_tokens import control_ids, controlled
from athlos.models.sites import Backbone, backbone

ConfigT = TypeVar("ConfigT", bound=ContrastConfig)
_HEAD = re.compile(r"(\d+)-(\d+)")
MOST_LAYERS_IN_HALVES = 40
FEW_LAYERS = 20
"""Of a deeper decoder the early exits of DoLa are sought in the first or last 20 layers."""


class ContrastiveDecoding(ABC, Generic[ConfigT]):
    """Base: a rule says what B is. Raises `ConfigError` for another engine than `native`."""

    def __init__(self, config: ConfigT) -> None:
        self.config = config
        self.rule = SamplingRule(temperature=config.temperature, top_p=config.top_p)

    @abstractmethod
    def contrast(self, sites: Backbone) -> Contrast | None:
        """What is contrasted in a decoder; None for nothing."""

    def answer(
        self, engine: Engine, requests: Sequence[Request], *, progress: Progress | None = None
    ) -> list[Prediction]:
        native = self.native(engine)
        return answer_requests(
            native,
            self.asked(native, requests),
            config=self.config,
            rule=self.rule,
            contrast=self.contrast(backbone(native.causal_model)),
            progress=progress,
        )

    def native(self, engine: Engine | None) -> NativeEngine:
        if not isinstance(engine, NativeEngine):
            name = type(self).__name__.lower()
            raise ConfigError(f"decoding={name}: decodes two streams in one batch, which takes engine=native")
        return engine

    def asked(self, engine: NativeEngine, requests: Sequence[Request]) -> Sequence[Request]:
        """The requests with all that is contrasted. Raises `DataError` for one that has nothing."""
        return requests


class Cad(ContrastiveDecoding[CadConfig]):
    """Context-aware decoding (arXiv 2305.14739): B reads the prompt without what the answer should rest on."""

    def contrast(self, sites: Backbone) -> Contrast:
        return Contrast(alpha=self.config.alpha, plausibility=self.config.plausibility)

    def asked(self, engine: NativeEngine, requests: Sequence[Request]) -> Sequence[Request]:
        for request in requests:
            if not request.without:
                raise DataError(
                    f"request '{request.identifier}': decoding=cad contrasts its prompt with one without passages, "
                    "and it has none; choose data and a prompt_style with passages, or method=tm"
                )
        return requests


class Sid(ContrastiveDecoding[SidConfig]):
    """Self-induced decoding (arXiv 2501.13573): A reads the prompt behind [POS], B behind [NEG].

    Raises `ModelError` for a model without the two tokens.
    """

    def contrast(self, sites: Backbone) -> Contrast | None:
        if self.config.alpha == 0:
            return None
        return Contrast(alpha=self.config.alpha, plausibility=self.config.plausibility)

    def asked(self, engine: NativeEngine, requests: Sequence[Request]) -> Sequence[Request]:
        control = control_ids(engine.tokenizer)
        return [dataclasses.replace(request, control=control, without="") for request in requests]


class SidEngine(NativeEngine):
    """A native engine whose every answer is self-induced: for pipelines, whose calls go to an engine themselves."""

    def __init__(self, engine: NativeEngine, *, decoding: Sid) -> None:
        super().__init__(engine.settings, model=engine.model, tokenizer=engine.tokenizer)
        self.decoding = decoding

    def generate(self, prompts: Sequence[Prompt], **options: Any) -> list[list[Sample]]:
        """As `NativeEngine.generate`, each prompt behind [POS] against itself behind [NEG]."""
        pos, neg = control_ids(self.tokenizer)
        asked = [
            dataclasses.replace(
                prompt,
                token_ids=controlled(prompt.token_ids, pos, self.tokenizer),
                against_ids=controlled(prompt.token_ids, neg, self.tokenizer),
                max_new_tokens=min(prompt.max_new_tokens, self.context - len(prompt.token_ids) - 1),
            )
            for prompt in prompts
        ]
        return super().generate(asked, contrast=self.decoding.contrast(backbone(self.causal_model)), **options)


class Decore(ContrastiveDecoding[DecoreConfig]):
    """Contrasting retrieval heads (arXiv 2410.18860): B lacks some heads, and counts the more the less certain A is.

    Both streams read the prompt with all heads; B lacks them while it decodes.
    """

    def contrast(self, sites: Backbone) -> Contrast:
        return Contrast(
            alpha=None,
            max_alpha=self.config.max_factor,
            plausibility=self.config.plausibility,
            heads=read_heads(self.config.heads, key="decoding.heads"),
            is_uniform=self.config.mask == "uniform_causal",
        )


class Dola(ContrastiveDecoding[DolaConfig]):
    """Decoding by contrasting layers (arXiv 2309.03883): an early exit, chosen anew for each token of each row."""

    def contrast(self, sites: Backbone) -> Contrast:
        return Contrast(
            plausibility=self.config.plausibility,
            layers=tuple(early_exits(len(sites.layers), half=self.config.layers)),
        )


def read_heads(texts: Sequence[str], *, key: str) -> tuple[tuple[int, int], ...]:
    """`16-19` -> layer 16, query head 19. Raises `ConfigError` for none, another form, or one that is named twice."""
    heads = []
    for text in texts:
        if not (match := _HEAD.fullmatch(text)):
            raise ConfigError(f"{key}: got '{text}', expected <layer>-<head>, both counted from 0")
        heads.append((int(match[1]), int(match[2])))
    if not heads or len(set(heads)) < len(heads):
        raise ConfigError(f"{key}: got {list(texts)}, expected at least one head, and each once")
    return tuple(heads)


def early_exits(num_layers: int, *, half: str) -> list[int]:
    """Numbers of layers below DoLa's early exits: the even ones of the lower or upper half, as transformers had them.

    The embedding itself (0 layers) is no exit. Raises `ConfigError` where none is left.
    """
    is_deep = num_layers > MOST_LAYERS_IN_HALVES
    if half == "low":
        exits = list(range(2, FEW_LAYERS if is_deep else num_layers // 2, 2))
    else:
        exits = list(range(num_layers - FEW_LAYERS if is_deep else num_layers // 2, num_layers, 2))
    exits = [count for count in exits if count > 0]
    if not exits:
        raise ConfigError(f"decoding.layers: got {half}, but a decoder of {num_layers} layers has no early exit there")
    return exits
