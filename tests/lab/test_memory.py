"""Memories: scores exact, buckets as asked, splits apart."""

import time
from collections import Counter
from dataclasses import replace
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.lab.fresh_process import printed
from tests.machine_speed import slowness
from tests.tolerances import EXACT

from athlos.errors import ConfigError
from athlos.lab.languages import CODES, Languages
from athlos.lab.lexicon import is_name
from athlos.lab.memory import (
    BUCKETS,
    DOMAINS,
    SPLITS,
    Memory,
    MemoryConfig,
    Query,
    bucket_of,
    build,
    code_prompt,
    code_sequences,
    fuzzy_match,
    graded_pairs,
    held_templates,
    num_words,
    sample_lines,
    split_of,
    template_of,
)

LANGUAGES = Languages(seed=5, num_spare=20)
SMALL = MemoryConfig(memory_size=120, num_queries=30, num_spare=20)
SENTENCES_PER_SECOND = 20_000
"""Less than half of what one core of a quiet machine makes."""
WORDS = st.lists(st.sampled_from("abcd"), max_size=7)


def naive_distance(first: list[str], second: list[str]) -> int:
    """The full table of the definition."""
    table = [[row + column for column in range(len(second) + 1)] for row in range(len(first) + 1)]
    for row, one in enumerate(first, 1):
        for column, other in enumerate(second, 1):
            table[row][column] = min(
                table[row - 1][column] + 1, table[row][column - 1] + 1, table[row - 1][column - 1] + (one != other)
            )
    return table[-1][-1]


@cache
def memory(split: str = "test", source: str = "latn", target: str = "hani") -> Memory:
    return build(SMALL, LANGUAGES, source=source, target=target, split=split)


def score_of(first: str, second: str, *, code: str = "latn") -> float:
    words = LANGUAGES[code].grammar.words_of
    longest = max(len(words(first)), len(words(second)))
    return (longest - naive_distance(words(first), words(second))) / longest


@given(first=WORDS, second=WORDS)
def test_fuzzy_match_is_that_of_the_table(first: list[str], second: list[str]) -> None:
    longest = max(len(first), len(second), 1)
    assert fuzzy_match(first, second) == (longest - naive_distance(first, second)) / longest
    assert fuzzy_match(first, second) == fuzzy_match(second, first)
    assert (fuzzy_match(first, second) == 1) == (first == second)
    assert 0 <= fuzzy_match(first, second) <= 1


@pytest.mark.parametrize(
    ("first", "second", "score"),
    [
        ("a b c d e f g", "a b c e f g", 6 / 7),
        ("a b", "a c b", 2 / 3),
        ("a b c d", "d c b a", 0),
        ("", "", 1),
        ("a", "", 0),
    ],
)
def test_fuzzy_match_on_known_pairs(first: str, second: str, score: float) -> None:
    assert fuzzy_match(first.split(), second.split()) == pytest.approx(score, abs=EXACT)


def test_buckets_begin_where_they_say() -> None:
    assert [bucket_of(low) for low in BUCKETS] == [0, 1, 2, 3, 4]
    assert [bucket_of(low - 1e-9) for low in BUCKETS[1:]] == [0, 1, 2, 3]
    assert bucket_of(1.0) == 4


@pytest.mark.parametrize("split", SPLITS)
def test_the_best_match_is_the_best_of_all(split: str) -> None:
    made = memory(split)
    for query in made.queries:
        scores = [score_of(query.pair.source, pair.source) for pair in made.pairs]
        assert query.best.score == max(scores) < 1
        assert query.best.index == scores.index(max(scores))
        assert query.best.bucket == bucket_of(max(scores))


@pytest.mark.parametrize("split", SPLITS)
def test_buckets_have_the_shares_asked_for(split: str) -> None:
    assert Counter(query.best.bucket for query in memory(split).queries) == dict.fromkeys(range(5), 6)
    assert len(memory(split).pairs) == 120


@pytest.mark.parametrize("shares", [[1, 0, 0, 0, 0], [0, 0, 0, 0, 1], [0.25, 0.15, 0.3, 0.3, 0]])
def test_other_shares_are_met(shares: list[float]) -> None:
    # So many other sentences that some would lift a query out of its bucket, were they let in.
    config = replace(SMALL, bucket_shares=shares, num_queries=20, memory_size=1500)
    made = build(config, LANGUAGES, source="thai", target="latn")
    found = Counter(query.best.bucket for query in made.queries)
    assert [found[bucket] for bucket in range(5)] == [20 * share for share in shares]


