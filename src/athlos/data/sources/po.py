"""Parallel text from gettext .po files: what translators of software wrote, with contexts and plural forms.

Obsolete, fuzzy and untranslated entries and the header are no translations and are passed over.
"""

import gettext
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from athlos.data.parallel import ParallelConfig, ParallelSource, is_language, parallel_errors
from athlos.data.records import ParallelRecord
from athlos.data.source import data_part
from athlos.errors import DataError

if TYPE_CHECKING:
    from polib import POEntry, POFile

QUOTED = re.compile(r"\s*(?:#~\s*|#~?\|\s*)?(?:msg(?:ctxt|id|id_plural|str)\s*(?:\[\d+\])?\s*)?(\".*)", re.S)
"""A line with a text in quotes, also of an obsolete or a previous entry; other comments are none."""
CLOSED = re.compile(r'"(?:[^\\]|\\.)*"', re.S)


@dataclass(kw_only=True)
class PoConfig(ParallelConfig):
    pattern: str = "**/{target}/LC_MESSAGES/*.po"
    """Glob pattern below `data.dir`; `{source}` and `{target}` stand for the languages."""


class PoSource(ParallelSource[PoConfig]):
    """The domain of a record is its file's name without `.po`, as in gettext. A file is a few megabytes at most and
    is parsed as a whole; the files are read one after the other.

    An entry with plural forms gives several records: the singular with the form for the number one, and the plural
    with each other form (with the only form, where a language has one).
    """

    def all_files(self) -> list[Path]:
        return self.matching_files(self.config.pattern)

    def read_all(self) -> Iterator[ParallelRecord | DataError]:
        for path in self.all_files():
            catalog = parse_po(path)
            language = catalog.metadata.get("Language", "")
            if language and not is_language(language, self.file_code(self.config.target_language)):
                wanted = f"data.target_language is '{self.config.target_language}'"
                yield DataError(f"the header says '{language}', but {wanted}", file=path, field="Language")
                continue
            for entry in catalog:
                if entry.translated():  # neither obsolete nor fuzzy, and every form is filled
                    yield from self._records(entry, catalog, path)

    def _records(self, entry: "POEntry", catalog: "POFile", path: Path) -> Iterator[ParallelRecord | DataError]:
        pairs = [(entry.msgid, entry.msgstr)]
        meta = {"context": entry.msgctxt} if entry.msgctxt else {}
        name = f"{self.relative_name(path)}:{entry.linenum}"
        try:
            if entry.msgid_plural:
                singular_index = index_for_one(catalog.metadata.get("Plural-Forms", ""), path)
                pairs = plural_pairs(
                    entry.msgid, entry.msgid_plural, entry.msgstr_plural, singular_index=singular_index
                )
            for place, (source, target) in enumerate(pairs):
                yield self.parallel_record(
                    f"{name}:{place}" if entry.msgid_plural else name,
                    source=source,
                    target=target,
                    file=path,
                    line=entry.linenum,
                    fields=("msgid", "msgstr"),
                    domain=path.stem,
                    meta=dict(meta),
                )
        except DataError as error:
            yield error


def parse_po(path: Path) -> "POFile":
    """A parsed .po file; a syntax error names the line. The encoding is the one its header names, else UTF-8."""
    import polib

    try:
        _refuse_open_quotes(path, encoding=polib.detect_encoding(str(path)))
        return polib.pofile(str(path))
    except UnicodeDecodeError as error:
        raise DataError(f"not {error.encoding} at byte {error.start}", file=path) from error
    except OSError as error:
        if error.errno is not None:
            raise DataError(error.strerror or str(error), file=path) from error
        # polib reports bad syntax as an OSError without a number, and the line in its text only.
        match = re.search(r"\(line (\d+)\)(?:: (.*))?", str(error), re.S)
        line, reason = (int(match[1]), match[2]) if match else (None, str(error))
        raise DataError(f"not a .po file: {reason or 'unexpected text'}", file=path, line=line) from error


def _refuse_open_quotes(path: Path, *, encoding: str) -> None:
    """`DataError` for a text without its closing quote: polib takes the last letter away, whatever it is."""
    with path.open(encoding=encoding) as file:
        for number, line in enumerate(file, start=1):
            text = QUOTED.match(line)
            if text and not CLOSED.fullmatch(text[1].rstrip()):
                raise DataError(f"not a .po file: no closing quote after {text[1].rstrip()}", file=path, line=number)


def index_for_one(plural_forms: str, path: Path) -> int:
    """Which plural form the header's `Plural-Forms` gives for the number one; 0 without that header field.

    It is not always the first: Arabic has a form for zero before it.
    """
    if not plural_forms:
        return 0
    match = re.search(r"plural\s*=\s*([^;]+)", plural_forms)
    try:
        return gettext.c2py(match[1])(1) if match else 0
    except (ValueError, ZeroDivisionError) as error:
        raise DataError(f"got '{plural_forms}': {error}", file=path, field="Plural-Forms") from error


def plural_pairs(singular: str, plural: str, forms: dict[int, str], *, singular_index: int) -> list[tuple[str, str]]:
    """Pairs of an entry with plural forms; equal pairs are given once."""
    others = [text for index, text in sorted(forms.items()) if index != singular_index]
    pairs = [(singular, forms[singular_index])] if singular_index in forms else []
    pairs += [(plural, text) for text in others or forms.values()]
    return list(dict.fromkeys(pairs))


PARTS = [data_part("po", PoConfig, PoSource, "translations of software, gettext .po files", check=parallel_errors)]
