"""`athlos lab sample`: what each kind of lab data looks like, with its meaning in English below.

Samples take the chosen languages in turn; one sentence is shown in all of them. The same options print the same text.
"""

import os
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import NamedTuple

from rich.console import Console
from rich.text import Text

from athlos.errors import ConfigError, choices
from athlos.lab import memory, pictures, samples, streams, sums
from athlos.lab.facts import Kind
from athlos.lab.grammar import Clause, NounPhrase, gloss
from athlos.lab.languages import CODES
from athlos.lab.stream_config import StreamsConfig
from athlos.lab.world import World, WorldConfig

PIPE_WIDTH = 100
"""Columns where there is no terminal and COLUMNS does not say."""
MIN_WIDTH = 60
CODE_WIDTH, LABEL_WIDTH = 6, 24
GLOSS_LANGUAGE = CODES[0]
MEMORY_DRAWS = 24
"""Pairs drawn, out of which some of rising similarity are shown."""
PICTURE_DRAWS = 30
"""Pictures drawn, out of which some with different questions are shown."""
STREAMS = (StreamsConfig(span=6), StreamsConfig(span=6, copy_rate=0.4, recall_rate=0.4))
"""Shown in turn: a plain chain, and one with copied and recalled spans."""
NEXT = "Next: notebooks/lab_world.ipynb draws the pictures, asks the judge, and measures a stream against its entropy."

_NAME = re.compile(r"@[0-9]+")
_FACTS = re.compile(r"fact, told: .*|(statement|question), noun.*")
_CHAINS = re.compile(r"chain of [0-9]+|comparison")
_DOCUMENTS = re.compile(r".* evidence, .*: question")


class Line(NamedTuple):
    """What is shown beside each other: language code, kind, text; the gloss goes below the text."""

    code: str
    label: str
    text: str
    gloss: str


Sample = list[Line]


class Section(NamedTuple):
    """One kind of data."""

    summary: str
    make: Callable[[World, Sequence[str], int], Iterable[Sample]]
    """Samples of a world, in languages, at most so many."""
    num_samples: int
    """Shown unless asked otherwise."""


def print_sample(*, languages: Sequence[str], kinds: Sequence[str], seed: int, count: int | None) -> None:
    """Print samples of the kinds to stdout; empty lists stand for all, no count for each kind's own.

    Raises `ConfigError` for an unknown language or kind, a number out of range, and a stdout that cannot hold the
    scripts.
    """
    sections = sections_of(languages=languages, kinds=kinds, seed=seed, count=count)
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    console = Console(highlight=False, markup=False, width=width)
    with console.capture() as captured:
        for number, (kind, section, samples) in enumerate(sections):
            if number:
                console.print()
            _print_section(console, kind, section.summary, samples)
        console.print()
        _print_wrapped(console, Text(NEXT))
    text = captured.get()
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        raise ConfigError(
            f"lab sample: stdout has the encoding {sys.stdout.encoding}, which lacks letters of the lab languages; "
            "set PYTHONIOENCODING=utf-8"
        ) from None
    print(text, end="", flush=True)


def sections_of(
    *, languages: Sequence[str] = (), kinds: Sequence[str] = (), seed: int = 0, count: int | None = None
) -> list[tuple[str, Section, list[Sample]]]:
    """(kind, section, its samples) for each kind asked for, in the order of `SECTIONS`."""
    for option, words, known in (("--language", languages, CODES), ("--kind", kinds, tuple(SECTIONS))):
        for word in words:
            if word not in known:
                raise ConfigError(f"{option}: got '{word}'{choices(word, known)}")
    if seed < 0:
        raise ConfigError(f"--seed: got {seed}, expected an integer >= 0")
    if count is not None and count < 1:
        raise ConfigError(f"--count: got {count}, expected an integer >= 1")
    # All languages are in the world whichever are shown: pairs and glosses need the others.
    world = World(WorldConfig(seed=seed))
    codes = [code for code in CODES if not languages or code in languages]
    return [
        (kind, section, list(section.make(world, codes, section.num_samples if count is None else count)))
        for kind, section in SECTIONS.items()
        if not kinds or kind in kinds
    ]


# -- the kinds ----------------------------------------------------------------------------------------------------


