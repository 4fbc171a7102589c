"""What goes into a generation engine and what comes out. No torch here: engines over HTTP need none.

An engine is built from its config (and, where it computes here, the model and its tokenizer) and answers through
`generate`. The same prompts, rule and seeds give the same samples whatever else is in the batch.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Progress = Callable[[int, int, int], Any]
"""(samples done, all samples, tokens generated so far)"""


@dataclass(kw_only=True)
class Prompt:
    """One prompt. Engines that compute here read `token_ids`, engines over HTTP read `text`."""

    token_ids: list[int] = field(default_factory=list)
    max_new_tokens: int
    """Largest number of tokens of a sample, >= 1."""
    text: str = ""
    system: str = ""
    """What engines over HTTP say as the system before a chat's user message; empty = what the chat template says."""
    reply_schema: str = ""
    """JSON schema of the reply, as JSON: a server that answers a chat is held to it; other engines take no notice."""
    seed: int = 0
    """Seed of its first sample; sample `i` is drawn from a stream of its own made of (seed, i)."""
    against_ids: list[int] = field(default_factory=list)
    """What the second stream of a `Contrast` reads in place of `token_ids`; empty = the same."""


@dataclass(kw_only=True)
class SamplingRule:
    """How the next token is chosen. The order is temperature, top-k, top-p, min-p; the defaults change nothing."""

    temperature: float = 0.0
    """0 = the most probable token; > 0 divides the logits."""
    top_k: int = 0
    """Keep the k most probable tokens; 0 = all."""
    top_p: float = 1.0
    """Keep the smallest set with at least this probability, in (0, 1]."""
    min_p: float = 0.0
    """Keep tokens of at least this share of the greatest probability, in [0, 1)."""
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of tokens seen in prompt or answer, > 0; 1 = off."""
    presence_penalty: float = 0.0
    """Subtracted from the logits of tokens seen in the answer (llama.cpp: in the prompt too); 0 = off."""


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Logits of a stream A against those of B: (1 + alpha) A - alpha B, then what A finds implausible is cut.

    B is the same model with another prompt (`Prompt.against_ids`), with attention heads that are silent while it
    decodes (`heads`), or an early layer of A itself (`layers`). Both are fed the token that was chosen, and the
    log-probabilities of a sample are those of A alone. Names and formulas: CAD arXiv 2305.14739, DeCoRe 2410.18860,
    DoLa 2309.03883.
    """

    alpha: float | None = None
    """Weight of the contrast, >= 0; 0 is A alone, nothing cut. None: in each step the entropy of A in nats (DeCoRe)."""
    max_alpha: float = math.inf
    """Cap of that entropy."""
    plausibility: float = 0.1
    """Tokens below this share of A's greatest probability are cut, in [0, 1]; 0 cuts nothing."""
    heads: tuple[tuple[int, int], ...] = ()
    """(layer, query head), counted from 0."""
    is_uniform: bool = False
    """Silent heads attend to all that is visible alike; false = they give nothing."""
    layers: tuple[int, ...] = ()
    """Numbers of layers below an early exit; in each step and row that counts whose distribution is farthest from A's
    in Jensen-Shannon divergence, by log p_A - log p_B without a weight."""

    @property
    def num_streams(self) -> int:
        return 1 if self.layers else 2


@dataclass(frozen=True, kw_only=True)
class Silence:
    """Attention heads that a model answers without. Nothing of the model changes."""

    heads: tuple[tuple[int, int], ...]
    """(layer, query head), counted from 0."""
    is_uniform: bool = False
    """Silent heads attend to all that is visible alike; false = they give nothing."""
    in_prompt: bool = True
    """Whether they are silent while the prompt is read too; false = only while it decodes."""
    follows_sharing: bool = False
    """Where layers share attention (LISA), silence a head in all that share it; false = such a head raises."""


@dataclass(kw_only=True)
class Sample:
    """One answer to a prompt. Token fields end with the end token, or with the token that completes a stop string."""

    text: str
    """The answer without end token, cut at the first stop string."""
    token_ids: list[int]
    """Empty where a server does not tell them."""
    log_probs: list[float]
    """Of each token under the plain model (before temperature and truncation), in nats; empty where unknown."""
    num_tokens: int
    num_prompt_tokens: int
    finished: bool
    """False when it was cut by length."""
    first_tokens: list[tuple[str, float]] = field(default_factory=list)
    """The likeliest first tokens and their log-probabilities under the plain model: as many as a server tells."""


class Engine(Protocol):
    """Generates. `rule` is plain numbers so that servers understand it too; rules with code are an engine's own."""

    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        rule: SamplingRule,
        num_samples: int = 1,
        stop: Sequence[str] = (),
        progress: Progress | None = None,
    ) -> list[list[Sample]]:
        """`num_samples` samples a prompt, in the order of the prompts."""
        ...


@dataclass(kw_only=True)
class Request:
    """One question to a model: the prompt, and the record it was made from for pipelines that need more."""

    identifier: str
    prompt: str
    record: Any
    seed: int = 0
    stop: list[str] = field(default_factory=list)
    """Strings that end this answer, beside those of the decoding rule."""
    control: tuple[int, ...] = ()
    """Control token in front of the prompt; a second one makes the second stream of a contrast the same prompt behind
    it."""
    without: str = ""
    """The prompt less what the answer should rest on (passages, a memory), for decoding rules that contrast both."""


@dataclass(kw_only=True)
class Prediction:
    """One answer. `text` is cut at the stop string; `log_prob` is the sum over generated tokens, in nats."""

    identifier: str
    text: str
    num_prompt_tokens: int
    num_tokens: int
    log_prob: float
    finished: bool
    """False when it was cut by length."""
    trace: list[dict[str, Any]] = field(default_factory=list)
    """What a pipeline did for it: one JSON-able row a call or search, with `purpose`."""


class Decoding(Protocol):
    """Makes prompts of requests and has the engine answer them by its rule; one prediction a request, in order."""

    def answer(self, engine: Engine, requests: Sequence[Request], *, progress: Any = None) -> list[Prediction]: ...
