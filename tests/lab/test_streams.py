"""Streams: entropy, probabilities and samples agree with each other and with the definition."""

import time
from collections import Counter
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.lab.fresh_process import printed
from tests.machine_speed import slowness
from tests.tolerances import EXACT, FLOAT64

from athlos.errors import ConfigError, DataError
from athlos.lab import streams as module
from athlos.lab.languages import CODES, Languages
from athlos.lab.streams import (
    CHAIN,
    COPY,
    MARK,
    RECALL,
    SPLITS,
    Answers,
    AnswersConfig,
    Streams,
    StreamsConfig,
    sample_lines,
    to_text,
    word,
)

LANGUAGES = Languages(seed=5)
TOKENS_PER_SECOND = 1_000_000
STANDARD_ERRORS = 5
"""Bounds of sampled means: a right sampler passes them all but once in a million."""
CONFIGS = [
    StreamsConfig(num_symbols=5, concentration=0.5),
    StreamsConfig(num_symbols=4, order=2, concentration=0.5),
    StreamsConfig(num_symbols=3, order=3, lag=2),
    StreamsConfig(num_symbols=5, span=3, copy_rate=0.2, recall_rate=0.3),
    StreamsConfig(num_symbols=4, order=2, lag=3, span=4, copy_rate=0.1, recall_rate=0.3),
    StreamsConfig(num_symbols=4, order=2, span=2, recall_rate=0.9),
    StreamsConfig(num_symbols=3, span=1, copy_rate=0.5),
]
SPANS = StreamsConfig(num_symbols=6, concentration=1.0, span=4, copy_rate=0.2, recall_rate=0.2)


def naive_stationary(probs: np.ndarray, *, num_symbols: int) -> np.ndarray:
    """Many steps of the chain of states, written out."""
    states = range(len(probs))
    matrix = np.zeros((len(probs), len(probs)))
    for state, symbol in product(states, range(num_symbols)):
        matrix[state, (state * num_symbols + symbol) % len(probs)] += probs[state, symbol]
    for _ in range(40):
        matrix = matrix @ matrix
        matrix /= matrix.sum(1, keepdims=True)
    return matrix[0]


@pytest.mark.parametrize("config", CONFIGS[:3])
def test_entropy_rate_is_that_of_the_chain_of_states(config: StreamsConfig) -> None:
    streams = Streams(config)
    expected = naive_stationary(streams.probs_SV, num_symbols=config.num_symbols)
    assert np.allclose(streams.stationary_S, expected, atol=FLOAT64)
    rate = -sum(expected[state] * prob * np.log(prob) for state, row in enumerate(streams.probs_SV) for prob in row)
    assert streams.entropy_rate == pytest.approx(rate, abs=FLOAT64)


def test_iterated_and_solved_long_runs_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    config = StreamsConfig(num_symbols=8, order=2, concentration=0.3)
    solved = Streams(config).stationary_S
    monkeypatch.setattr(module, "MAX_DIRECT_STATES", 1)
    assert np.allclose(Streams(config).stationary_S, solved, atol=FLOAT64)
    monkeypatch.setattr(module, "MAX_ITERATIONS", 2)
    with pytest.raises(ConfigError, match="forgets too slowly"):
        _ = Streams(config).stationary_S


def test_concentration_moves_the_entropy_from_none_to_all() -> None:
    rates = [Streams(StreamsConfig(concentration=one)).entropy_rate for one in (1e-6, 0.01, 0.1, 1.0, 1e6)]
    assert rates == sorted(rates)
    assert rates[0] < 0.01
    assert rates[-1] == pytest.approx(np.log(64), abs=1e-4)


@pytest.mark.parametrize("config", [StreamsConfig(), StreamsConfig(num_symbols=8, order=2), StreamsConfig(lag=5)])
def test_sampled_entropy_matches_the_rate(config: StreamsConfig) -> None:
    """Rows are independent and stationary after the first lag * order tokens: the error is that of a mean over rows."""
    streams = Streams(config)
    sample = streams.sample(2000, 60)
    per_row = -sample.log_probs[:, config.lag * config.order :].mean(1)
    error = per_row.std(ddof=1) / len(per_row) ** 0.5
    assert abs(per_row.mean() - streams.entropy_rate) < STANDARD_ERRORS * error
    assert error < 0.02