def _languages(world: World, codes: Sequence[str], count: int) -> Iterator[Sample]:
    """One meaning in every language; below each sentence its words in English, in their own order."""
    for clause in _parallel_clauses(world)[:count]:
        sample = [Line("", "in English", _with_names(world, gloss(clause)), "")]
        for code in codes:
            language = world.languages[code]
            lexicon, text = language.grammar.lexicon, language.render(clause)
            meanings = [lexicon.meaning(word) or word for word in language.grammar.words_of(text)]
            differing = round(language.typology.distance(world.languages[GLOSS_LANGUAGE].typology) * 6)
            label = f"{language.typology.order}, distance {differing}"
            sample.append(Line(code, label, text, _with_names(world, " ".join(meanings))))
        yield sample


def _parallel_clauses(world: World) -> list[Clause]:
    """Sentences that show every feature of word order."""
    person, city = (NounPhrase(world.entities[kind][0]) for kind in (Kind.person, Kind.city))
    apples = NounPhrase("apple", ("red",), 3)
    place = (("in", NounPhrase("market", owner=city)),)
    return [
        Clause("buys", person, apples, place),
        Clause("buys", person, NounPhrase("how-many", owner=NounPhrase("apple")), place, is_question=True),
        Clause("buys", person, apples, is_negated=True),
    ]


def _of_world(start: re.Pattern[str]) -> Callable[[World, Sequence[str], int], Iterator[Sample]]:
    """Samples whose first line has a kind that `start` matches."""

    def make(world: World, codes: Sequence[str], count: int) -> Iterator[Sample]:
        lines_of_code = {code: _gathered(samples.sample_lines(world, code), code, start=start) for code in codes}
        for number in range(min(count, *(len(some) for some in lines_of_code.values()))):
            yield lines_of_code[codes[number % len(codes)]][number]

    return make


def _gathered(lines: Iterable[tuple[str, str, str]], code: str, *, start: re.Pattern[str]) -> list[Sample]:
    """Lines that belong together; a line begins a sample of this kind, or of another, or goes on."""
    gathered: list[Sample] = []
    is_wanted = False
    for kind, text, meaning in lines:
        if start.fullmatch(kind):
            gathered.append([Line(code, kind, text, meaning)])
            is_wanted = True
        elif any(other.fullmatch(kind) for other in (_FACTS, _CHAINS, _DOCUMENTS)):
            is_wanted = False
        elif is_wanted:
            gathered[-1].append(Line("", kind.rpartition(": ")[2], text, meaning))
    return gathered


