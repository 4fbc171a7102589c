"""The same texts in several languages, matched by what they are and not by where they stand.

A probe of how a model treats languages compares them on equal content, so a text that one language lacks is left out
for all.
"""

from collections.abc import Iterable, Sequence

from athlos.data.records import MathRecord, ParallelRecord, QuestionRecord, Record
from athlos.errors import DataError


def item_of(record: Record) -> str:
    """What a record has in common with its translations: `meta.item`, or the identifier without the language."""
    if "item" in record.meta:
        return str(record.meta["item"])
    return record.identifier.removeprefix(f"{record.language}-").removesuffix(f"-{record.language}")


def texts_by_item(records: Iterable[Record]) -> dict[str, dict[str, str]]:
    """language -> item -> text: questions of problems and questions, both sides of parallel segments, first come."""
    by_item: dict[str, dict[str, str]] = {}
    for record in records:
        if isinstance(record, ParallelRecord):
            sides = {record.source_language: record.source, record.language: record.target}
        elif isinstance(record, MathRecord | QuestionRecord):
            sides = {record.language: record.question}
        else:
            raise DataError(f"parallel texts: record '{record.identifier}' is running text, which has no translation")
        for language, text in sides.items():
            by_item.setdefault(language, {}).setdefault(item_of(record), text)
    return by_item


def parallel_texts(records: Iterable[Record], *, languages: Sequence[str], num_items: int) -> dict[str, list[str]]:
    """language -> the same `num_items` texts in the same order, those that come first in every language.

    No languages given means all that are there. Raises `DataError` for a language without text, or when fewer items
    are in all of them.
    """
    by_item = texts_by_item(records)
    wanted = list(languages) or list(by_item)
    missing = [language for language in wanted if not by_item.get(language)]
    if missing:
        raise DataError(f"probe: no text in '{missing[0]}'; there is {', '.join(by_item) or 'none'}")
    if len(wanted) < 2:
        raise DataError(f"probe: got the language {', '.join(wanted) or 'none'} alone, expected at least two")
    shared = [item for item in by_item[wanted[0]] if all(item in by_item[language] for language in wanted)]
    if len(shared) < num_items:
        raise DataError(f"probe: {len(shared)} texts are in all of {', '.join(wanted)}, expected {num_items}")
    return {language: [by_item[language][item] for item in shared[:num_items]] for language in wanted}
