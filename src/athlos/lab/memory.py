"""Sentence pairs of graded similarity: translation memories whose best match for each query is known exactly.

A query is a sentence; its memory holds a variant of it, some edits away, and other sentences. The similarity is the
fuzzy match score over the words of the source language,

    (longest - edits) / longest,     longest = words of the longer sentence, edits = Levenshtein distance over words,

and the bucket of a query is that of its best match in the whole memory: no other entry stands in a higher one. A score
of 1 never occurs: the query itself is not in its memory.

The test split keeps sentence forms (templates) and words to itself: spare nouns, which no other split uses. Within a
template, splits go by the sentence's content, so that no sentence is in two splits, whatever the seed.
"""

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from typing import NamedTuple, TypeVar

from athlos.config.fields import bounded, wrong_values
from athlos.errors import ConfigError, ConfigErrors, DataError, choices
from athlos.lab.grammar import Clause, NounPhrase, gloss
from athlos.lab.languages import Language, Languages
from athlos.lab.lexicon import ADJECTIVES, NUM_NAMES, SPARE_MARK, THING_NOUNS, is_name, name

Drawn = TypeVar("Drawn")

SPLITS = ("train", "val", "test")
BUCKETS = (0.0, 0.3, 0.5, 0.7, 0.9)
"""Lower ends of the buckets b0 .. b4; each ends where the next begins."""
DOMAINS = {"goods": THING_NOUNS[0::2], "places": THING_NOUNS[1::2]}
"""Two disjoint vocabularies of things."""
VERBS = ("finds", "buys", "loses", "sells", "carries", "sees", "makes", "keeps", "breaks", "paints", "follows", "helps")
ADJUNCT_ADPOSITIONS = ("in", "from", "with", "under", "above", "near")
MOST_EDITS = 5
"""Edits of one variant. Lower buckets are reached by further sentences, which share little."""
MAX_DRAWS = 2_000
"""Draws for one query before its bucket is said to be out of reach."""
_TEMPLATE_PARTS = (3, 3, 2, 3, 2)
"""Numbers of choices of: subject, object adjectives, count or none, adjuncts, statement or question."""


@dataclass(kw_only=True)
class MemoryConfig:
    """A memory and the queries put to it."""

    seed: int = 0
    """Seed of the draws, >= 0; splits do not depend on it."""
    memory_size: int = bounded("[1, 10000000]", default=500)
    """Pairs in the memory, at least the number of queries."""
    num_queries: int = bounded("[1, 1000000]", default=100)
    """Sentences to translate."""
    bucket_shares: list[float] = field(default_factory=lambda: [0.2, 0.2, 0.2, 0.2, 0.2])
    """Share of the queries whose best match is in bucket b0 .. b4; five numbers >= 0 that sum to 1."""
    domain: str = "goods"
    """Things of the queries: `goods` or `places`."""
    memory_domain: str = "in"
    """Things of the memory: `in` (those of the queries) or `out` (the others; b4 is then out of reach)."""
    unseen_words: float = bounded("[0, 1]", default=0.5)
    """Share of the test queries with a spare noun; needs a lexicon with spare words."""
    num_spare: int = bounded("[0, 1000000]", default=0)
    """Spare nouns of the languages; 0 turns unseen words off."""
    num_held_templates: int = bounded("[0, 90]", default=20)
    """Of the 108 templates, those for the test split alone."""
    num_names: int = bounded(f"[2, {NUM_NAMES}]", default=24)
    """Number of persons."""
    target_noise: float = bounded("[0, 1]", default=0.0)
    """Share of the memory pairs with one wrong word in the target."""


class Match(NamedTuple):
    """The best entry of a memory for a query."""

    index: int  # type: ignore[assignment]  # no one looks for an item of a match
    """Place in the memory."""
    score: float
    bucket: int


class Pair(NamedTuple):
    """A sentence in two languages; `is_noisy` tells that a target word is wrong."""

    id: str
    clause: Clause
    source: str
    target: str
    is_noisy: bool = False


class Query(NamedTuple):
    """A pair whose target is the reference, and its best match."""

    pair: Pair
    best: Match
    has_unseen_word: bool


