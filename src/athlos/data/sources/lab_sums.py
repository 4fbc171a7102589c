"""Sums of the lab world with oracle traces in five invented languages, how common each is and how it is answered.

No files: everything is generated from the config. `shares` says how much of the training split is in a language,
`drift` how many of its training traces are in the first language instead, as a model reads them that was taught
mostly in one language. Splits go by the sum without names and things, so that no sum of `test` is in `train`, in no
language and under no seed. Licence: generated, none needed.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from athlos.config.fields import at_least
from athlos.config.schema import DataConfig, RunConfig
from athlos.data.records import MathRecord
from athlos.data.source import GeneratedSource, data_part
from athlos.errors import ConfigError, choices
from athlos.lab.languages import CODES, Languages
from athlos.lab.lexicon import name
from athlos.lab.sums import Sum, Sums, SumsConfig, render, render_trace
from athlos.lab.world import apportion


@dataclass(kw_only=True)
class LabSumsConfig(DataConfig):
    languages: list[str] = field(default_factory=lambda: list(CODES))
    """The first one is what the others drift to."""
    language_seed: int = 0
    """Seed of the words of all languages; a model and its data must share it."""
    shares: list[float] = field(default_factory=lambda: [1.0] * len(CODES))
    """Share of each language in the training split, > 0; only ratios count."""
    drift: list[float] = field(default_factory=lambda: [0.0] * len(CODES))
    """Share of the training traces of each language that are in the first one, in [0, 1]."""
    first: int = at_least(0, default=0)
    """Number of the first training sum: a later stage of training takes other sums than the one before."""
    num_train: int = at_least(1, default=10_000)
    """Records of the training split."""
    num_val: int = at_least(1, default=40)
    """Sums of the validation split, each in every language."""
    num_test: int = at_least(1, default=100)
    """Sums of the test split, each in every language."""
    sums: SumsConfig = field(default_factory=SumsConfig)


class LabSumsSource(GeneratedSource[LabSumsConfig]):
    """`solution` is the trace, `english_solution` the same in the first language, `meta.difficulty` its steps."""

    record_type = MathRecord

    @cached_property
    def languages(self) -> Languages:
        return Languages(seed=self.config.language_seed, codes=self.config.languages)

    def words(self) -> Iterator[str]:
        """Words, names, numbers and marks; a word that follows a space begins with one."""
        for language in self.languages.values():
            lexicon, script = language.grammar.lexicon, language.script
            concepts = [*lexicon.words, *(name(number) for number in range(self.config.sums.num_names))]
            if script.has_spaces:
                yield from (" " + lexicon.word(concept) for concept in concepts)
            else:  # words that follow a number or a sentence have a space
                yield from (gap + lexicon.word(concept) for concept in concepts for gap in ("", " "))
            yield from (script.full_stop, script.question_mark)
        yield from (f" {number}" for number in range(100))
        yield from (" +", " -", " =")

    def decides(self, split: str) -> dict[str, Any]:
        config = self.config
        decides = {
            "languages": config.languages,
            "language_seed": config.language_seed,
            "sums": asdict(config.sums),
            "num": {"train": config.num_train, "val": config.num_val, "test": config.num_test}[split],
        }
        if split == "train":
            decides |= {"shares": config.shares, "drift": config.drift, "first": config.first}
        return decides

    def read(self, split: str) -> Iterator[MathRecord]:
        self.files(split)
        if split == "train":
            yield from self._training()
            return
        count = self.config.num_val if split == "val" else self.config.num_test
        for item in Sums(self.config.sums).items(split, count):
            for code, language in self.languages.items():
                question, trace = render(item, language)
                yield self._record(item, code, question=question, trace=trace)

    def _training(self) -> Iterator[MathRecord]:
        """Languages have their shares exactly (largest remainder), and so has drift within each language."""
        config, sums = self.config, Sums(self.config.sums)
        first = self.languages[config.languages[0]]
        plan = []
        for code, count, drift in zip(
            config.languages, apportion(config.num_train, config.shares), config.drift, strict=True
        ):
            num_drifted, num_native = apportion(count, [drift, 1 - drift])
            plan += [(code, True)] * num_drifted + [(code, False)] * num_native
        random.Random(f"lab_sums:{config.sums.seed}:{config.first}").shuffle(plan)
        for index, (code, is_drifted) in enumerate(plan):
            item = sums.item("train", config.first + index)
            spoken = first if is_drifted else self.languages[code]
            question, _ = render(item, self.languages[code])
            trace = sums.training_trace(item, spoken)
            record = self._record(item, code, question=question, trace=trace)
            record.solution_language = spoken.code if spoken.code != code else ""
            yield record

    def _record(self, item: Sum, code: str, *, question: str, trace: str) -> MathRecord:
        return MathRecord(
            identifier=f"{item.id}-{code}",
            language=code,
            question=question,
            answer=str(item.answer),
            solution=trace,
            english_solution=render_trace(item, self.languages[self.config.languages[0]]),
            meta={"difficulty": item.difficulty, "canonical": item.canonical, "teacher": "lab_oracle"},
        )

    def languages_of(self, split: str) -> list[str]:
        return self.config.languages


def _errors(data: LabSumsConfig, config: RunConfig) -> Iterable[str]:
    for code in data.languages:
        if code not in CODES:
            yield f"data.languages: got '{code}'{choices(code, CODES)}"
    if not data.languages or len(set(data.languages)) < len(data.languages):
        yield f"data.languages: got {data.languages}, expected different languages, at least one"
    for key, values, is_good, wanted in (
        ("shares", data.shares, lambda share: share > 0, "numbers > 0"),
        ("drift", data.drift, lambda share: 0 <= share <= 1, "numbers in [0, 1]"),
    ):
        if len(values) != len(data.languages) or not all(map(is_good, values)):
            yield f"data.{key}: got {values}, expected {len(data.languages)} {wanted}, one a language"
    if data.drift and data.drift[0] != 0:
        yield f"data.drift: got {data.drift[0]} for the first language, expected 0: the others drift to it"
    try:
        Sums(data.sums)
    except ConfigError as error:
        yield str(error).replace("lab.sums", "data.sums", 1)
    if config.prompt_style != "bare":
        yield f"prompt_style: got '{config.prompt_style}', data=lab_sums needs bare (its languages have no labels)"


PARTS = [
    data_part(
        "lab_sums",
        LabSumsConfig,
        LabSumsSource,
        "sums of the lab world with oracle traces; shares and drift of languages are dials",
        check=_errors,
    )
]
