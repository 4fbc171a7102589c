"""The lab's translation memories as a data source: sentence pairs of graded similarity, with an exact oracle.

No files. `train` and `val` hold prompts of 0 to `max_pairs` memory pairs with their completions, for a decoder that
learns to use a memory; `test` the sentences to translate, with the bucket of their best match in `meta`; `memory` the
pairs that they may use. Licence: generated, none needed.
"""

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from athlos.config.fields import at_least
from athlos.config.schema import MISSING, DataConfig, RunConfig
from athlos.data.records import InstructionRecord, ParallelRecord, Record
from athlos.data.source import GeneratedSource, data_part
from athlos.errors import ConfigError, choices
from athlos.lab import memory
from athlos.lab.languages import CODES, Languages
from athlos.lab.lexicon import SPARE_MARK, THING_NOUNS, name
from athlos.lab.memory import MemoryConfig

WORD = re.compile(r"\w+")


@dataclass(kw_only=True)
class LabMemoryConfig(DataConfig):
    languages: list[str] = field(default_factory=list)
    """Languages whose words the word list has: those translated between, and further ones for controls."""
    language_seed: int = 0
    """Seed of the words of all languages; a model and its data must share it."""
    source_language: str = MISSING
    """Code of the language translated from."""
    target_language: str = MISSING
    """Code of the language translated into."""
    num_train: int = at_least(1)
    """Prompts of the training split."""
    num_val: int = at_least(1)
    """Prompts of the validation split."""
    max_pairs: int = at_least(0)
    """Most pairs in such a prompt."""
    trains_on_pairs: bool = False
    """Train on all of a prompt, as on running text, not on its last translation alone."""
    fresh_terms: bool = False
    """Give the things other words of the target language in every training prompt: a domain whose terms no weights
    know, and only the pairs of a prompt tell. The target language writes its words apart."""
    memory: MemoryConfig = field(default_factory=MemoryConfig)


class LabMemorySource(GeneratedSource[LabMemoryConfig]):
    record_type = ParallelRecord
    splits = ("train", "val", "test", "memory")

    @cached_property
    def languages(self) -> Languages:
        codes = self.config.languages
        return Languages(seed=self.config.language_seed, codes=codes, num_spare=self.config.memory.num_spare)

    @cached_property
    def _memory(self) -> memory.Memory:
        config = self.config
        return memory.build(
            config.memory, self.languages, source=config.source_language, target=config.target_language, split="test"
        )

    def words(self) -> Iterator[str]:
        """Words, with and without a space before them, numbers, marks, and the keys and brackets of the prompts."""
        for code, language in self.languages.items():
            lexicon = language.grammar.lexicon
            concepts = [*lexicon.words, *(name(number) for number in range(self.config.memory.num_names))]
            yield from (gap + lexicon.word(concept) for concept in concepts for gap in ("", " "))
            yield from (language.script.full_stop, language.script.question_mark)
            yield from (f"{gap}[{code}]=" for gap in ("", " "))  # the bracket after it may be the answer's first token
        yield from (gap + str(number) for number in range(10) for gap in ("", " "))
        yield from ("[", "]")

    def decides(self, split: str) -> dict[str, Any]:
        own = {key: value for key, value in asdict(self.config).items() if key not in ("dir", "on_bad")}
        return {"config": {key: value for key, value in own.items() if not key.startswith("limit_")}}

    def read(self, split: str) -> Iterator[Record]:
        self.files(split)
        if split in ("train", "val"):
            yield from self._sequences(split)
        elif split == "test":
            for query in self._memory.queries:
                meta = {
                    "bucket": query.best.bucket,
                    "score": query.best.score,
                    "has_unseen_word": query.has_unseen_word,
                }
                yield self._record(query.pair, meta)
        else:
            for pair in self._memory.pairs:
                yield self._record(pair, {})

    def _sequences(self, split: str) -> Iterator[Record]:
        config = self.config
        examples = memory.code_sequences(
            config.memory,
            self.languages,
            source=config.source_language,
            target=config.target_language,
            split=split,
            count=config.num_train if split == "train" else config.num_val,
            max_pairs=config.max_pairs,
        )
        for number, example in enumerate(examples):
            terms = self._fresh_terms(f"{split}-{number}") if config.fresh_terms else {}
            prompt, completion = (_with_terms(text, terms) for text in (example.prompt, example.completion))
            if config.trains_on_pairs and split == "train":
                prompt, completion = "", prompt + completion
            yield InstructionRecord(
                identifier=f"{split}-{number}",
                language=config.target_language,
                prompt=prompt,
                completion=completion,
            )

    def _fresh_terms(self, identifier: str) -> dict[str, str]:
        """The word of each thing in the target language, spare ones included -> the word of another."""
        lexicon = self.languages[self.config.target_language].grammar.lexicon
        spare = [f"{SPARE_MARK}{number}" for number in range(self.config.memory.num_spare)]
        words = [lexicon.word(concept) for concept in (*THING_NOUNS, *spare)]
        return dict(zip(words, random.Random(f"terms:{identifier}").sample(words, len(words)), strict=True))

    def _record(self, pair: memory.Pair, meta: dict[str, Any]) -> ParallelRecord:
        return ParallelRecord(
            identifier=pair.id,
            language=self.config.target_language,
            source=pair.source,
            target=pair.target,
            source_language=self.config.source_language,
            meta=meta,
        )


def _with_terms(text: str, terms: dict[str, str]) -> str:
    return WORD.sub(lambda word: terms.get(word[0], word[0]), text)


def _errors(data: LabMemoryConfig, config: RunConfig) -> Iterable[str]:
    for code in data.languages:
        if code not in CODES:
            yield f"data.languages: got '{code}'{choices(code, CODES)}"
    for key in ("source_language", "target_language"):
        code = getattr(data, key)
        if code not in data.languages:
            yield f"data.{key}: got '{code}'{choices(code, data.languages)}"
    if data.source_language == data.target_language:
        yield f"data.target_language: got '{data.target_language}', the same as data.source_language"
    if data.fresh_terms and data.target_language not in ("latn", "cyrl", "grek"):
        yield f"data.fresh_terms: got true, but '{data.target_language}' writes its words together"
    try:
        memory.Sentences(data.memory)
    except ConfigError as error:
        yield str(error).replace("lab.memory", "data.memory", 1)
    if config.prompt_style != "bare":
        yield f"prompt_style: got '{config.prompt_style}', data=lab_memory needs bare (its languages have no labels)"


PARTS = [
    data_part(
        "lab_memory",
        LabMemoryConfig,
        LabMemorySource,
        "sentence pairs of graded similarity: a translation memory with an exact oracle",
        check=_errors,
    )
]