class Memory(NamedTuple):
    """Queries and the pairs they may use."""

    queries: tuple[Query, ...]
    pairs: tuple[Pair, ...]


def fuzzy_match(first: Sequence[str], second: Sequence[str]) -> float:
    """Fuzzy match score of two lists of words, in [0, 1]; 1 for two empty ones. Source: arXiv 2305.17367."""
    from rapidfuzz.distance import Levenshtein  # here, for a check of a config does without

    longest = max(len(first), len(second))
    return (longest - Levenshtein.distance(first, second)) / longest if longest else 1.0


def bucket_of(score: float) -> int:
    """0 .. 4 for [0, .3), [.3, .5), [.5, .7), [.7, .9), [.9, 1]."""
    return sum(score >= low for low in BUCKETS[1:])


def template_of(clause: Clause) -> int:
    """Number of a sentence's form, 0 .. 107: which of its parts are there, not what they say."""
    subject = clause.subject
    thing = clause.object
    assert thing is not None
    parts = (
        0 if is_name(subject.head) else 1 + bool(subject.adjectives),
        len(thing.adjectives),
        int(thing.count is not None),
        len(clause.adjuncts),
        int(clause.is_question),
    )
    number = 0
    for part, base in zip(parts, _TEMPLATE_PARTS, strict=True):
        number = number * base + part
    return number


@cache
def held_templates(count: int) -> frozenset[int]:
    """The templates that only the test split has: the same at every seed, smaller sets within larger ones."""
    numbers = list(range(108))
    random.Random("held templates").shuffle(numbers)
    return frozenset(numbers[:count])


def split_of(clause: Clause, *, num_held_templates: int) -> str:
    """The split of a sentence: `test` for held-out templates and spare words, else by a hash of its content."""
    if template_of(clause) in held_templates(num_held_templates) or _has_spare(clause):
        return "test"
    place = hashlib.blake2b(_content(clause).encode(), digest_size=1).digest()[0]
    return "test" if place < 26 else "val" if place < 52 else "train"


