"""Token streams whose source is known: the entropy and the true next-token distribution are exact.

`Streams`: Markov chains of order n over V symbols. Rows of the transition table are Dirichlet draws, whose
concentration sets the entropy. With `lag` L the chain runs at every L-th position: symbol t depends on symbols t-L, ..
t-nL alone, so that the entropy stays and the range grows. Two kinds of spans, each begun by a mark, may come between:

    copy     the mark, then the `span` symbols before the mark once more: no entropy but the mark's
    recall   the mark, then `span` symbols from some earlier place, all places being as likely: what is left open is
             which, and each symbol rules some out (what an induction head does)

`log_probs` gives the true log-probability of every token of a row, so the floor of a loss on it is exact.

`Answers`: questions with several answers each, from chains that depend on the question's topic.

Shapes: B rows, T positions, V symbols, S = V**n states (index: oldest symbol first). Entropies are in nats.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np

from athlos.errors import ConfigError, DataError, choices
from athlos.lab.answers_config import AnswersConfig, check_answers
from athlos.lab.languages import Language, Languages
from athlos.lab.lexicon import CONCEPTS, Category, name
from athlos.lab.stream_config import SPLITS, StreamsConfig, check

MIN_PROB = 1e-5
"""Probability of every symbol in every state, at least this over V: no row is empty, and the chain has one long run."""
MAX_DIRECT_STATES = 1024
"""Up to here the stationary distribution is solved for, above it is iterated."""
MAX_ITERATIONS = 20_000
ITERATION_TOLERANCE = 1e-13
CHAIN, MARK, COPY, RECALL = range(4)
"""Kinds of tokens in `Sample.kinds`."""


class Sample(NamedTuple):
    """Rows of a stream. Positions inside spans, and so what each part costs, are known."""

    tokens: np.ndarray
    """int64 [B, T]."""
    kinds: np.ndarray
    """int8 [B, T]: `CHAIN`, `MARK`, `COPY` or `RECALL`."""
    log_probs: np.ndarray
    """float64 [B, T]: the true log-probability of each token given those before it in its row."""

    @property
    def floor(self) -> float:
        """Mean of -log_probs, in nats a token: what no model can beat by more than chance on this sample."""
        return float(-self.log_probs.mean())


class Streams:
    """A source of streams. The table depends on the seed; a sample on the seed, the split and its number."""

    def __init__(self, config: StreamsConfig) -> None:
        """Raises `ConfigError` for values out of range."""
        check(config)
        self.config = config
        shape = (config.num_symbols**config.order, config.num_symbols)
        self.probs_SV = _dirichlet(shape, config.concentration, rng=_generator(f"source:{config.seed}"))
        self.copy_mark, self.recall_mark = config.num_symbols, config.num_symbols + 1

    @cached_property
    def stationary_S(self) -> np.ndarray:
        """Long-run share of each state, float64 [S]."""
        return _stationary(self.probs_SV)

    @cached_property
    def entropy_rate(self) -> float:
        """Entropy rate of the chain without spans, exact, in nats a symbol; the same at every lag."""
        return float(self.stationary_S @ _entropy(self.probs_SV))

    @cached_property
    def _tables(self) -> list[np.ndarray]:
        """Next-symbol tables [V**k, V] after k = 0 .. n symbols; short contexts begin as the long run does."""
        config = self.config
        joint = self.stationary_S[:, None] * self.probs_SV
        tables = [self.probs_SV]
        for _ in range(config.order):
            joint = joint.reshape(config.num_symbols, -1, config.num_symbols).sum(0)
            tables.append(joint / joint.sum(1, keepdims=True))
        return tables[::-1]

    def sample(self, num_rows: int, num_tokens: int, *, split: str = "train", index: int = 0) -> Sample:
        """`num_rows` independent rows of `num_tokens`, each begun in the long run."""
        if split not in SPLITS:
            raise ConfigError(f"lab.streams split: got '{split}'{choices(split, SPLITS)}")
        rng = _generator(f"stream:{self.config.seed}:{split}:{index}")
        if self.config.has_spans:
            return _SpanSampler(self, num_rows, num_tokens, rng=rng).run()
        return self._sample_chain(num_rows, num_tokens, rng=rng)

    def _sample_chain(self, num_rows: int, num_tokens: int, *, rng: np.random.Generator) -> Sample:
        config = self.config
        tokens_TB = np.empty((num_tokens, num_rows), dtype=np.int64)
        probs_TB = np.empty((num_tokens, num_rows))
        samplers = [_TableSampler(table) for table in self._tables]
        for at in range(num_tokens):
            known = min(at // config.lag, config.order)
            state_B = np.zeros(num_rows, dtype=np.int64)
            for back in range(known, 0, -1):
                state_B = state_B * config.num_symbols + tokens_TB[at - back * config.lag]
            tokens_TB[at], probs_TB[at] = samplers[known].draw(state_B, rng=rng)
        kinds = np.full((num_rows, num_tokens), CHAIN, dtype=np.int8)
        return Sample(np.ascontiguousarray(tokens_TB.T), kinds, np.log(np.ascontiguousarray(probs_TB.T)))

    def next_probs(self, context: Sequence[int]) -> np.ndarray:
        """The true distribution of the token after `context`, which begins at the start of a row: float64 [vocab_size].

        Raises `DataError` for a token out of range or a span that the source cannot have made.
        """
        config = self.config
        past, spans = self._split_context(context)
        probs = np.zeros(config.vocab_size)
        if spans.left_copied:
            probs[context[len(context) - config.span - 1]] = 1.0
        elif spans.candidates is not None:
            followers = [context[start + spans.num_recalled] for start in spans.candidates]
            np.add.at(probs, followers, 1 / len(followers))
        else:
            may_mark = config.has_spans and spans.num_free >= config.span
            rates = (config.copy_rate, config.recall_rate) if may_mark else (0.0, 0.0)
            state, known = 0, min(len(past) // config.lag, config.order)
            for back in range(known, 0, -1):
                state = state * config.num_symbols + past[-back * config.lag]
            probs[: config.num_symbols] = (1 - sum(rates)) * self._tables[known][state]
            if may_mark:
                probs[self.copy_mark], probs[self.recall_mark] = rates
        return probs

    def _split_context(self, context: Sequence[int]) -> tuple[list[int], "_SpanState"]:
        """Symbols without marks, and where in a span the context ends: read token by token."""
        config = self.config
        past: list[int] = []
        state = _SpanState()
        for at, token in enumerate(context):
            if not 0 <= token < config.vocab_size:
                raise DataError(f"lab stream: got token {token} at {at}, expected 0 .. {config.vocab_size - 1}")
            if token >= config.num_symbols:
                if state.num_free < config.span or state.left_copied or state.candidates is not None:
                    raise DataError(f"lab stream: a mark at {at}, where no span can begin")
                state.num_free = 0
                if token == self.copy_mark:
                    state.left_copied = config.span
                else:
                    starts = range(at - config.span + 1)
                    state.num_recalled = 0
                    state.candidates = [
                        start for start in starts if max(context[start : start + config.span]) < config.num_symbols
                    ]
                continue
            past.append(token)
            if state.left_copied:
                if token != context[at - config.span - 1]:
                    raise DataError(f"lab stream: token {token} at {at} is not what is copied there")
                state.left_copied -= 1
            elif state.candidates is not None:
                state.candidates = [
                    candidate for candidate in state.candidates if context[candidate + state.num_recalled] == token
                ]
                if not state.candidates:
                    raise DataError(f"lab stream: token {token} at {at} is not what is recalled there")
                state.num_recalled += 1
                if state.num_recalled == config.span:
                    state.candidates = None
            else:
                state.num_free += 1
        return past, state


@dataclass
class _SpanState:
    num_free: int = 0
    """Symbols of the chain since the last span."""
    left_copied: int = 0
    num_recalled: int = 0
    candidates: list[int] | None = None
    """Starts that a recall may still be at; nothing outside a recall."""


class _SpanSampler:
    """Samples rows with spans, all rows abreast."""

    def __init__(self, streams: Streams, num_rows: int, num_tokens: int, *, rng: np.random.Generator) -> None:
        self.streams, self.config, self.rng = streams, streams.config, rng
        self.rows_B = np.arange(num_rows)
        self.tokens = np.zeros((num_rows, num_tokens), dtype=np.int64)
        self.kinds = np.zeros((num_rows, num_tokens), dtype=np.int8)
        self.log_probs = np.zeros((num_rows, num_tokens))
        depth = self.config.order * self.config.lag
        self.past = np.zeros((num_rows, depth), dtype=np.int64)
        """Last symbols that are no marks, newest last."""
        self.num_past_B = np.zeros(num_rows, dtype=np.int64)
        self.num_free_B = np.zeros(num_rows, dtype=np.int64)
        self.left_B = np.zeros(num_rows, dtype=np.int64)
        """Symbols of the present span still to come."""
        self.kind_B = np.zeros(num_rows, dtype=np.int8)
        self.start_B = np.zeros(num_rows, dtype=np.int64)
        self.is_candidate = np.zeros((num_rows, num_tokens), dtype=bool)
        self.is_symbol = np.zeros((num_rows, num_tokens), dtype=bool)
        self.samplers = [_TableSampler(table) for table in streams._tables]

    def run(self) -> Sample:
        for at in range(self.tokens.shape[1]):
            in_span = self.left_B > 0
            self._copy(at, np.flatnonzero(in_span & (self.kind_B == COPY)))
            self._recall(at, np.flatnonzero(in_span & (self.kind_B == RECALL)))
            self._chain(at, self._mark(at, np.flatnonzero(~in_span)))
        return Sample(self.tokens, self.kinds, self.log_probs)

    def _emit(self, at: int, rows: np.ndarray, symbols: np.ndarray, kind: int, log_probs: np.ndarray | float) -> None:
        self.tokens[rows, at], self.kinds[rows, at], self.log_probs[rows, at] = symbols, kind, log_probs
        if kind == MARK:
            return
        self.is_symbol[rows, at] = True
        self.past[rows] = np.concatenate([self.past[rows, 1:], np.asarray(symbols)[:, None]], axis=1)
        self.num_past_B[rows] += 1
        if kind == CHAIN:
            self.num_free_B[rows] += 1
        else:
            self.left_B[rows] -= 1

    def _copy(self, at: int, rows: np.ndarray) -> None:
        if rows.size:
            self._emit(at, rows, self.tokens[rows, at - self.config.span - 1], COPY, 0.0)

    def _recall(self, at: int, rows: np.ndarray) -> None:
        if not rows.size:
            return
        done = self.config.span - self.left_B[rows]
        symbols = self.tokens[rows, self.start_B[rows] + done]
        # Symbol `done` of the span that begins at each place; places too late to be candidates are masked out.
        places = np.minimum(np.arange(self.tokens.shape[1]) + done[:, None], self.tokens.shape[1] - 1)
        candidates = self.is_candidate[rows]
        fits = candidates & (self.tokens[rows[:, None], places] == symbols[:, None])
        self._emit(at, rows, symbols, RECALL, np.log(fits.sum(1) / candidates.sum(1)))
        self.is_candidate[rows] = fits

    def _mark(self, at: int, rows: np.ndarray) -> np.ndarray:
        """Begins spans in some of the rows; gives the others. The chance of no mark is booked for them."""
        config = self.config
        draws = self.rng.random(rows.size)
        may = self.num_free_B[rows] >= config.span
        is_copy = may & (draws < config.copy_rate)
        is_recall = may & ~is_copy & (draws < config.copy_rate + config.recall_rate)
        for chosen, mark, kind, rate in (
            (rows[is_copy], self.streams.copy_mark, COPY, config.copy_rate),
            (rows[is_recall], self.streams.recall_mark, RECALL, config.recall_rate),
        ):
            if chosen.size:
                self._emit(at, chosen, np.full(chosen.size, mark), MARK, np.log(rate))
                self.num_free_B[chosen], self.left_B[chosen], self.kind_B[chosen] = 0, config.span, kind
        self._choose_starts(at, rows[is_recall])
        rest = ~is_copy & ~is_recall
        self.log_probs[rows[rest], at] = np.where(may[rest], np.log1p(-config.copy_rate - config.recall_rate), 0.0)
        left: np.ndarray = rows[rest]
        return left

    def _choose_starts(self, at: int, rows: np.ndarray) -> None:
        """A start for each recall, evenly among the places whose span is past and holds no mark."""
        if not rows.size:
            return
        span = self.config.span
        num_symbols = np.cumsum(self.is_symbol[rows, :at], axis=1)
        before = np.concatenate([np.zeros((rows.size, 1), dtype=np.int64), num_symbols], axis=1)
        whole = before[:, span:] - before[:, :-span] == span
        self.is_candidate[rows] = False
        self.is_candidate[rows, : whole.shape[1]] = whole
        ranks = (self.rng.random(rows.size) * whole.sum(1)).astype(np.int64)
        self.start_B[rows] = (np.cumsum(whole, axis=1) > ranks[:, None]).argmax(1)

    def _chain(self, at: int, rows: np.ndarray) -> None:
        config = self.config
        known_B = np.minimum(self.num_past_B[rows] // config.lag, config.order)
        for known in np.unique(known_B):
            chosen = rows[known_B == known]
            state_B = np.zeros(chosen.size, dtype=np.int64)
            for back in range(known, 0, -1):
                state_B = state_B * config.num_symbols + self.past[chosen, -back * config.lag]
            symbols, probs = self.samplers[known].draw(state_B, rng=self.rng)
            self._emit(at, chosen, symbols, CHAIN, self.log_probs[chosen, at] + np.log(probs))


class _TableSampler:
    """Draws from the rows of a probability table."""

    def __init__(self, probs: np.ndarray) -> None:
        self._probs = probs
        # Row r's cumulative sums lie in (r, r + 1], so that one sorted array serves all rows.
        sums = np.cumsum(probs, axis=1)
        sums[:, -1] = 1.0
        self._sums = (sums + np.arange(len(probs))[:, None]).ravel()

    def draw(self, rows_B: np.ndarray, *, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """(symbols [B], their probabilities [B]) for a row of the table each."""
        num_symbols = self._probs.shape[1]
        places = np.searchsorted(self._sums, rows_B + rng.random(rows_B.size), side="right")
        # A draw next to 1 may round up into the next row.
        places = np.minimum(places, rows_B * num_symbols + num_symbols - 1)
        return places - rows_B * num_symbols, self._probs.take(places)


def _dirichlet(shape: tuple[int, int], concentration: float, *, rng: np.random.Generator) -> np.ndarray:
    """Rows of a transition table, float64 [S, V]: Dirichlet draws, with `MIN_PROB` spread over all symbols."""
    rows = rng.dirichlet(np.full(shape[1], concentration), size=shape[0])
    # At the smallest concentrations all of a row may round to 0: then one symbol takes it.
    empty = np.flatnonzero(~(rows.sum(1) > 0.5))
    rows[empty] = 0.0
    rows[empty, rng.integers(0, shape[1], size=empty.size)] = 1.0
    probs: np.ndarray = (1 - MIN_PROB) * rows / rows.sum(1, keepdims=True) + MIN_PROB / shape[1]
    return probs


def _entropy(probs: np.ndarray) -> np.ndarray:
    """Entropy of each row, in nats."""
    entropy: np.ndarray = -(probs * np.log(probs)).sum(-1)
    return entropy


def _stationary(probs_SV: np.ndarray) -> np.ndarray:
    """The one distribution of states [S] that a step leaves as it is.

    Raises `ConfigError` where a large chain forgets its beginning too slowly to find it.
    """
    num_states, num_symbols = probs_SV.shape
    if num_states <= MAX_DIRECT_STATES:
        matrix = np.zeros((num_states, num_states))
        states = np.repeat(np.arange(num_states), num_symbols)
        nexts = (states * num_symbols + np.tile(np.arange(num_symbols), num_states)) % num_states
        matrix[states, nexts] = probs_SV.ravel()
        system = matrix.T - np.eye(num_states)
        system[-1] = 1.0
        solved = np.maximum(np.linalg.solve(system, np.eye(num_states)[-1]), 0)
        exact_S: np.ndarray = solved / solved.sum()
        return exact_S
    share_S: np.ndarray = np.full(num_states, 1 / num_states)
    for _ in range(MAX_ITERATIONS):
        after = (share_S[:, None] * probs_SV).reshape(num_symbols, -1).sum(0)
        # Half a step: a chain that nearly goes round in a circle would swing for ever.
        after = (share_S + after) / 2
        if np.abs(after - share_S).sum() < ITERATION_TOLERANCE:
            share_S = after / after.sum()
            return share_S
        share_S = after
    raise ConfigError(
        f"lab.streams.concentration: a chain of {num_states} states forgets too slowly to know its long run; expected "
        "a larger concentration or a smaller order"
    )


def _generator(text: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16).digest(), "big"))


# -- questions and answers ----------------------------------------------------------------------------------------


class QuestionAnswers(NamedTuple):
    """A question and answers drawn to it; each answer ends in the end token."""

    question: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]


class Answers:
    """A source of questions with several answers each, and the true distribution of every answer token."""

    def __init__(self, config: AnswersConfig) -> None:
        """Raises `ConfigError` for values out of range."""
        check_answers(config)
        self.config = config
        self.end = config.num_symbols + config.num_topics
        rng = _generator(f"answers:{config.seed}")
        shape = (config.num_symbols, config.num_symbols)
        shared = _dirichlet(shape, config.concentration, rng=rng)
        own = [_dirichlet(shape, config.concentration, rng=rng) for _ in range(config.num_topics)]
        weight = config.topic_weight
        self.probs_KVV = np.stack([(1 - weight) * shared + weight * probs_VV for probs_VV in own])
        """Next-symbol tables by topic, without the end."""
        self._start_KV = np.stack([_stationary(probs) for probs in self.probs_KVV])
        size = (config.num_openers, config.opener_length)
        self.openers = [tuple(int(symbol) for symbol in opener) for opener in rng.integers(0, config.num_symbols, size)]

    def samples(self, count: int, *, split: str = "train") -> list[QuestionAnswers]:
        """`count` different questions of a split with their answers. No question is in two splits.

        Raises `ConfigError` where there are not so many questions.
        """
        if split not in SPLITS:
            raise ConfigError(f"lab.answers split: got '{split}'{choices(split, SPLITS)}")
        rng = _generator(f"questions:{self.config.seed}:{split}")
        questions: dict[tuple[int, ...], None] = {}
        for _ in range(50 * (count + 20)):
            if len(questions) == count:
                break
            topic = self.config.num_symbols + int(rng.integers(self.config.num_topics))
            rest = rng.integers(0, self.config.num_symbols, self.config.question_length - 1)
            question = (topic, *(int(symbol) for symbol in rest))
            if _question_split(question) == split:
                questions[question] = None
        if len(questions) < count:
            raise ConfigError(
                f"lab.answers.question_length: got {self.config.question_length}, which gives fewer than {count} "
                f"questions in split '{split}', expected longer questions"
            )
        num_answers = self.config.answers_per_question
        topics = np.repeat([question[0] - self.config.num_symbols for question in questions], num_answers)
        drawn = self._draw(topics, rng=rng)
        return [
            QuestionAnswers(question, tuple(drawn[index * num_answers : (index + 1) * num_answers]))
            for index, question in enumerate(questions)
        ]

    def mono(self, count: int, *, is_in_domain: bool = True) -> list[tuple[int, ...]]:
        """`count` answers without questions: of this source, or of one of another seed (other chains and openers)."""
        if not is_in_domain:
            other = Answers(replace(self.config, seed=self.config.seed + 1_000_003))
            return other.mono(count)
        rng = _generator(f"mono:{self.config.seed}")
        return self._draw(rng.integers(0, self.config.num_topics, count), rng=rng)

    def next_probs(self, question: Sequence[int], prefix: Sequence[int]) -> np.ndarray:
        """The true distribution of the answer token after `prefix`: float64 [vocab_size].

        Raises `DataError` for a question without a topic and for a prefix that no answer has.
        """
        config = self.config
        topic = question[0] - config.num_symbols if question else -1
        if not 0 <= topic < config.num_topics:
            raise DataError(f"lab answers: got question {tuple(question)}, expected a topic as its first token")
        if not all(0 <= symbol < config.num_symbols for symbol in prefix) or len(prefix) > config.max_answer:
            raise DataError(f"lab answers: got prefix {tuple(prefix)}, expected at most {config.max_answer} symbols")
        known = tuple(prefix[: config.opener_length])
        openers = [opener for opener in self.openers if opener[: len(known)] == known]
        if not openers:
            raise DataError(f"lab answers: got prefix {tuple(prefix)}, which begins with no opener")
        probs = np.zeros(config.vocab_size)
        if len(prefix) < config.opener_length:
            np.add.at(probs, [opener[len(prefix)] for opener in openers], 1 / len(openers))
        elif len(prefix) == config.max_answer:
            probs[self.end] = 1.0
        else:
            end_prob = config.end_prob if prefix else 0.0
            symbols = self.probs_KVV[topic, prefix[-1]] if prefix else self._start_KV[topic]
            probs[: config.num_symbols] = (1 - end_prob) * symbols
            probs[self.end] = end_prob
        return probs

    def _draw(self, topics_N: np.ndarray, *, rng: np.random.Generator) -> list[tuple[int, ...]]:
        """One answer to each topic, all abreast."""
        config = self.config
        num_rows = len(topics_N)
        tokens = np.full((num_rows, config.max_answer + 1), self.end, dtype=np.int64)
        openers = np.array(self.openers, dtype=np.int64).reshape(config.num_openers, config.opener_length)
        tokens[:, : config.opener_length] = openers[rng.integers(0, config.num_openers, num_rows)]
        chain = _TableSampler(self.probs_KVV.reshape(-1, config.num_symbols))
        start = _TableSampler(self._start_KV)
        is_open = np.ones(num_rows, dtype=bool)
        for at in range(config.opener_length, config.max_answer):
            if at > 0:
                is_open &= rng.random(num_rows) >= config.end_prob
            rows = np.flatnonzero(is_open)
            if at == 0:
                tokens[rows, at], _ = start.draw(topics_N[rows], rng=rng)
            else:
                tokens[rows, at], _ = chain.draw(topics_N[rows] * config.num_symbols + tokens[rows, at - 1], rng=rng)
        lengths = (tokens != self.end).sum(1) + 1
        return [tuple(row[:length]) for row, length in zip(tokens.tolist(), lengths.tolist(), strict=True)]


def _question_split(question: tuple[int, ...]) -> str:
    """One tenth each for val and test, by a hash."""
    place = hashlib.blake2b(repr(question).encode(), digest_size=1).digest()[0]
    return "test" if place < 26 else "val" if place < 52 else "train"


# -- as text ------------------------------------------------------------------------------------------------------

SIGNS = ("=", "+")
"""The marks of copy and recall, as text."""
_CONCEPTS = tuple(
    concept for concept, kind in CONCEPTS.items() if kind in (Category.noun, Category.adjective, Category.verb)
)


def word(symbol: int, language: Language) -> str:
    """The word for a symbol: nouns, adjectives and verbs, then names."""
    concept = _CONCEPTS[symbol] if symbol < len(_CONCEPTS) else name(symbol - len(_CONCEPTS))
    return language.grammar.lexicon.word(concept)


def to_text(tokens: Sequence[int], language: Language, *, num_symbols: int) -> str:
    """Tokens as running text, a word a symbol and a sign a mark; no full stop."""
    words = [word(token, language) if token < num_symbols else SIGNS[token - num_symbols] for token in tokens]
    return language.grammar.join(words) if words else ""


def sample_lines(languages: Languages, config: StreamsConfig, *, count: int = 2) -> list[tuple[str, str, str]]:
    """(kind, text, gloss) of a few rows as symbols of each language; the gloss gives the numbers and the floor."""
    streams = Streams(config)
    sample = streams.sample(count, 4 * config.span, split="test")
    kind = f"stream, order {config.order}, entropy {streams.entropy_rate:.3f} nats a symbol"
    lines = []
    for tokens, log_probs in zip(sample.tokens.tolist(), sample.log_probs, strict=True):
        meaning = f"{' '.join(map(str, tokens))} (floor {-log_probs.mean():.3f} nats a token)"
        for code, language in languages.items():
            lines.append((f"{kind}, {code}", to_text(tokens, language, num_symbols=config.num_symbols), meaning))
    return lines
