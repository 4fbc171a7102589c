"""GroundBench: five data sets of long answers over documents, in one schema (arXiv:2501.13573; the builder is ours).

The schema and the readers of the official files. What of them is kept, and what is put beside it, is found out in
`athlos.judging.groundbench`, which asks a judge.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from athlos.config.fields import at_least, bounded
from athlos.config.registry import Part
from athlos.config.schema import DataConfig, JudgeConfig
from athlos.data.source import Source
from athlos.data.sources.clapnq import ClapNqConfig, ClapNqSource
from athlos.data.sources.expertqa import ExpertQaConfig, ExpertQaSource, Layout
from athlos.data.sources.hagrid import HagridConfig, HagridSource
from athlos.data.sources.quotesum import QuoteSumConfig, QuoteSumSource
from athlos.data.sources.webgpt import WebGptConfig, WebGptSource
from athlos.errors import DataError


@dataclass(kw_only=True)
class GroundBenchConfig(DataConfig):
    files: dict[str, dict[str, str]] = field(default_factory=dict)
    """Data set -> split -> file name below `data.dir`. One whose file is not there is left out, with a warning."""
    max_documents: int = at_least(1)
    """Most documents of a question; the first are kept."""
    num_documents: int = at_least(1)
    """Documents that a question with a single one is shown: close passages of other questions are put beside it."""
    max_words: int = at_least(0)
    """Words of a document that are kept, whole sentences from its front; 0 = all. What is kept must suffice."""
    min_supported: float = bounded("(0, 1]")
    """Least share of the reference's sentences that the documents must support; other questions are left out."""
    judge: JudgeConfig = MISSING
    """Says what is supported, and that what is put beside a document supports nothing: `judge@data.judge=nli`."""


def source_of(name: str, config: GroundBenchConfig, split: str) -> Source[Any]:
    """The reader of the official file of a data set."""
    file = config.files[name][split]
    shared: dict[str, Any] = {"_target_": "", "name": name, "dir": config.dir, "on_bad": config.on_bad}
    readers: dict[str, Callable[[], Source[Any]]] = {
        "clapnq": lambda: ClapNqSource(ClapNqConfig(files={split: [file]}, **shared)),
        "eli5_webgpt": lambda: WebGptSource(WebGptConfig(files={split: file}, dataset="eli5", **shared)),
        "expertqa": lambda: ExpertQaSource(
            ExpertQaConfig(layout=Layout.claims, files={Layout.claims.value: {split: file}}, **shared)
        ),
        "hagrid": lambda: HagridSource(HagridConfig(files={split: file}, **shared)),
        "quotesum": lambda: QuoteSumSource(QuoteSumConfig(files={split: file}, **shared)),
    }
    if name not in readers:
        raise DataError(f"data.files: got '{name}', expected {', '.join(readers)}")
    return readers[name]()


PARTS = [
    Part(
        group="data",
        name="groundbench",
        schema=GroundBenchConfig,
        target="athlos.judging.groundbench.GroundBenchSource",
        summary="GroundBench: long answers of five data sets over documents that suffice, as a judge sees it",
    )
]