class Sentences:
    """Draws sentences and their variants; all randomness comes from the generator that is passed."""

    def __init__(self, config: MemoryConfig) -> None:
        """Raises `ConfigError` for values out of range."""
        _check(config)
        self.config = config
        self.names = [name(number) for number in range(config.num_names)]
        self.spare = [f"{SPARE_MARK}{index}" for index in range(config.num_spare)]
        self._held = held_templates(config.num_held_templates)

    def draw(self, *, things: Sequence[str], rng: random.Random) -> Clause:
        """A sentence of 3 to 13 words about `things`."""
        return Clause(
            _one(VERBS, rng),
            self._subject(things, rng),
            NounPhrase(
                _one(things, rng), _adjectives(int(rng.random() * 3), rng), _count(rng) if rng.random() < 0.5 else None
            ),
            self._adjuncts(int(rng.random() * 3), things, rng),
            rng.random() < 0.2,
        )

    def in_split(self, split: str, *, things: Sequence[str], rng: random.Random, min_words: int = 0) -> Clause:
        """A sentence of a split, of at least `min_words` words (at most 10 can be asked for)."""
        for _ in range(MAX_DRAWS):
            clause = self.draw(things=things, rng=rng)
            if num_words(clause) >= min_words and self.split(clause) == split:
                return clause
        raise ConfigError(
            f"lab.memory.num_held_templates: got {self.config.num_held_templates}; no sentence of {min_words} words is "
            f"left for split '{split}', expected fewer held-out templates"
        )

    def variant_beside(
        self, clause: Clause, *, edits: int, things: Sequence[str], split: str, rng: random.Random
    ) -> Clause:
        """A variant that is of the split, or of the train split, which every split may see."""
        for _ in range(MAX_DRAWS):
            variant = self.variant(clause, edits=edits, things=things, rng=rng)
            if edits == 0 or self.split(variant) in (split, "train"):
                return variant
        raise DataError(f"lab memory: found no variant of '{gloss(clause)}' for split '{split}'")

    def query(self, split: str, *, things: Sequence[str], rng: random.Random, min_words: int = 0) -> Clause:
        """A sentence of a split; in a share `unseen_words` of the test split its object is a spare noun."""
        clause = self.in_split(split, things=things, rng=rng, min_words=min_words)
        if split == "test" and self.spare and rng.random() < self.config.unseen_words:
            assert clause.object is not None
            clause = clause._replace(object=clause.object._replace(head=_one(self.spare, rng)))
        return clause

    def one_word_changed(self, clause: Clause, *, rng: random.Random) -> Clause:
        """The sentence with another verb, subject or object: a mistake of a translator."""
        change = (self._swap_verb, self._swap_subject, self._swap_object)[int(rng.random() * 3)]
        return change(clause, DOMAINS[self.config.domain], rng)

    def split(self, clause: Clause) -> str:
        if template_of(clause) in self._held or _has_spare(clause):
            return "test"
        return split_of(clause, num_held_templates=0)

    def variant(self, clause: Clause, *, edits: int, things: Sequence[str], rng: random.Random) -> Clause:
        """The sentence after so many changes, each of another part where there are enough parts.

        A change swaps the verb, a noun, a name, an adjective or a count, or adds one of the last two, or adds or drops
        an adjunct: one word or, for adjuncts, some. The score says how far it went.
        """
        changes = rng.sample(_CHANGES, min(edits, len(_CHANGES)))
        for change in changes:
            clause = change(self, clause, things, rng)
        return clause

    # -- parts ----------------------------------------------------------------------------------------------------

    def _subject(self, things: Sequence[str], rng: random.Random) -> NounPhrase:
        kind = int(rng.random() * 3)
        if kind == 0:
            return NounPhrase(_one(self.names, rng))
        return NounPhrase(_one(things, rng), _adjectives(kind - 1, rng))

    def _adjuncts(self, count: int, things: Sequence[str], rng: random.Random) -> tuple[tuple[str, NounPhrase], ...]:
        adpositions = rng.sample(ADJUNCT_ADPOSITIONS, count)
        return tuple(
            (adposition, NounPhrase(_one(things, rng), _adjectives(int(rng.random() * 2), rng)))
            for adposition in adpositions
        )

    def _swap_verb(self, clause: Clause, things: Sequence[str], rng: random.Random) -> Clause:
        return clause._replace(verb=_other(VERBS, clause.verb, rng))

    def _swap_subject(self, clause: Clause, things: Sequence[str], rng: random.Random) -> Clause:
        head = clause.subject.head
        pool = self.names if is_name(head) else things
        return clause._replace(subject=clause.subject._replace(head=_other(pool, head, rng)))

    def _swap_object(self, clause: Clause, things: Sequence[str], rng: random.Random) -> Clause:
        assert clause.object is not None
        return clause._replace(object=clause.object._replace(head=_other(things, clause.object.head, rng)))

    def _swap_adjective(self, clause: Clause, things: Sequence[str], rng: random.Random) -> Clause:
        thing = clause.object
        assert thing is not None
        if not thing.adjectives:
            return clause._replace(object=thing._replace(adjectives=_adjectives(1, rng)))
        at = int(rng.random() * len(thing.adjectives))
        unused = [adjective for adjective in ADJECTIVES if adjective not in thing.adjectives]
        adjectives = (*thing.adjectives[:at], _one(unused, rng), *thing.adjectives[at + 1 :])
        return clause._replace(object=thing._replace(adjectives=adjectives))

    def _swap_count(self, clause: Clause, things: Sequence[str], rng: random.Random) -> Clause:
        thing = clause.object
        assert thing is not None
        count = 2 + (thing.count - 2 + 1 + int(rng.random() * 7)) % 8 if thing.count is not None else _count(rng)
        return clause._replace(object=thing._replace(count=count))

    def _change_adjuncts(self, clause: Clause, things: Sequence[str], rng: random.Random) -> Clause:
        if len(clause.adjuncts) == 2 or (clause.adjuncts and rng.random() < 0.5):
            return clause._replace(adjuncts=clause.adjuncts[:-1])
        used = [adposition for adposition, _ in clause.adjuncts]
        adposition = _one([candidate for candidate in ADJUNCT_ADPOSITIONS if candidate not in used], rng)
        return clause._replace(adjuncts=(*clause.adjuncts, (adposition, NounPhrase(_one(things, rng)))))

    def _swap_adjunct(self, clause: Clause, things: Sequence[str], rng: random.Random) -> Clause:
        if not clause.adjuncts:
            return self._change_adjuncts(clause, things, rng)
        adposition, phrase = clause.adjuncts[0]
        phrase = phrase._replace(head=_other(things, phrase.head, rng))
        return clause._replace(adjuncts=((adposition, phrase), *clause.adjuncts[1:]))