def test_sampled_symbols_follow_the_table() -> None:
    """Each transition's count is binomial given its state's count: a standard score for every cell."""
    config = StreamsConfig(num_symbols=8, concentration=1.0)
    streams = Streams(config)
    tokens = streams.sample(500, 200).tokens
    counts = np.zeros((8, 8))
    np.add.at(counts, (tokens[:, :-1], tokens[:, 1:]), 1)
    visits = counts.sum(1, keepdims=True)
    scores = (counts - visits * streams.probs_SV) / np.sqrt(visits * streams.probs_SV * (1 - streams.probs_SV) + 1)
    assert np.abs(scores).max() < STANDARD_ERRORS
    shares = np.bincount(tokens[:, 0], minlength=8) / 500
    spread = np.sqrt(streams.stationary_S * (1 - streams.stationary_S) / 500)
    assert (np.abs(shares - streams.stationary_S) < STANDARD_ERRORS * spread).all()


@pytest.mark.parametrize("config", CONFIGS)
def test_log_probs_are_the_true_distribution(config: StreamsConfig) -> None:
    streams = Streams(config)
    sample = streams.sample(12, 50)
    for tokens, log_probs in zip(sample.tokens.tolist(), sample.log_probs, strict=True):
        for at, token in enumerate(tokens):
            probs = streams.next_probs(tokens[:at])
            assert probs.shape == (config.vocab_size,)
            assert probs.sum() == pytest.approx(1, abs=EXACT)
            assert np.log(probs[token]) == pytest.approx(log_probs[at], abs=FLOAT64)


def test_spans_repeat_what_they_say() -> None:
    sample = Streams(SPANS).sample(60, 80)
    assert {int(kind) for kind in np.unique(sample.kinds)} == {CHAIN, MARK, COPY, RECALL}
    for tokens, kinds in zip(sample.tokens.tolist(), sample.kinds.tolist(), strict=True):
        marks = [at for at, kind in enumerate(kinds) if kind == MARK]
        for at, after in zip(marks, [*marks[1:], len(kinds) + 3 * SPANS.span], strict=True):
            said = tokens[at + 1 : at + 1 + SPANS.span]
            expected = COPY if tokens[at] == 6 else RECALL
            assert set(kinds[at + 1 : at + 1 + SPANS.span]) <= {expected}
            assert after - at > 2 * SPANS.span
            earlier = [tokens[start : start + len(said)] for start in range(at - SPANS.span + 1)]
            assert said == earlier[-1] if expected == COPY else said in earlier
        assert all((token >= 6) == (kind == MARK) for token, kind in zip(tokens, kinds, strict=True))


def test_floors_by_kind() -> None:
    sample = Streams(SPANS).sample(400, 100)
    floors = {kind: -sample.log_probs[sample.kinds == kind].mean() for kind in (CHAIN, MARK, COPY, RECALL)}
    assert floors[COPY] == 0
    assert floors[MARK] == pytest.approx(-np.log(0.2), abs=EXACT)
    assert 0 < floors[RECALL] < floors[CHAIN]
    shares = [(sample.kinds == kind).mean() * floor for kind, floor in floors.items()]
    assert sample.floor == pytest.approx(sum(shares), abs=FLOAT64)


