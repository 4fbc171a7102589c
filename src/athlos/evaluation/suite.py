"""What an evaluation suite is, and how one is built: by the class that its config names.

A suite reads records and a model (or a pipeline that answers requests) and returns metrics by their full names less
the split: `acc`, `acc/de`, `ppl`. Undefined values are nan with a count, never 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from hydra.utils import get_class

from athlos.config.schema import RunConfig, SuiteConfig
from athlos.data.records import Record
from athlos.generation.interface import Prediction, Request

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from athlos.generation.interface import Engine


@dataclass(kw_only=True)
class MetricDetail:
    """What stands beside a value: n items, how many were undefined, and the percentile interval of a bootstrap."""

    n: int
    undefined: int = 0
    low: float | None = None
    high: float | None = None


@dataclass(kw_only=True)
class SuiteResult:
    metrics: dict[str, float] = field(default_factory=dict)
    """Name without the split (`acc/de`) -> value; [0, 1] unless the metric's own scale differs (BLEU 0-100)."""
    details: dict[str, MetricDetail] = field(default_factory=dict)
    predictions: list[dict[str, Any]] = field(default_factory=list)
    """One JSON-able row an item, with `id`, `language`, `prompt`, `prediction`, `gold` and the item's scores."""
    figures: dict[str, bytes] = field(default_factory=dict)
    """Name -> PNG; stored as `figures/<name>.png` in the run folder."""
    signatures: dict[str, str] = field(default_factory=dict)
    """What two results must share to be compared: sacrebleu signature, normaliser, detector, prompt hash."""

    def add(self, metrics: Mapping[str, float], details: Mapping[str, MetricDetail]) -> None:
        """Take in what a metric of `athlos.evaluation.metrics` computed."""
        self.metrics |= metrics
        self.details |= details


class Answerer(Protocol):
    """What suites evaluate: a LightningModule of a method. Pipelines override `answer`.

    Model and tokenizer are None where a server answers; the config's checks keep suites that read them away from it.
    """

    model: "PreTrainedModel"
    tokenizer: "PreTrainedTokenizerBase"
    engine: "Engine"

    def answer(self, requests: Sequence[Request], *, progress: Any = None) -> list[Prediction]:
        """One prediction a request, in order. `progress(num_done, num_all, num_tokens)` may be called on the way."""
        ...


class Suite(Protocol):
    """`evaluate` gets all test records (already limited) and returns everything measured on them."""

    is_seeded: bool
    """Whether the run's seed matters: worked examples, sampling."""

    def __init__(self, config: SuiteConfig, run: RunConfig) -> None: ...

    def evaluate(
        self, answerer: Answerer, records: Sequence[Record], *, shots_pool: Sequence[Record] = (), progress: Any = None
    ) -> SuiteResult:
        """`shots_pool` holds training records that worked examples may come from."""
        ...


def build_suite(config: SuiteConfig, run: RunConfig) -> Suite:
    suite: Suite = get_class(config._target_)(config, run)
    return suite