_CHANGES = (
    Sentences._swap_verb,
    Sentences._swap_subject,
    Sentences._swap_object,
    Sentences._swap_adjective,
    Sentences._swap_count,
    Sentences._change_adjuncts,
    Sentences._swap_adjunct,
)


def num_words(clause: Clause) -> int:
    """Words of a sentence of this module, the same in every language; the particle of a question counts."""
    phrases = [clause.subject, clause.object, *(phrase for _, phrase in clause.adjuncts)]
    nouns = sum(1 + len(phrase.adjectives) + (phrase.count is not None) for phrase in phrases if phrase)
    return nouns + 1 + len(clause.adjuncts) + clause.is_question


def graded_pairs(
    config: MemoryConfig, language: Language, *, split: str, count: int, start: int = 0
) -> Iterator[tuple[Clause, Clause, float]]:
    """(sentence of the split, variant after 0 to 5 edits, exact score in the language).

    Pair `index` is the same in every process and order of calls.
    """
    sentences, things = Sentences(config), DOMAINS[config.domain]
    for index in range(start, start + count):
        rng = random.Random(f"graded:{config.seed}:{split}:{index}")
        base = sentences.in_split(split, things=things, rng=rng)
        edits = int(rng.random() * (MOST_EDITS + 1))
        variant = sentences.variant_beside(base, edits=edits, things=things, split=split, rng=rng)
        yield base, variant, fuzzy_match(_words(base, language), _words(variant, language))


def build(config: MemoryConfig, languages: Languages, *, source: str, target: str, split: str = "test") -> Memory:
    """Queries of a split and a memory in which the best match of each is known.

    Variants belong to the split of their query, as a test query's template and words may be unseen; all other entries
    come from the train split. Raises `ConfigError` where a bucket is out of reach.
    """
    _check_languages(config, languages, source=source, target=target, split=split)
    maker = _Maker(config, languages[source], split=split, rng=random.Random(f"memory:{config.seed}:{split}:{source}"))
    maker.fill()
    noise = random.Random(f"noise:{config.seed}:{split}:{target}")
    pairs = tuple(
        _noisy_pair(f"memory-{index}", clause, languages, source, target, sentences=maker.sentences, rng=noise)
        for index, clause in enumerate(maker.entries)
    )
    queries = tuple(
        Query(
            Pair(f"{split}-{index}", clause, languages[source].render(clause), languages[target].render(clause)),
            maker.best(clause),
            _has_spare(clause),
        )
        for index, clause in enumerate(maker.queries)
    )
    return Memory(queries, pairs)


class Example(NamedTuple):
    """One line for a decoder that learns to use a memory."""

    prompt: str
    completion: str
    """The reference and the closing bracket."""
    scores: tuple[float, ...]
    """Fuzzy match scores of the pairs in the prompt, ascending: the best stands last."""


def code_prompt(pairs: Iterable[tuple[str, str]], sentence: str, *, source: str, target: str) -> str:
    """`[latn]=[x1] [cyrl]=[y1] ... [latn]=[x] [cyrl]=`; without pairs the zero-shot prompt.

    Source: arXiv 2305.17367.
    """
    shown = [f"[{source}]=[{first}] [{target}]=[{second}]" for first, second in pairs]
    return " ".join([*shown, f"[{source}]=[{sentence}] [{target}]="])


