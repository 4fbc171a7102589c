"""GroundBench: five data sets of long answers over documents, in one schema (arXiv:2501.13573; the builder is ours).

A record is a question, at most `max_documents` documents, and a reference whose citations, where it has some, are the
numbers of these documents. What is kept and what is put beside it is `athlos.judging.groundbench`, which asks a judge.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from omegaconf import MISSING

from athlos.config.fields import at_least, bounded
from athlos.config.registry import Part
from athlos.config.schema import DataConfig, JudgeConfig
from athlos.data.records import LongAnswerRecord, Passage, Record
from athlos.data.source import Source
from athlos.data.sources.clapnq import ClapNqConfig, ClapNqSource
from athlos.data.sources.expertqa import ExpertQaConfig, ExpertQaSource, Layout
from athlos.data.sources.hagrid import HagridConfig, HagridSource
from athlos.data.sources.quotesum import QUOTATION, QuoteSumConfig, QuoteSumSource
from athlos.data.sources.webgpt import WebGptConfig, WebGptSource
from athlos.errors import DataError
from athlos.text.citations import BY_LANGUAGE, renumbered, with_citations, without_citations

_ADDRESS = re.compile(r"\s*\[(\d+)\]\s*(?:https?://\S+)?\s*")
"""What stands before the text of a piece of evidence of ExpertQA: its number, and where it was found."""
SOURCE = "source"
"""Key of `meta`: the data set that a question is from."""


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


def unified(records: Iterator[Record], name: str, *, max_documents: int) -> Iterator[LongAnswerRecord]:
    """Records of a data set in the one schema; those without a reference or a document are left out."""
    for record in records:
        assert isinstance(record, LongAnswerRecord)
        form = {"expertqa": _expertqa, "quotesum": _quotesum}.get(name, lambda same: same)(record)
        documents = [passage for passage in form.passages if passage.text.strip()][:max_documents]
        answer = form.answer.strip()
        if not (answer and documents):
            continue
        numbers = {int(document.identifier or place): place for place, document in enumerate(documents, start=1)}
        try:
            answer = renumbered(answer, numbers)
        except DataError:  # it cites what is not there as text
            answer = without_citations(answer)
        yield LongAnswerRecord(
            identifier=f"{name}/{record.identifier}",
            language=record.language,
            question=record.question,
            answer=answer,
            passages=[replace(document, identifier=str(place)) for place, document in enumerate(documents, start=1)],
            short_answers=record.short_answers,
            meta={SOURCE: name},
        )


def _expertqa(record: LongAnswerRecord) -> LongAnswerRecord:
    """The answer as the expert revised it, over the evidence of its claims: that which has a text below its address."""
    texts: dict[str, str] = {}
    for evidence in (text for claim in record.claims for text in claim.evidence):
        address = _ADDRESS.match(evidence)
        if address and evidence[address.end() :].strip():
            texts.setdefault(address[1], evidence[address.end() :])
    passages = [Passage(title="", text=text, identifier=number) for number, text in texts.items()]
    return replace(record, answer=record.meta["revised_answer"], passages=passages)


def _quotesum(record: LongAnswerRecord) -> LongAnswerRecord:
    """Each sentence with the sources that it quotes, which `[ 2 these words ]` marks, as citations."""
    sentences = []
    for piece in BY_LANGUAGE.split(record.answer, record.language):
        quoted = [int(number) for number in QUOTATION.findall(piece)]
        words = QUOTATION.sub(lambda mark: mark.group()[1:-1].split(maxsplit=1)[1].strip(), piece)
        sentences.append(with_citations(words, quoted))
    return replace(record, answer="".join(sentences))


PARTS = [
    Part(
        group="data",
        name="groundbench",
        schema=GroundBenchConfig,
        target="athlos.judging.groundbench.GroundBenchSource",
        summary="GroundBench: long answers of five data sets over documents that suffice, as a judge sees it",
    )
]
