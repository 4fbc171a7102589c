"""The corpora of runs: a folder of one's own files, a file of passages, and the passages that a data set carries."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from athlos.config.compose import plain
from athlos.data.records import NAMED_PASSAGES, PARAGRAPH, LongAnswerRecord, Passage, QuestionRecord, Record, TextRecord
from athlos.data.rows import Row, json_rows, tsv_rows
from athlos.data.source import Source, files_hash, read_lines
from athlos.errors import ConfigError, DataError
from athlos.retrieval.config import ContextsCorpusConfig, FilesCorpusConfig, PassagesCorpusConfig
from athlos.retrieval.corpus import Corpus, content_id, files_below
from athlos.retrieval.interface import CorpusPassage
from athlos.stages import content_hash
from athlos.text.sentences import sentences

TEXT_SUFFIXES = (".txt", ".md", ".jsonl")
HEADING = re.compile(r"\s{0,3}#{1,6}\s+(.*?)\s*#*\s*\Z")
"""A heading of Markdown."""


def _refuse(error: DataError) -> None:
    raise error


class FilesCorpus(Corpus[FilesCorpusConfig]):
    """A folder of one's own `.txt`, `.md` and `.jsonl` files.

    Texts are cut at empty lines into passages of at most `max_characters`; a line of a `.jsonl` file is one passage.
    The id is the file's path and the number of the passage within it, the title the last heading of Markdown above it,
    or the file's name.
    """

    @property
    def folder(self) -> Path:
        folder = Path(self.config.path).expanduser()
        if not folder.is_dir():
            raise ConfigError(f"corpus.path: '{self.config.path}' is not a folder")
        return folder

    def files(self) -> list[Path]:
        files = files_below(self.folder, TEXT_SUFFIXES)
        if not files:
            raise DataError(f"corpus.path: no file below it ends in {', '.join(TEXT_SUFFIXES)}", file=self.folder)
        return files

    def name(self, path: Path) -> str:
        return path.relative_to(self.folder.resolve()).as_posix()

    def fingerprint(self) -> str:
        files = self.files()
        return content_hash([[self.name(path) for path in files], files_hash(files)])

    def passages(self) -> Iterator[CorpusPassage]:
        for path in self.files():
            name = self.name(path)
            if path.suffix.lower() == ".jsonl":
                yield from (
                    _row_passage(row, language=self.config.language, prefix=f"{name}#")
                    for row in json_rows(path, _refuse)
                )
                continue
            blocks = _blocks(path, is_markdown=path.suffix.lower() == ".md")
            pieces = cut(blocks, max_characters=self.config.max_characters, language=self.config.language)
            for number, (title, text) in enumerate(pieces, start=1):
                yield CorpusPassage(
                    identifier=f"{name}#{number}", title=title or path.stem, text=text, language=self.config.language
                )


def _blocks(path: Path, *, is_markdown: bool) -> Iterator[tuple[str, str]]:
    """(heading above, paragraph) of a text; a paragraph ends at an empty line, in Markdown at a heading too."""
    heading, lines = "", list[str]()
    for _, line in read_lines(path):
        next_heading = HEADING.match(line) if is_markdown else None
        if lines and (next_heading or not line.strip()):
            yield heading, "\n".join(lines)
            lines = []
        if next_heading:
            heading = next_heading[1]
        elif line.strip():
            lines.append(line.rstrip())
    if lines:
        yield heading, "\n".join(lines)


def cut(blocks: Iterator[tuple[str, str]], *, max_characters: int, language: str) -> Iterator[tuple[str, str]]:
    """(title, text) of passages: paragraphs of one title joined while they fit, longer ones cut at sentences."""
    title, text = "", ""
    for heading, paragraph in blocks:
        for piece in _fitting(paragraph, max_characters=max_characters, language=language):
            if text and (heading != title or len(text) + 2 + len(piece) > max_characters):
                yield title, text
                text = ""
            title, text = heading, f"{text}\n\n{piece}" if text else piece
    if text:
        yield title, text


def _fitting(paragraph: str, *, max_characters: int, language: str) -> Iterator[str]:
    """A paragraph as pieces of at most so many characters, of whole sentences where these fit."""
    if len(paragraph) <= max_characters:
        yield paragraph
        return
    piece = ""
    for sentence in sentences(paragraph, language).pieces:
        if piece and len(piece) + len(sentence) > max_characters:
            yield piece.strip()
            piece = ""
        piece += sentence
        while len(piece) > max_characters:
            at = piece.rfind(" ", 1, max_characters + 1)
            at = at if at > 0 else max_characters
            yield piece[:at].strip()
            piece = piece[at:].lstrip()
    if piece.strip():
        yield piece.strip()


class PassagesCorpus(Corpus[PassagesCorpusConfig]):
    """A file of passages: JSON lines or a JSON array of `text`, and where there are any `id`, `title`, `language`.

    `.tsv` is the table of DPR's Wikipedia. A passage without an id is named by its content, and repeats of it are left
    out.
    """

    @property
    def path(self) -> Path:
        return existing_file(self.config.path, key="corpus.path")

    def fingerprint(self) -> str:
        return files_hash([self.path])

    def passages(self) -> Iterator[CorpusPassage]:
        yield from passages_of_file(self.path, language=self.config.language)


def existing_file(path: str, *, key: str) -> Path:
    file = Path(path).expanduser()
    if not file.is_file():
        raise ConfigError(f"{key}: '{path}' is not a file")
    return file


def passages_of_file(path: Path, *, language: str) -> Iterator[CorpusPassage]:
    rows = tsv_rows(path, _refuse) if path.suffix == ".tsv" else json_rows(path, _refuse)
    unnamed = set[tuple[str, str]]()
    for row in rows:
        passage = _row_passage(row, language=language)
        if not {"id", "_id"} & row.values.keys():
            if (place := (passage.language, passage.identifier)) in unnamed:
                continue
            unnamed.add(place)
        yield passage


def _row_passage(row: Row, *, language: str, prefix: str = "") -> CorpusPassage:
    title = row.need("title", str) if "title" in row.values else ""
    text = row.need("text", str)
    if not text.strip():
        raise row.error("empty", field="text")
    named = next((str(row.need(key, (str, int))) for key in ("id", "_id") if key in row.values), None)
    return CorpusPassage(
        identifier=f"{prefix}{named or (row.index if prefix else content_id(title, text))}",
        title=title,
        text=text,
        language=row.need("language", str) if "language" in row.values else language,
    )


class ContextsCorpus(Corpus[ContextsCorpusConfig]):
    """The passages that the records of the run's data carry, each once by title and text, under its `passage_id`.

    Passages of `distractors`, a file as `corpus=passages` reads it, are pooled with them.
    """

    @property
    def splits(self) -> list[str]:
        assert self.source is not None
        split = self.source.config.test_split
        if not self.config.splits and split is None:
            raise ConfigError(f"corpus.splits: data={self.source.config.name} names no test split; list some")
        return self.config.splits or [split]

    def fingerprint(self) -> str:
        assert self.source is not None
        values = plain(self.source.config)
        reading = {key: value for key, value in values.items() if key != "dir" and not key.startswith("limit_")}
        extra = self.config.distractors
        more = files_hash([existing_file(extra, key="corpus.distractors")]) if extra else ""
        return content_hash([reading, *(self.source.fingerprint(split) for split in self.splits), more])

    def passages(self) -> Iterator[CorpusPassage]:
        assert self.source is not None
        seen = set[tuple[str, str, str]]()
        for passage in self._with_repeats(self.source):
            place = (passage.language, passage.title, passage.text)
            if place not in seen:
                seen.add(place)
                yield passage

    def _with_repeats(self, source: Source[Any]) -> Iterator[CorpusPassage]:
        for split in self.splits:
            for record in source.records(split):
                yield from record_passages(record)
        if self.config.distractors:
            path = existing_file(self.config.distractors, key="corpus.distractors")
            yield from passages_of_file(path, language=self.config.distractor_language)


def record_passages(record: Record) -> Iterator[CorpusPassage]:
    """The passages of a record, as `corpus=contexts` names them; `DataError` for a record that can carry none."""
    if isinstance(record, TextRecord):
        title = record.meta.get("title", "")
        yield CorpusPassage(identifier=record.identifier, title=title, text=record.text, language=record.language)
        return
    if not isinstance(record, QuestionRecord | LongAnswerRecord):
        raise DataError(f"corpus: a {type(record).__name__} carries no passages; choose other data or corpus=passages")
    for passage in record.passages:
        identifier = passage_id(record, passage)
        yield CorpusPassage(identifier=identifier, title=passage.title, text=passage.text, language=record.language)


def passage_id(record: Record, passage: Passage) -> str:
    """The id of a record's passage in `corpus=contexts`: its own where the data name the passages of a whole corpus,
    that of its paragraph where all languages share one, as in XQuAD, else by title and text."""
    if record.meta.get(NAMED_PASSAGES):
        return passage.identifier
    return str(record.meta.get(PARAGRAPH) or content_id(passage.title, passage.text))


def gold_ids(record: QuestionRecord) -> list[str]:
    """The ids of the passages that a question rests on, each once: what retrieval recall looks for."""
    return list(dict.fromkeys(passage_id(record, passage) for passage in record.passages if passage.is_supporting))