def code_sequences(
    config: MemoryConfig, languages: Languages, *, source: str, target: str, split: str, count: int, max_pairs: int = 5
) -> Iterator[Example]:
    """Prompts of 0 to `max_pairs` memory pairs, graded and a fifth of them unrelated, with their completions.

    Number `index` is the same in every process. A share `target_noise` of the pairs has a wrong target word.
    """
    _check_languages(config, languages, source=source, target=target, split=split)
    sentences, things = Sentences(config), DOMAINS[config.domain]
    for index in range(count):
        rng = random.Random(f"code:{config.seed}:{split}:{source}:{target}:{index}")
        query = sentences.query(split, things=things, rng=rng)
        words = _words(query, languages[source])
        scored = []
        for _ in range(int(rng.random() * (max_pairs + 1))):
            if rng.random() < 0.2:
                clause = sentences.in_split("train", things=things, rng=rng)
            else:
                edits = 1 + int(rng.random() * MOST_EDITS)
                clause = sentences.variant_beside(query, edits=edits, things=things, split=split, rng=rng)
            score = fuzzy_match(words, _words(clause, languages[source]))
            if score < 1:
                pair = _noisy_pair("", clause, languages, source, target, sentences=sentences, rng=rng)
                scored.append((score, pair.source, pair.target))
        scored.sort(key=lambda entry: entry[0])
        prompt = code_prompt(
            [(first, second) for _, first, second in scored],
            languages[source].render(query),
            source=source,
            target=target,
        )
        completion = f"[{languages[target].render(query)}]"
        yield Example(prompt, completion, tuple(score for score, _, _ in scored))


class _Maker:
    """Makes queries with their variants, then other sentences, and keeps every query in its bucket."""

    def __init__(self, config: MemoryConfig, language: Language, *, split: str, rng: random.Random) -> None:
        self.config, self.language, self.split, self.rng = config, language, split, rng
        self.sentences = Sentences(config)
        self.entries: list[Clause] = []
        self.queries: list[Clause] = []
        self._known: set[Clause] = set()
        self._ceilings: list[float] = []
        self._entry_index, self._query_index = _Index(), _Index()
        other = next(domain for domain in DOMAINS if domain != config.domain)
        self._things = DOMAINS[config.domain]
        self._memory_things = DOMAINS[config.domain if config.memory_domain == "in" else other]

    def fill(self) -> None:
        for bucket in self._wanted_buckets():
            query, variant = self._retry(partial(self._query_and_variant, bucket), key="bucket_shares")
            self._enter(variant)
            self.queries.append(query)
            self._known.add(query)
            self._ceilings.append(_ceiling(bucket))
            self._query_index.add(_words(query, self.language))
        while len(self.entries) < self.config.memory_size:
            self._enter(self._retry(self._other_sentence, key="memory_size"))
        self.rng.shuffle(self.entries)
        self._entry_index = _Index()
        for clause in self.entries:
            self._entry_index.add(_words(clause, self.language))

    def best(self, query: Clause) -> Match:
        """The best match over the whole memory, the first of equals."""
        index, score = self._entry_index.best(_words(query, self.language))
        return Match(index, score, bucket_of(score))

    def _wanted_buckets(self) -> list[int]:
        """Buckets by share, largest remainders first, in shuffled order."""
        exact = [share * self.config.num_queries for share in self.config.bucket_shares]
        counts = [int(number) for number in exact]
        by_rest = sorted(range(len(exact)), key=lambda bucket: counts[bucket] - exact[bucket])
        for bucket in by_rest[: self.config.num_queries - sum(counts)]:
            counts[bucket] += 1
        buckets = [bucket for bucket, count in enumerate(counts) for _ in range(count)]
        self.rng.shuffle(buckets)
        return buckets

    def _retry(self, draw: Callable[[], Drawn | None], *, key: str) -> Drawn:
        for _ in range(MAX_DRAWS):
            drawn = draw()
            if drawn is not None:
                return drawn
        raise ConfigError(
            f"lab.memory.{key}: got {getattr(self.config, key)}, out of reach within {MAX_DRAWS} draws with "
            f"memory_domain={self.config.memory_domain}, num_queries={self.config.num_queries}; expected fewer queries "
            "or smaller shares of the lowest and highest bucket"
        )

    def _query_and_variant(self, bucket: int) -> tuple[Clause, Clause] | None:
        """A query and an entry in its bucket, unless another entry or query stands in the way."""
        rng, sentences = self.rng, self.sentences
        # One edit in ten words: a shorter sentence has no variant nine tenths alike.
        query = sentences.query(self.split, things=self._things, rng=rng, min_words=10 if bucket == 4 else 0)
        if bucket == 0:
            variant = sentences.in_split("train", things=self._memory_things, rng=rng)
        else:
            edits = 1 if bucket == 4 else 1 + int(rng.random() * MOST_EDITS)
            variant = sentences.variant_beside(
                query, edits=edits, things=self._memory_things, split=self.split, rng=rng
            )
            if self.config.memory_domain == "out":
                variant = _moved(variant, self._memory_things, rng)
        words = _words(query, self.language)
        score = fuzzy_match(words, _words(variant, self.language))
        is_foreign = self.sentences.split(variant) not in (self.split, "train")
        if is_foreign or score == 1 or bucket_of(score) != bucket or query in self._known:
            return None
        ceilings = [_ceiling(bucket)] * len(self.entries)
        if self._entry_index.reaches(words, ceilings) or not self._may_enter(variant):
            return None
        return query, variant

    def _other_sentence(self) -> Clause | None:
        clause = self.sentences.in_split("train", things=self._memory_things, rng=self.rng)
        return clause if self._may_enter(clause) else None

    def _may_enter(self, clause: Clause) -> bool:
        """Whether an entry is new, equal to no query, and lifts none out of its bucket."""
        if clause in self._known:
            return False
        return not self._query_index.reaches(_words(clause, self.language), self._ceilings)

    def _enter(self, clause: Clause) -> None:
        self.entries.append(clause)
        self._known.add(clause)
        self._entry_index.add(_words(clause, self.language))