def test_lag_moves_the_dependence_not_the_entropy() -> None:
    near, far = (Streams(StreamsConfig(num_symbols=6, lag=lag)) for lag in (1, 4))
    assert near.entropy_rate == far.entropy_rate
    context = [3, 0, 1, 2]
    for position in range(4):
        changed = [*context[:position], 5, *context[position + 1 :]]
        is_moved = not np.array_equal(far.next_probs(context), far.next_probs(changed))
        assert is_moved == (position == 0)


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        ([8], "got token 8 at 0"),
        ([-1], "got token -1"),
        ([6], "a mark at 0"),
        ([0, 0, 0, 6], "a mark at 3"),
        ([0, 0, 0, 0, 6, 1], "not what is copied"),
        ([0, 0, 0, 0, 7, 1], "not what is recalled"),
        ([0, 0, 0, 0, 6, 6], "a mark at 5"),
    ],
)
def test_what_the_source_cannot_make_is_refused(context: list[int], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        Streams(SPANS).next_probs(context)


def test_splits_and_numbers_are_other_draws_of_one_source() -> None:
    streams = Streams(StreamsConfig(seed=3))
    samples = [streams.sample(20, 40, split=split, index=index).tokens for split in SPLITS for index in (0, 1)]
    assert len({tokens.tobytes() for tokens in samples}) == 6
    assert np.array_equal(samples[0], Streams(StreamsConfig(seed=3)).sample(20, 40).tokens)
    assert not np.array_equal(streams.probs_SV, Streams(StreamsConfig(seed=4)).probs_SV)
    with pytest.raises(ConfigError, match="got 'dev'"):
        streams.sample(1, 1, split="dev")


def test_tokens_are_made_fast() -> None:
    streams, seconds = Streams(StreamsConfig()), []
    streams.sample(1, 1)
    for index in range(3):
        started = time.process_time()
        streams.sample(4096, 64, index=index)
        seconds.append((time.process_time() - started) / (4096 * 64))
    assert slowness() / min(seconds) >= TOKENS_PER_SECOND


@pytest.mark.parametrize("code", CODES)
def test_streams_are_text(code: str) -> None:
    language = LANGUAGES[code]
    for tokens in Streams(SPANS).sample(5, 60).tokens.tolist():
        text = to_text(tokens, language, num_symbols=6)
        signs = [word(token, language) if token < 6 else "=+"[token - 6] for token in tokens]
        assert language.grammar.words_of(text) == signs
        assert LANGUAGES.identify(text) == code
    assert to_text([], language, num_symbols=6) == ""
    assert len({word(symbol, language) for symbol in range(200)}) == 200


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_symbols", 1),
        ("order", 0),
        ("order", 4),
        ("lag", 0),
        ("concentration", 0.0),
        ("copy_rate", 1.0),
        ("recall_rate", -0.1),
        ("span", 0),
        ("span", 257),
    ],
)
def test_values_out_of_range_are_refused(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=key):
        Streams(replace(StreamsConfig(), **{key: value}))


def test_the_same_in_every_process() -> None:
    code = (
        "from athlos.lab.streams import *; config = StreamsConfig(copy_rate=0.1, recall_rate=0.1);"
        "print(Streams(config).sample(3, 60).tokens.tolist(), Answers(AnswersConfig()).samples(5))"
    )
    tokens = Streams(StreamsConfig(copy_rate=0.1, recall_rate=0.1)).sample(3, 60).tokens.tolist()
    here = f"{tokens} {Answers(AnswersConfig()).samples(5)}\n"
    assert printed(code) == [here, here]


def test_samples_give_numbers_and_floor() -> None:
    lines = sample_lines(LANGUAGES, SPANS, count=1)
    assert [kind.split()[-1] for kind, _, _ in lines] == list(CODES)
    assert all("floor" in meaning for _, _, meaning in lines)


# -- questions and answers


@pytest.mark.parametrize("number", range(1, 9))
def test_each_question_has_its_answers(number: int) -> None:
    config = AnswersConfig(answers_per_question=number)
    answers = Answers(config)
    samples = answers.samples(30)
    assert len({sample.question for sample in samples}) == 30
    for sample in samples:
        assert len(sample.answers) == number
        assert len(sample.question) == config.question_length
        for answer in sample.answers:
            assert answer[-1] == answers.end
            assert config.opener_length < len(answer) <= config.max_answer + 1
            assert answer[: config.opener_length] in answers.openers
            assert all(0 <= symbol < config.num_symbols for symbol in answer[:-1])


def test_no_question_is_in_two_splits_whatever_the_seed() -> None:
    seen = {
        split: {
            sample.question for seed in (0, 1) for sample in Answers(AnswersConfig(seed=seed)).samples(300, split=split)
        }
        for split in SPLITS
    }
    assert not seen["train"] & seen["val"]
    assert not seen["train"] & seen["test"]
    assert not seen["val"] & seen["test"]
    with pytest.raises(ConfigError, match="question_length: got 3, which gives fewer than 500"):
        Answers(AnswersConfig(num_symbols=2, question_length=3)).samples(500)
    with pytest.raises(ConfigError, match="got 'dev'"):
        Answers(AnswersConfig()).samples(1, split="dev")


