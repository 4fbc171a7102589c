"""What all sources of parallel text share: the two languages, what files call them, and the record."""

import re
from abc import ABC
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from omegaconf import MISSING

from athlos.config.schema import RunConfig
from athlos.data.records import ParallelRecord, Record
from athlos.data.splits import SplitConfig, SplitSource, split_errors
from athlos.errors import DataError

if TYPE_CHECKING:
    from langcodes import Language


@dataclass(kw_only=True)
class ParallelConfig(SplitConfig):
    source_language: str = MISSING
    """Two-letter code of the language translated from."""
    target_language: str = MISSING
    """Two-letter code of the language translated into."""
    codes: dict[str, str] = field(default_factory=dict)
    """What the files call a language, where that is not its two-letter code: `{de: deu}`."""


ParallelConfigT = TypeVar("ParallelConfigT", bound=ParallelConfig)


def parallel_errors(data: ParallelConfig, config: RunConfig) -> Iterator[str]:
    """Check of a part: splits, and one language given twice."""
    yield from split_errors(data, config)
    if data.source_language == data.target_language:
        yield f"data.target_language: got '{data.target_language}', the same as data.source_language"


MODIFIER = re.compile(r"([a-z]+)(.*)@(latin|cyrillic)")
"""A script as gettext writes it, behind a region."""
SCRIPTS = {"latin": "Latn", "cyrillic": "Cyrl"}


@lru_cache(maxsize=4096)
def is_language(tag: str, wanted: str) -> bool:
    """Whether a language tag of a file is the wanted language, or a region or script of it: `en` takes `en-GB`.

    By BCP 47 with its aliases: `zh_Hans` takes `zh_CN`, whose script it is, and `zh_CN` takes `zh_Hans`; `he` takes
    `iw`, `sr_Latn` takes `sr@latin`. But `pt_BR` does not take `pt`, which is Portugal's in gettext.
    """
    from langcodes.tag_parser import LanguageTagError

    try:
        has, wants = map(_parsed, (tag, wanted))
    except LanguageTagError:
        return bool(tag) and tag.strip().casefold() == wanted.casefold()
    if _one_norwegian(has) != _one_norwegian(wants):
        return False
    likely = has.maximize()
    region = has.territory or (likely.territory if has.script else None)
    return wants.script in (None, likely.script) and wants.territory in (None, region)


def _one_norwegian(tag: "Language") -> str | None:
    """The language of a tag; files call Norwegian by either of its written forms."""
    return "no" if tag.language in ("nb", "nn") else tag.language


def _parsed(tag: str) -> "Language":
    from langcodes import Language
    from langcodes.tag_parser import LanguageTagError

    tag = MODIFIER.sub(lambda match: f"{match[1]}-{SCRIPTS[match[3]]}{match[2]}", tag.strip().casefold())
    if not tag:
        raise LanguageTagError("no tag")
    return Language.get(tag)


class ParallelSource(SplitSource[ParallelConfigT], ABC):
    """Base of the sources of parallel text. The source segment decides the split."""

    record_type = ParallelRecord

    def split_key(self, record: Record) -> str:
        assert isinstance(record, ParallelRecord)
        return record.source

    def file_code(self, language: str) -> str:
        """What the files call a language."""
        return self.config.codes.get(language, language)

    def record_code(self, language: str) -> str:
        """The two-letter code of a language, given by that code or by what the files call it."""
        by_file_code = {code: short for short, code in self.config.codes.items()}
        return language if language in self.config.codes else by_file_code.get(language, language)

    def fill(self, template: str) -> str:
        """A file or column name with `{source}` and `{target}` replaced by what the files call the languages."""
        source, target = self.file_code(self.config.source_language), self.file_code(self.config.target_language)
        return template.replace("{source}", source).replace("{target}", target)

    def matching_files(self, pattern: str) -> list[Path]:
        """Files below `data.dir` that match a glob pattern with `{source}` and `{target}`, sorted; at least one."""
        filled, folder = self.fill(pattern), self.folder
        try:
            if Path(filled).is_absolute() or ".." in Path(filled).parts:
                raise ValueError("it leads out of data.dir")
            files = sorted(path for path in folder.glob(filled) if path.is_file())
        except ValueError as error:  # pathlib's answer to a bad pattern too
            raise DataError(f"data.pattern: got '{filled}', expected a glob pattern below data.dir: {error}") from error
        if not files:
            present = sorted(entry.name for entry in folder.iterdir())
            raise DataError(
                f"no file matches '{filled}'; data.dir holds: {', '.join(present[:12]) or 'nothing'}", file=folder
            )
        # `file` refuses a link that leads out of data.dir.
        return [self.file(str(path.relative_to(folder))) for path in files]

    def relative_name(self, path: Path) -> str:
        """A file's path below `data.dir`, with `/` on every system: stable between machines."""
        return path.relative_to(self.folder.resolve()).as_posix()

    def parallel_record(
        self,
        identifier: str,
        *,
        source: str,
        target: str,
        file: Path,
        line: int,
        fields: tuple[str, str] = ("source", "target"),
        domain: str = "",
        meta: dict[str, Any] | None = None,
    ) -> ParallelRecord:
        """The record of a pair; `DataError` when a side is blank, with the name the file has for that side."""
        for name, text in zip(fields, (source, target), strict=True):
            if not text.strip():
                raise DataError("empty segment", file=file, line=line, field=name)
        return ParallelRecord(
            identifier=identifier,
            language=self.record_code(self.config.target_language),
            source=source,
            target=target,
            source_language=self.record_code(self.config.source_language),
            domain=domain,
            meta=meta or {},
        )