class _Index:
    """Finds sentences by fuzzy match. The words two sentences share bound their score, so that few are compared."""

    def __init__(self) -> None:
        self._sentences: list[list[str]] = []
        self._postings: dict[tuple[str, int], list[int]] = defaultdict(list)

    def add(self, words: list[str]) -> None:
        for word in _numbered(words):
            self._postings[word].append(len(self._sentences))
        self._sentences.append(words)

    def reaches(self, words: list[str], ceilings: Sequence[float]) -> bool:
        """Whether the score of any sentence is at least its ceiling; ceilings are above 0."""
        return any(
            bound >= ceilings[index] and fuzzy_match(words, self._sentences[index]) >= ceilings[index]
            for bound, index in self._bounds(words)
        )

    def best(self, words: list[str]) -> tuple[int, float]:
        """(number, score) of the best sentence, the first of equals; (0, 0) if none shares a word."""
        best_index, best_score = 0, 0.0
        for bound, index in sorted(self._bounds(words), key=lambda entry: (-entry[0], entry[1])):
            if bound < best_score:
                break
            score = fuzzy_match(words, self._sentences[index])
            if score > best_score or (score == best_score and index < best_index):
                best_index, best_score = index, score
        return best_index, best_score

    def _bounds(self, words: list[str]) -> Iterator[tuple[float, int]]:
        """Upper bound of the score, and number, of every sentence that shares a word."""
        shared: Counter[int] = Counter()
        for word in _numbered(words):
            shared.update(self._postings.get(word, ()))
        return ((count / max(len(words), len(self._sentences[index])), index) for index, count in shared.items())


def _numbered(words: list[str]) -> Iterator[tuple[str, int]]:
    """Each word with its number among its equals, so that a word twice in both counts twice."""
    seen: Counter[str] = Counter()
    for word in words:
        yield word, seen[word]
        seen[word] += 1


def sample_lines(languages: Languages, config: MemoryConfig, *, count: int = 3) -> list[tuple[str, str, str]]:
    """(kind, text, English gloss) of a few graded pairs, from each language into the next."""
    lines = []
    codes = list(languages)
    for source, target in zip(codes, [*codes[1:], codes[0]], strict=True):
        for base, variant, score in graded_pairs(config, languages[source], split="train", count=count):
            text = f"{languages[source].render(base)} | {languages[source].render(variant)}"
            shown = f"{text} -> {languages[target].render(variant)}"
            lines.append((f"memory {source}-{target}, match {score:.2f}", shown, f"{gloss(base)} | {gloss(variant)}"))
    return lines


def _words(clause: Clause, language: Language) -> list[str]:
    """The words of the sentence in the language, without marks."""
    chunks = language.render(clause)[:-1].split()
    if language.script.has_spaces:
        return chunks
    cut = language.grammar.lexicon.cut
    return [word for chunk in chunks for word in ((chunk,) if chunk.isdigit() else cut(chunk))]