@pytest.mark.parametrize("source", CODES)
def test_targets_are_the_oracle_translation(source: str) -> None:
    target = CODES[CODES.index(source) - 1]
    made = memory("test", source, target)
    for pair in (*made.pairs[:40], *(query.pair for query in made.queries)):
        assert LANGUAGES.translate(pair.source, source=source, target=target) == pair.target
        assert not pair.is_noisy


@pytest.mark.parametrize("split", SPLITS)
def test_a_memory_holds_no_query_and_no_sentence_twice(split: str) -> None:
    made = memory(split)
    sources = [pair.source for pair in made.pairs] + [query.pair.source for query in made.queries]
    assert len(set(sources)) == len(sources)


def test_no_sentence_is_in_two_splits() -> None:
    by_split: dict[str, set[str]] = {}
    for split in SPLITS:
        pairs = graded_pairs(SMALL, LANGUAGES["latn"], split=split, count=400)
        lines = code_sequences(SMALL, LANGUAGES, source="latn", target="thai", split=split, count=100)
        asked = {LANGUAGES["latn"].render(base) for base, _, _ in pairs}
        by_split[split] = asked | {line.prompt.rpartition("=[")[2].partition("]")[0] for line in lines}
        for query in memory(split).queries:
            by_split[split].add(query.pair.source)
            assert split_of(query.pair.clause, num_held_templates=20) == split
    assert not by_split["train"] & by_split["test"]
    assert not by_split["train"] & by_split["val"]
    assert not by_split["val"] & by_split["test"]


def test_training_sees_no_held_out_form_or_word() -> None:
    for base, variant, _ in graded_pairs(SMALL, LANGUAGES["latn"], split="train", count=500):
        for clause in (base, variant):
            assert split_of(clause, num_held_templates=20) == "train"
            assert template_of(clause) not in held_templates(20)
    for line in code_sequences(SMALL, LANGUAGES, source="latn", target="thai", split="train", count=100):
        for sentence in line.prompt.split("[latn]=[")[1:]:
            clause = LANGUAGES["latn"].parse(sentence.partition("]")[0])
            assert split_of(clause, num_held_templates=20) == "train"
    for split in ("train", "val"):
        assert not any(query.has_unseen_word or _has_held_form(query) for query in memory(split).queries)


def _has_held_form(query: Query) -> bool:
    return template_of(query.pair.clause) in held_templates(20)


def test_test_queries_have_unseen_words_and_forms() -> None:
    queries = memory("test").queries
    assert any(query.has_unseen_word and not _has_held_form(query) for query in queries)
    assert any(_has_held_form(query) and not query.has_unseen_word for query in queries)
    for query in queries:
        spare = [word for word in repr(query.pair.clause).split("'") if word.startswith("spare-")]
        assert query.has_unseen_word == bool(spare)
    without = build(replace(SMALL, unseen_words=0.0), LANGUAGES, source="latn", target="thai")
    assert not any(query.has_unseen_word for query in without.queries)


def test_held_templates_grow_from_smaller_sets() -> None:
    assert held_templates(0) == frozenset()
    assert held_templates(10) < held_templates(20)
    assert len(held_templates(90)) == 90
    assert held_templates(90) < frozenset(range(108))


def test_the_memory_domain_is_a_dial() -> None:
    config = replace(SMALL, memory_domain="out", bucket_shares=[0.4, 0.4, 0.2, 0, 0], unseen_words=0.0)
    made = build(config, LANGUAGES, source="latn", target="thai")

    def things(clause) -> set[str]:  # type: ignore[no-untyped-def]
        phrases = [clause.subject, clause.object, *(phrase for _, phrase in clause.adjuncts)]
        return {phrase.head for phrase in phrases if not is_name(phrase.head)}

    assert all(things(pair.clause) <= set(DOMAINS["places"]) for pair in made.pairs)
    assert all(things(query.pair.clause) <= set(DOMAINS["goods"]) for query in made.queries)
    assert all(
        things(pair.clause) <= {*DOMAINS["goods"], *(f"spare-{i}" for i in range(20))} for pair in memory().pairs
    )


def test_noise_changes_one_word_of_a_share_of_the_targets() -> None:
    made = build(replace(SMALL, target_noise=0.4), LANGUAGES, source="latn", target="thai")
    for pair in made.pairs:
        true = LANGUAGES.translate(pair.source, source="latn", target="thai")
        words = LANGUAGES["thai"].grammar.words_of
        assert naive_distance(words(pair.target), words(true)) == int(pair.is_noisy)
    # Five standard deviations of a binomial share over 120.
    assert abs(sum(pair.is_noisy for pair in made.pairs) / 120 - 0.4) < 5 * (0.4 * 0.6 / 120) ** 0.5
    assert not any(query.pair.is_noisy for query in made.queries)


