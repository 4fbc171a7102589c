"""Parallel text from TMX files, the exchange format of translation memories.

The file is streamed through expat itself, not through `xml.etree`: expat knows the line of each unit, and lets us
refuse an entity at its declaration, before anything could be expanded. External files that a DOCTYPE names are never
opened.
Source: TMX 1.4b specification (LISA/OSCAR, 2005); `lang` without `xml:` is TMX 1.1.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from athlos.data.parallel import ParallelConfig, ParallelSource, is_language, parallel_errors
from athlos.data.records import ParallelRecord
from athlos.data.source import data_part
from athlos.errors import DataError

CHUNK_BYTES = 1 << 16
MARKUP_ELEMENTS = frozenset({"bpt", "ept", "ph", "it", "ut"})
"""Elements inside a segment whose content is code of the original file, not text. `hi` holds text."""


@dataclass(kw_only=True)
class TmxConfig(ParallelConfig):
    pattern: str = "*.tmx"
    """Glob pattern below `data.dir`; `{source}` and `{target}` stand for the languages."""
    domain_property: str = "x-domain"
    """`type` of the `prop` of a unit that names its domain; units without it have the file's name as domain."""


@dataclass(kw_only=True)
class Unit:
    """One `tu`: its segments as (language tag, text), in file order."""

    line: int
    identifier: str = ""
    segments: list[tuple[str, str]] = field(default_factory=list)
    properties: dict[str, str] = field(default_factory=dict)

    def text(self, language: str) -> str | None:
        """The segment in a language: an equal tag before `en-GB` for `en`, then the first; None when there is none."""
        for tag, text in self.segments:
            if tag.casefold() == language.casefold():
                return text
        return next((text for tag, text in self.segments if is_language(tag, language)), None)


class TmxSource(ParallelSource[TmxConfig]):
    def all_files(self) -> list[Path]:
        return self.matching_files(self.config.pattern)

    def read_all(self) -> Iterator[ParallelRecord | DataError]:
        for path in self.all_files():
            for number, unit in enumerate(read_units(path), start=1):
                try:
                    yield self._record(unit, number, path)
                except DataError as error:
                    yield error

    def _record(self, unit: Unit, number: int, path: Path) -> ParallelRecord:
        source, target = (
            self._segment(unit, self.file_code(language), path)
            for language in (self.config.source_language, self.config.target_language)
        )
        meta = {**unit.properties, **({"tuid": unit.identifier} if unit.identifier else {})}
        return self.parallel_record(
            f"{self.relative_name(path)}:{number}",
            source=source,
            target=target,
            file=path,
            line=unit.line,
            domain=unit.properties.get(self.config.domain_property, path.stem),
            meta=meta,
        )

    def _segment(self, unit: Unit, language: str, path: Path) -> str:
        text = unit.text(language)
        if text is None:
            present = ", ".join(tag or "(no language)" for tag, _ in unit.segments) or "nothing"
            raise DataError(
                f"no '{language}' in this unit, it has: {present}", file=path, line=unit.line, field="xml:lang"
            )
        return text


def read_units(path: Path) -> Iterator[Unit]:
    """Stream the units of a TMX file. `DataError` with the line for bad XML, another format, or declared entities."""
    parser = _UnitParser(path)
    try:
        with path.open("rb") as handle:
            while chunk := handle.read(CHUNK_BYTES):
                yield from parser.feed(chunk)
        yield from parser.feed(b"", is_last=True)
    except OSError as error:
        raise DataError(error.strerror or str(error), file=path) from error


class _UnitParser:
    """Collects units from expat's events; `feed` hands out those that are complete."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.complete: list[Unit] = []
        self.unit: Unit | None = None
        self.language = ""
        self.property_type = ""
        self.text: list[str] | None = None
        """Pieces of the `seg` or `prop` being read."""
        self.markup_depth = 0
        self.has_root = False
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.EntityDeclHandler = self._entity_declared
        self.parser.SkippedEntityHandler = self._entity_skipped
        self.parser.StartElementHandler = self._start
        self.parser.EndElementHandler = self._end
        self.parser.CharacterDataHandler = self._characters

    def feed(self, chunk: bytes, *, is_last: bool = False) -> list[Unit]:
        try:
            self.parser.Parse(chunk, is_last)
        except expat.ExpatError as error:
            reason = expat.errors.messages.get(error.code, str(error))
            raise DataError(f"not XML: {reason}", file=self.path, line=error.lineno) from error
        except (LookupError, ValueError) as error:  # an encoding that Python or expat does not know
            raise DataError(f"cannot decode: {error}", file=self.path, line=1) from error
        units, self.complete = self.complete, []
        return units

    def _error(self, message: str) -> DataError:
        return DataError(message, file=self.path, line=self.parser.CurrentLineNumber)

    def _entity_declared(self, name: str, *_: object) -> None:
        raise self._error(f"the DOCTYPE declares the entity '{name}'; files with entities of their own are refused")

    def _entity_skipped(self, name: str, *_: object) -> None:
        raise self._error(f"undefined entity '{name}'")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if not self.has_root:
            self.has_root = True
            if tag != "tmx":
                raise self._error(f"not TMX: the outermost element is '{tag}'")
        if tag == "tu":
            self.unit = Unit(line=self.parser.CurrentLineNumber, identifier=attributes.get("tuid", ""))
        elif tag == "tuv":
            self.language = attributes.get("xml:lang", attributes.get("lang", ""))
        elif tag == "seg":
            self.text, self.markup_depth = [], 0
        elif tag == "prop":
            self.text, self.markup_depth, self.property_type = [], 0, attributes.get("type", "")
        elif tag in MARKUP_ELEMENTS:
            self.markup_depth += 1

    def _end(self, tag: str) -> None:
        if tag in MARKUP_ELEMENTS:
            self.markup_depth -= 1
        elif tag == "tu" and self.unit is not None:
            self.complete.append(self.unit)
            self.unit = None
        elif tag in ("seg", "prop"):
            text, self.text = "".join(self.text or ()), None
            if self.unit is None:  # a property of the file's header
                return
            if tag == "seg":
                self.unit.segments.append((self.language, text))
            else:
                self.unit.properties[self.property_type] = text

    def _characters(self, text: str) -> None:
        if self.text is not None and self.markup_depth == 0:
            self.text.append(text)


PARTS = [data_part("tmx", TmxConfig, TmxSource, "translation memories, TMX files", check=parallel_errors)]
