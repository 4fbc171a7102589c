"""CLAP-NQ: a question, one gold passage, and a long answer that joins sentences of it (arXiv:2404.02103).

Official files are JSON lines, one file of answerable and one of unanswerable questions a split. Several annotators may
have answered a question; the second round revised the first. The answer of the latest round that was not skipped is
the record's `answer`; all of them, in file order, stand in `meta["references"]`, because the official scores take the
best match over them.
"""

import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from athlos.config.fields import at_least, bounded
from athlos.config.schema import DataConfig
from athlos.data.near_passages import with_documents
from athlos.data.records import LongAnswerRecord, Passage, Record
from athlos.data.rows import Row, check_split, json_rows, parse_rows
from athlos.data.source import Source, data_part


@dataclass(kw_only=True)
class ClapNqConfig(DataConfig):
    files: dict[str, list[str]] = field(default_factory=dict)
    """File names below `data.dir` of each split, read one after another."""
    num_passages: int = at_least(1, default=1)
    """Passages of a question: its own, and lexically close ones of other questions of the split, at random places."""
    test_share: float = bounded("[0, 1)", default=0.0)
    """Where one file serves several splits: the share of its questions, by a hash of their identifiers, that the tested
    split has for itself. 0 = splits are what their files are."""


PLAIN = {"test_share": 0.0, "num_passages": 1}
"""Values with which a split is what its files say."""


class ClapNqSource(Source[ClapNqConfig]):
    record_type = LongAnswerRecord

    def files(self, split: str) -> list[Path]:
        check_split(split, list(self.config.files))
        return [self.file(name) for name in self.config.files[split]]

    def read(self, split: str) -> Iterator[Record]:
        if self.config.num_passages == 1:
            yield from self._questions(split)
            return
        for record in with_documents(list(self._questions(split)), num_documents=self.config.num_passages):
            random.Random(record.identifier).shuffle(record.passages)
            yield record

    def _questions(self, split: str) -> Iterator[LongAnswerRecord]:
        for path in self.files(split):
            for record in parse_rows(self, json_rows(path, self.bad), _record):
                assert isinstance(record, LongAnswerRecord)
                if self._is_of(record, split):
                    yield record

    def fingerprint(self, split: str) -> str:
        values = vars(self.config)
        changed = [f"{name}={values[name]:g}" for name, plain in PLAIN.items() if values[name] != plain]
        return ":".join([super().fingerprint(split), *changed])

    def _is_of(self, record: Record, split: str) -> bool:
        share = self.config.test_share
        is_tested = zlib.crc32(record.identifier.encode()) / 2**32 < share
        return not share or is_tested == (split == self.config.test_split)


def _record(row: Row) -> LongAnswerRecord:
    annotations = [_annotation(output) for output in row.children("output")]
    if not annotations:
        raise row.error("empty; expected one annotation or more", field="output")
    outputs = [output for output in annotations if not output["skip"]]
    if not outputs:
        # Not the same as unanswerable: there an annotator looked and left the answer empty.
        raise row.error("every annotator skipped the question", field="output")
    best = max(outputs, key=lambda output: output["round"])
    return LongAnswerRecord(
        identifier=row.need("id", str),
        question=row.need("input", str),
        answer=best["answer"],
        passages=[
            Passage(
                title=passage.need("title", str),
                text=passage.need("text", str),
                sentences=passage.texts("sentences"),
                # Not from the selected sentences: the real files have an answer without any.
                is_supporting=bool(best["answer"]),
            )
            for passage in row.children("passages")
        ],
        meta={
            "references": [output["answer"] for output in outputs if output["answer"]],
            **{key: best[key] for key in ("selected_sentences", "round", "has_minimal_answer", "non_consecutive")},
        },
    )


def _annotation(output: Row) -> dict[str, Any]:
    """Answer and selected sentences of an annotator, and what the file says of them."""
    meta = output.below("meta")
    kinds = {"skip": bool, "round": int, "has_minimal_answer": bool, "non_consecutive": bool}
    return {
        "answer": output.need("answer", str),
        "selected_sentences": output.texts("selected_sentences"),
        **{key: meta.need(key, kind) for key, kind in kinds.items()},
    }


PARTS = [
    data_part(
        "clapnq",
        ClapNqConfig,
        ClapNqSource,
        "CLAP-NQ: long answers grounded in one Wikipedia passage, and unanswerable questions",
    )
]