@pytest.mark.parametrize("opener_length", [0, 1, 3])
def test_answers_follow_their_true_distribution(opener_length: int) -> None:
    """Counts of next tokens after each common prefix against `next_probs`, as standard scores."""
    config = AnswersConfig(
        num_symbols=4,
        num_topics=2,
        opener_length=opener_length,
        max_answer=5,
        answers_per_question=8,
        end_prob=0.3,
        concentration=1.0,
        question_length=7,
    )
    answers = Answers(config)
    followers: dict[tuple[int, tuple[int, ...]], Counter[int]] = {}
    for sample in answers.samples(1500):
        for answer in sample.answers:
            for at, token in enumerate(answer):
                followers.setdefault((sample.question[0], answer[:at]), Counter())[token] += 1
    tested = 0
    for (topic, prefix), counts in followers.items():
        probs = answers.next_probs((topic,), prefix)
        assert probs.sum() == pytest.approx(1, abs=EXACT)
        assert all(probs[token] > 0 for token in counts)
        total = counts.total()
        if total >= 200:
            expected = total * probs
            seen = np.array([counts[token] for token in range(config.vocab_size)])
            scores = (seen - expected) / np.sqrt(expected * (1 - probs) + 1)
            assert np.abs(scores).max() < STANDARD_ERRORS
            tested += 1
    assert tested >= 10


def test_topic_weight_says_how_much_the_question_matters() -> None:
    for weight, is_same in ((0.0, True), (0.5, False), (1.0, False)):
        answers = Answers(AnswersConfig(topic_weight=weight))
        prefix = answers.openers[0]
        first, second = (answers.next_probs((32 + topic,), prefix) for topic in (0, 1))
        assert np.array_equal(first, second) == is_same


def test_answer_concentration_is_the_source_entropy() -> None:
    low, high = (
        -(probs * np.log(probs)).sum(-1).mean()
        for probs in (Answers(AnswersConfig(concentration=one, topic_weight=0.0)).probs_KVV for one in (0.01, 10))
    )
    assert low < 0.5 < 2.5 < high < np.log(32)


def test_mono_text_is_in_or_out_of_domain() -> None:
    answers = Answers(AnswersConfig())
    inside, outside = answers.mono(200), answers.mono(200, is_in_domain=False)
    assert {text[:2] for text in inside} <= set(answers.openers)
    assert not {text[:2] for text in outside} & set(answers.openers)
    for text in inside:
        assert max(answers.next_probs((32 + topic,), text[:-1])[answers.end] for topic in range(4)) > 0


def test_prefixes_that_no_answer_has_are_refused() -> None:
    answers = Answers(AnswersConfig())
    wrong = next(pair for pair in product(range(32), repeat=2) if pair not in answers.openers)
    for question, prefix, reason in (
        ((3,), (), "expected a topic"),
        ((), (), "expected a topic"),
        ((36,), (), "expected a topic"),
        ((32,), wrong, "begins with no opener"),
        ((32,), (99,), "expected at most 12 symbols"),
        ((32,), answers.openers[0] * 7, "expected at most 12 symbols"),
    ):
        with pytest.raises(DataError, match=reason):
            answers.next_probs(question, prefix)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("num_symbols", 1),
        ("num_topics", 0),
        ("question_length", 2),
        ("answers_per_question", 9),
        ("concentration", 0.0),
        ("topic_weight", 1.1),
        ("num_openers", 0),
        ("opener_length", 17),
        ("end_prob", 0.0),
        ("max_answer", 2),
    ],
)
def test_answer_values_out_of_range_are_refused(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=key):
        Answers(replace(AnswersConfig(), **{key: value}))


@given(rows=st.integers(1, 3), tokens=st.integers(1, 9), lag=st.integers(1, 12), order=st.integers(1, 2))
def test_short_rows_have_full_shape(rows: int, tokens: int, lag: int, order: int) -> None:
    for rate in (0.0, 0.4):
        config = StreamsConfig(num_symbols=3, lag=lag, order=order, span=2, copy_rate=rate, recall_rate=rate)
        sample = Streams(config).sample(rows, tokens)
        assert sample.tokens.shape == sample.kinds.shape == sample.log_probs.shape == (rows, tokens)
        assert np.isfinite(sample.log_probs).all()
