"""Schema of the baselines that answer questions over passages."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import TYPE_CHECKING

from omegaconf import MISSING

from athlos.config.fields import at_least, bounded, one_of
from athlos.config.registry import Part
from athlos.retrieval.config import NoIndexConfig
from athlos.training.pipeline_config import PipelineMethodConfig, pipeline_errors

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig


# Made by a call because `translate`, the name that stands in YAML, is a method of strings.
Variant = Enum(
    "Variant",
    [
        ("closed", "closed"),
        ("naive", "naive"),
        ("translate", "translate"),
        ("sequential", "sequential"),
        ("self_ask", "self_ask"),
        ("ircot", "ircot"),
        ("graph", "graph"),
    ],
    type=str,
)
"""How a question is answered; see `pipeline.py`."""


class Retrieval(StrEnum):
    """In which languages is searched. The number of passages that are read is the same."""

    src = "src"
    en = "en"
    bilingual = "bilingual"


@dataclass(kw_only=True)
class GraphConfig:
    """Retrieval in HippoRAG's manner."""

    damping: float = bounded("[0, 1)")
    """Probability of following an edge; otherwise the walk begins anew at what the question names."""
    passage_node_weight: float = bounded("[0, 1]")
    """What the index's scores, scaled to [0, 1], add to the start of the walk, over what a linked name adds."""
    synonymy: float = bounded("[0, 1]")
    """Similarity from which on two names are joined; of letters, since no encoder is needed."""
    index_top_k: int = at_least(1)
    """Passages whose score in the index counts; the others begin at 0."""
    linking_top_k: int = at_least(1)
    """Names of the graph that a question is linked to."""


@dataclass(kw_only=True)
class RagConfig(PipelineMethodConfig):
    variant: Variant = MISSING
    retrieval: Retrieval = MISSING
    k: int = at_least(1)
    """Passages that a question may read in all, whatever the variant and the number of its searches."""
    max_rounds: int = at_least(1)
    """Most sub-questions, follow-up questions or sentences of a chain of thought; each may read its share of `k`."""
    decomposer: str = one_of("model", "gold")
    """Who splits a question for `sequential`: the model, or the steps that the data give."""
    pivot: str = MISSING
    """Code of the language that `en` and `translate` search in: English, in the lab the first language."""
    max_new_tokens: int = at_least(1)
    """Longest reply that is no answer: a translation, a list of sub-questions, a sentence. Answers have
    `decoding.max_new_tokens`."""
    graph: GraphConfig = field(default_factory=GraphConfig)


def _errors(config: "RunConfig") -> Iterable[str]:
    method = config.method
    assert isinstance(method, RagConfig)
    yield from pipeline_errors(config)
    if method.variant is not Variant.closed and isinstance(config.index, NoIndexConfig):
        yield (
            f"index: got none, but method.variant={method.variant.value} searches; choose one, such as index=lexical, "
            "or method.variant=closed"
        )
    if method.max_rounds > method.k and method.variant in (Variant.sequential, Variant.self_ask, Variant.ircot):
        yield (
            f"method.max_rounds: got {method.max_rounds}, expected at most method.k = {method.k}, so that each round "
            "has a passage to read"
        )


PARTS = [
    Part(
        group="method",
        name="rag",
        schema=RagConfig,
        check=_errors,
        target="athlos.methods.rag.module.RagModule",
        summary="answers over passages: closed book, naive, translated, in steps, or by a graph; the baselines of dapt",
    )
]
