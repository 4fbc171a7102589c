"""f_ref(x1, y1, ..., xk, yk, x): the prompt with pairs of the memory, f(x): the one without, and reading the answer.

Source: arXiv 2305.17367, its two templates; our wording stands in conf/method/tm.yaml. Texts are put into slots in one
pass, so that braces in a text are never slots.
"""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from athlos.errors import DataError
from athlos.lab.languages import CODES
from athlos.methods.tm.config import SLOT, Corrupt, Decoder, Hypothesis, Order, Template, TmConfig, WordingConfig
from athlos.text.prompt_styles import language_name, one_line_segment

QUOTES = {'"': '"', "'": "'", "“": "”", "„": "“", "«": "»", "»": "«", "「": "」"}
"""Opening mark -> the one that closes it."""
NEXT_KEY = re.compile(r"\[[^\W\d][\w ()-]*(?:\]=|$)")
"""The key of one more language, with which a model goes on; a stop at the bracket cuts it there."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """A prompt, and what ends and reads its answer."""

    text: str
    stop: tuple[str, ...]
    is_open: bool
    """Whether the prompt has opened the answer's bracket already."""


def prompt_name(code: str) -> str:
    """A language's name in a prompt; lab languages have none but their code. `ConfigError` for an unknown one."""
    return code if code in CODES else language_name(code)


def ordered(pairs: Sequence[tuple[str, str]], *, order: Order, seed: str) -> list[tuple[str, str]]:
    """Pairs, given best first, as they stand in the prompt."""
    if order is Order.best_last:
        return list(reversed(pairs))
    shown = list(pairs)
    if order is Order.random:
        random.Random(seed).shuffle(shown)
    return shown


def write_prompt(
    method: TmConfig,
    source: str,
    pairs: Sequence[tuple[str, str]],
    *,
    source_language: str,
    target_language: str,
    draft: str = "",
) -> Written:
    """The prompt of a sentence with (source, target) pairs in the order in which they are to stand; none is f(x)."""
    if not source.strip():
        raise DataError("tm: the sentence to translate is empty")
    wording = method.wording
    names = {"source_language": prompt_name(source_language), "target_language": prompt_name(target_language)}
    source = one_line_segment(source)
    pairs = [(one_line_segment(first), one_line_segment(second)) for first, second in pairs]
    stop = _stops(method, names, [source, *(text for pair in pairs for text in pair)])
    if method.decoder is Decoder.prefix_forced and pairs:
        joined = method.separator.join([*(first for first, _ in pairs), source])
        prefix = "".join(f"{second}{method.separator}" for _, second in pairs)
        text = filled(wording.without_pairs, {**names, "source": joined}) + f"[{prefix}"
        return Written(text=text, stop=stop, is_open=True)
    template = {Corrupt.source_only: wording.source_only, Corrupt.target_only: wording.target_only}.get(
        method.tm_corrupt, wording.pair
    )
    parts = [filled(template, {**names, "source": first, "target": second}) for first, second in pairs]
    if method.hypothesis is Hypothesis.nmt:
        if not draft.strip():
            raise DataError(f"tm: no draft in the field '{method.hypothesis_field}', which hypothesis=nmt needs")
        parts.append(filled(wording.draft, {**names, "source": source, "hypothesis": one_line_segment(draft)}))
    slots = {**names, "source": source, "pairs": wording.between.join(parts)}
    text = filled(wording.with_pairs if parts else wording.without_pairs, slots)
    return Written(text=text, stop=stop, is_open=False)


def filled(template: str, slots: Mapping[str, str]) -> str:
    """The template with a text in each slot, in one pass."""
    return SLOT.sub(lambda match: slots[match[1]], template)


def _stops(method: TmConfig, names: Mapping[str, str], texts: Sequence[str]) -> tuple[str, ...]:
    """What ends an answer: the line and, for `code`, the next key; the bracket too where no text has one of its own."""
    if method.template is not Template.code:
        return ("\n",)
    has_brackets = any(bracket in text for text in texts for bracket in "[]")
    return ("\n", f"[{names['source_language']}]=", *([] if has_brackets else ["]"]))


def read_code(text: str, *, is_open: bool = False) -> str:
    """The value of the last slot: one `[` before it is dropped, and it ends at the bracket that closes it, or the line.

    A value without that `[` ends at the next key too. `[Seite [neu] speichern] [English]=` -> `Seite [neu] speichern`.
    """
    line = first_line(text)
    if not is_open:
        line = line[1:] if line.startswith("[") else NEXT_KEY.split(line)[0]
    depth = 0
    for place, character in enumerate(line):
        depth += (character == "[") - (character == "]")
        if depth < 0:
            return line[:place].strip()
    return line.strip()


def read_instruction(text: str, *, prompt: str, echo: str) -> str:
    """The first line without an echo of the prompt or of the beginning of its pairs, and without quotes around it."""
    line = first_line(text.strip().removeprefix(prompt.strip()))
    if echo and line.casefold().startswith(echo.casefold()):
        line = line[len(echo) :].strip()
    if len(line) > 1 and QUOTES.get(line[0]) == line.rstrip(".")[-1:] and len(line.rstrip(".")) > 1:
        line = line.rstrip(".")[1:-1]
    return line.strip()


def first_line(text: str) -> str:
    """The first line that holds anything."""
    return text.strip().split("\n")[0].strip()


def echo_of(wording: WordingConfig, source: str, *, source_language: str, target_language: str) -> str:
    """How a pair begins that a model writes in place of the translation alone: all before the target and its quote."""
    start = wording.pair.partition("{target}")[0]
    names = {"source_language": prompt_name(source_language), "target_language": prompt_name(target_language)}
    return filled(start, {**names, "source": one_line_segment(source)}).rstrip("".join(QUOTES)).strip()