def _in_turn(world: World, lines: Sequence[tuple[str, str, str]], codes: Sequence[str]) -> Iterator[Sample]:
    """From lines that say each thing in every language: the first in the first of `codes`, and so on."""
    for number in range(len(lines) // len(CODES)):
        code = codes[number % len(codes)]
        kind, text, meaning = lines[number * len(CODES) + CODES.index(code)]
        yield [Line(code, kind.removesuffix(f", {code}"), _arrow_below(text), _with_names(world, meaning))]


def _sums(world: World, codes: Sequence[str], count: int) -> Iterator[Sample]:
    config = sums.SumsConfig(seed=world.config.seed)
    yield from _in_turn(world, sums.sample_lines(world.languages, config, count=count), codes)


def _pictures(world: World, codes: Sequence[str], count: int) -> Iterator[Sample]:
    """Each kind of question once before any comes again."""
    config = pictures.PicturesConfig(seed=world.config.seed)
    lines = pictures.sample_lines(world.languages, config, count=max(PICTURE_DRAWS, count))
    by_kind: defaultdict[str, list[list[tuple[str, str, str]]]] = defaultdict(list)
    for start in range(0, len(lines), len(CODES)):
        by_kind[lines[start][0]].append(lines[start : start + len(CODES)])
    rounds = zip_longest(*by_kind.values())
    chosen = [picture for one_of_each in rounds for picture in one_of_each if picture is not None][:count]
    yield from _in_turn(world, [line for picture in chosen for line in picture], codes)


def _memory(world: World, codes: Sequence[str], count: int) -> Iterator[Sample]:
    """Pairs from the least alike to the most, evenly chosen."""
    config = memory.MemoryConfig(seed=world.config.seed)
    num_drawn = max(MEMORY_DRAWS, count)
    lines = memory.sample_lines(world.languages, config, count=num_drawn)
    for number in range(count):
        code = codes[number % len(codes)]
        # Within one pair of languages the match at the end of the kind decides the order.
        rising = sorted(line for line in lines if line[0].startswith(f"memory {code}-"))
        kind, text, meaning = rising[round(number * (num_drawn - 1) / max(1, count - 1))]
        text, meaning = text.replace(" | ", "\n| "), _with_names(world, meaning).replace(" | ", "\n| ")
        yield [Line(code, kind.removeprefix("memory "), _arrow_below(text), meaning)]


def _streams(world: World, codes: Sequence[str], count: int) -> Iterator[Sample]:
    configs = [replace(config, seed=world.config.seed) for config in STREAMS]
    num_rows = -(-count // len(configs))
    rows = [streams.sample_lines(world.languages, config, count=num_rows) for config in configs]
    for number in range(count):
        lines, row = rows[number % len(configs)], number // len(configs)
        code = codes[number % len(codes)]
        kind, text, meaning = lines[row * len(CODES) + CODES.index(code)]
        yield [Line(code, kind.removesuffix(f", {code}").removeprefix("stream, "), text, meaning)]


def _arrow_below(text: str) -> str:
    return text.replace(" -> ", "\n-> ")


def _with_names(world: World, text: str) -> str:
    """The gloss with names in Latin letters for their numbers."""
    return _NAME.sub(lambda match: world.languages[GLOSS_LANGUAGE].phrase(NounPhrase(match[0])), text)


SECTIONS = {
    "languages": Section(
        "invented words in five scripts; one meaning in each, the order of subject, verb and object, and how many of "
        "six features of word order differ from latn",
        _languages,
        2,
    ),
    "facts": Section(
        "who is what to whom; how often each is told in pre-training is a dial; one in all its wordings",
        _of_world(_FACTS),
        6,
    ),
    "chains": Section(
        "questions of two to four steps, with their sub-questions; #1 is the answer of step 1", _of_world(_CHAINS), 5
    ),
    "documents": Section(
        "questions over documents that state the answer, contradict the world, imply the answer, scatter or bury it",
        _of_world(_DOCUMENTS),
        6,
    ),
    "sums": Section("word problems -> their traces, step by step", _sums, 3),
    "memory": Section("a sentence | a similar one -> its translation; match 1.00 has the same words", _memory, 5),
    "pictures": Section(
        "in each cell the colour's letter and the shape (o circle, # square, ^ triangle, + cross); a question -> its "
        "answer",
        _pictures,
        6,
    ),
    "streams": Section(
        "words drawn from a known Markov source; = repeats the last words, + recalls some from any earlier place",
        _streams,
        4,
    ),
}
"""Every kind, in the order shown."""


# -- on the page --------------------------------------------------------------------------------------------------


def _print_section(console: Console, kind: str, summary: str, samples: Sequence[Sample]) -> None:
    _print_wrapped(console, Text.assemble((kind, "bold"), ": ", summary))
    for number, sample in enumerate(samples):
        if number:
            console.print()
        for line in sample:
            _print_line(console, line)


def _print_line(console: Console, line: Line) -> None:
    """Code and kind in columns of their own, text and gloss folded at the width; wide characters count as two."""
    indent = CODE_WIDTH + LABEL_WIDTH + 2
    width = max(MIN_WIDTH, console.width) - indent
    has_gloss = line.gloss not in ("", line.text)
    parts = [Text(line.text), *([Text(line.gloss, style="dim")] if has_gloss else [])]
    right = [row for part in parts for row in part.wrap(console, width, overflow="fold")]
    left = Text(line.label).wrap(console, LABEL_WIDTH - 2, overflow="fold")
    for number, (label, text) in enumerate(zip_longest(left, right)):
        shown = Text("  ")
        shown.append(f"{line.code if number == 0 else '':<{CODE_WIDTH}}", style="bold cyan")
        shown.append(f"{label.plain if label else '':<{LABEL_WIDTH}}", style="cyan")
        shown.append_text(text or Text())
        shown.rstrip()
        console.print(shown, soft_wrap=True)


def _print_wrapped(console: Console, text: Text) -> None:
    for row in text.wrap(console, max(MIN_WIDTH, console.width)):
        row.rstrip()
        console.print(row, soft_wrap=True)