@pytest.mark.parametrize("code", CODES)
def test_graded_scores_are_exact_and_graded(code: str) -> None:
    buckets = Counter()
    for base, variant, score in graded_pairs(SMALL, LANGUAGES[code], split="train", count=300):
        texts = [LANGUAGES[code].render(clause) for clause in (base, variant)]
        assert score == score_of(*texts, code=code)
        assert [len(LANGUAGES[code].grammar.words_of(text)) for text in texts] == [num_words(base), num_words(variant)]
        buckets[bucket_of(score)] += 1
    assert len(buckets) == 5


def test_code_sequences_hold_graded_pairs_best_last() -> None:
    lines = list(code_sequences(SMALL, LANGUAGES, source="latn", target="grek", split="train", count=200))
    assert {len(line.scores) for line in lines} == {0, 1, 2, 3, 4, 5}
    for line in lines:
        assert list(line.scores) == sorted(line.scores)
        shown = [part.partition("]")[0] for part in line.prompt.split("=[")[1:]]
        assert line.prompt.endswith("[grek]=")
        assert len(shown) == 2 * len(line.scores) + 1
        query = shown[-1]
        assert line.completion == f"[{LANGUAGES.translate(query, source='latn', target='grek')}]"
        assert [score_of(query, source) for source in shown[:-1:2]] == list(line.scores)


def test_code_prompt_without_pairs_is_zero_shot() -> None:
    assert code_prompt([], "x y", source="latn", target="thai") == "[latn]=[x y] [thai]="
    assert code_prompt([("a", "b")], "x", source="latn", target="thai") == "[latn]=[a] [thai]=[b] [latn]=[x] [thai]="


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("memory_size", 29),
        ("num_queries", 0),
        ("unseen_words", 1.5),
        ("num_spare", -1),
        ("num_held_templates", 91),
        ("num_names", 1),
        ("target_noise", -0.1),
        ("bucket_shares", [1.0]),
        ("bucket_shares", [0.5, 0.4, 0, 0, 0]),
        ("domain", "good"),
        ("memory_domain", "ins"),
    ],
)
def test_values_out_of_range_are_refused(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=key):
        build(replace(SMALL, **{key: value}), LANGUAGES, source="latn", target="thai")


def test_what_the_languages_lack_is_refused() -> None:
    with pytest.raises(ConfigError, match="num_spare: got 21, expected at most 20"):
        build(replace(SMALL, num_spare=21), LANGUAGES, source="latn", target="thai")
    with pytest.raises(ConfigError, match="got 'lant'; did you mean 'latn'"):
        build(SMALL, LANGUAGES, source="lant", target="thai")
    with pytest.raises(ConfigError, match="got 'dev'"):
        build(SMALL, LANGUAGES, source="latn", target="thai", split="dev")


def test_an_unreachable_bucket_is_refused() -> None:
    config = replace(SMALL, memory_domain="out", bucket_shares=[0, 0, 0, 0, 1.0])
    with pytest.raises(ConfigError, match=r"bucket_shares: got .* out of reach"):
        build(config, LANGUAGES, source="latn", target="thai")


def test_the_same_in_every_process() -> None:
    code = (
        "from athlos.lab.memory import *; from athlos.lab.languages import Languages;"
        "config = MemoryConfig(memory_size=120, num_queries=30, num_spare=20);"
        "print(build(config, Languages(seed=5, num_spare=20), source='latn', target='hani'))"
    )
    here = f"{memory()}\n"
    assert printed(code) == [here, here]


def test_sentences_are_made_fast() -> None:
    seconds = []
    for attempt in range(3):
        started, sentences = time.process_time(), 0
        for pair in graded_pairs(SMALL, LANGUAGES["latn"], split="train", count=1500, start=1500 * attempt):
            for clause in pair[:2]:
                LANGUAGES["latn"].render(clause)
                LANGUAGES["thai"].render(clause)
                sentences += 2
        seconds.append((time.process_time() - started) / sentences)
    assert slowness() / min(seconds) >= SENTENCES_PER_SECOND


def test_samples_go_from_each_language_to_the_next() -> None:
    lines = sample_lines(LANGUAGES, SMALL, count=1)
    assert [kind.split()[1] for kind, _, _ in lines][:2] == ["latn-cyrl,", "cyrl-grek,"]
    assert all(text.count("|") == meaning.count("|") == 1 for _, text, meaning in lines)