def _noisy_pair(
    identifier: str,
    clause: Clause,
    languages: Languages,
    source: str,
    target: str,
    *,
    sentences: Sentences,
    rng: random.Random,
) -> Pair:
    is_noisy = rng.random() < sentences.config.target_noise
    meant = sentences.one_word_changed(clause, rng=rng) if is_noisy else clause
    return Pair(identifier, clause, languages[source].render(clause), languages[target].render(meant), is_noisy)


def _moved(clause: Clause, things: Sequence[str], rng: random.Random) -> Clause:
    """The sentence with every thing replaced by one of another domain."""
    assert clause.object is not None
    subject = clause.subject
    if not is_name(subject.head):
        subject = subject._replace(head=_one(things, rng))
    adjuncts = tuple((word, phrase._replace(head=_one(things, rng))) for word, phrase in clause.adjuncts)
    return clause._replace(subject=subject, object=clause.object._replace(head=_one(things, rng)), adjuncts=adjuncts)


def _ceiling(bucket: int) -> float:
    """Scores of a bucket are below this; those of the last are below 1, as no query is in its memory."""
    return BUCKETS[bucket + 1] if bucket + 1 < len(BUCKETS) else 1.0


def _content(clause: Clause) -> str:
    """All that a sentence of this module says, as text; `repr` is four times slower."""
    subject, thing = clause.subject, clause.object
    assert thing is not None
    parts = [clause.verb, subject.head, *subject.adjectives, "|", thing.head, *thing.adjectives, f"|{thing.count}"]
    for adposition, phrase in clause.adjuncts:
        parts += [adposition, phrase.head, *phrase.adjectives, "|"]
    return " ".join(parts)


def _has_spare(clause: Clause) -> bool:
    phrases = [clause.subject, clause.object, *(phrase for _, phrase in clause.adjuncts)]
    return any(phrase is not None and phrase.head.startswith(SPARE_MARK) for phrase in phrases)


def _one(pool: Sequence[str], rng: random.Random) -> str:
    """One of a pool; quicker than `choice`."""
    return pool[int(rng.random() * len(pool))]


def _other(pool: Sequence[str], known: str, rng: random.Random) -> str:
    """One of a pool that is not `known`."""
    while True:
        other = _one(pool, rng)
        if other != known:
            return other


def _adjectives(count: int, rng: random.Random) -> tuple[str, ...]:
    first = _one(ADJECTIVES, rng)
    return () if count == 0 else (first,) if count == 1 else (first, _other(ADJECTIVES, first, rng))


def _count(rng: random.Random) -> int:
    return 2 + int(rng.random() * 8)


def _check_languages(config: MemoryConfig, languages: Languages, *, source: str, target: str, split: str) -> None:
    if split not in SPLITS:
        raise ConfigError(f"lab.memory split: got '{split}'{choices(split, SPLITS)}")
    for code in (source, target):
        if code not in languages:
            raise ConfigError(f"lab.memory language: got '{code}'{choices(code, list(languages))}")
        spare = sum(concept.startswith(SPARE_MARK) for concept in languages[code].grammar.lexicon.words)
        if spare < config.num_spare:
            raise ConfigError(
                f"lab.memory.num_spare: got {config.num_spare}, expected at most {spare}, the spare words of '{code}'"
            )


def _check(config: MemoryConfig) -> None:
    if errors := list(wrong_values(config, path="lab.memory")):
        raise ConfigErrors(errors)
    if config.memory_size < config.num_queries:
        raise ConfigError(
            f"lab.memory.memory_size: got {config.memory_size}, expected at least num_queries = {config.num_queries}"
        )
    shares = config.bucket_shares
    if len(shares) != len(BUCKETS) or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise ConfigError(f"lab.memory.bucket_shares: got {shares}, expected {len(BUCKETS)} numbers >= 0 with sum 1")
    for key, known in {"domain": tuple(DOMAINS), "memory_domain": ("in", "out")}.items():
        if getattr(config, key) not in known:
            raise ConfigError(f"lab.memory.{key}: got '{getattr(config, key)}'{choices(getattr(config, key), known)}")
