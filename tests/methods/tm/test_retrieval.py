"""Rankings of a memory against a search in which every pair is scored."""

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.methods.tm import reference
from tests.methods.tm.made import matcher, record, records
from tests.tolerances import EXACT

from athlos.errors import ConfigError
from athlos.methods.tm.config import MOST_PAIRS, Rank, Shortlist
from athlos.methods.tm.memory import Pair
from athlos.methods.tm.retrieval import covering, exact_matches

WORDS = ["save", "all", "changes", "to", "this", "page", "or", "delete", "it", "now", "for", "ever"]


def pairs(count: int, *, seed: int = 0) -> list[Pair]:
    """Random sentences of one to seven words, no two alike."""
    rng = random.Random(seed)
    sources = dict.fromkeys(" ".join(rng.choices(WORDS, k=rng.randint(1, 7))) for _ in range(2 * count))
    return [
        Pair(identifier=f"m:{number}", source=source, target=f"T{number} {source}")
        for number, source in enumerate(list(sources)[:count], start=1)
    ]


def found(memory: list[Pair], sentences: list[str], tmp_path: Path, *overrides: str, rank: Rank = Rank.fms, **more):
    asked = [record(f"q{number}", sentence) for number, sentence in enumerate(sentences)]
    prefilter = more.pop("prefilter", Shortlist.bm25)
    lists = matcher(memory, tmp_path, *overrides, **more).matches(asked, rank=rank, prefilter=prefilter)
    return [[(match.pair.identifier, match.score) for match in of_sentence] for of_sentence in lists]


@pytest.mark.parametrize("prefilter", [Shortlist.all, Shortlist.bm25, Shortlist.setsim])
def test_the_ranking_by_fuzzy_match_is_that_of_the_naive_search(prefilter: Shortlist, tmp_path: Path) -> None:
    memory = pairs(60)
    sentences = [" ".join(random.Random(number).choices(WORDS, k=5)) for number in range(12)]
    sources = {pair.identifier: pair.source for pair in memory}
    for sentence, ranking in zip(sentences, found(memory, sentences, tmp_path, prefilter=prefilter), strict=True):
        expected = reference.ranked(sentence, sources, top=MOST_PAIRS)
        assert [score for _, score in ranking] == pytest.approx([score for _, score in expected], abs=EXACT)
        assert [identifier for identifier, _ in ranking] == [identifier for identifier, _ in expected]


def test_candidates_by_vectors_are_ranked_by_edits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory, sentence = pairs(60), "save all changes to page"
    wanted = matcher(memory, tmp_path)
    monkeypatch.setattr(wanted, "_dense", wanted._lexical)  # another engine names the candidates; no encoder is needed
    [ranking] = wanted.matches([record("q", sentence)], rank=Rank.fms, prefilter=Shortlist.dense)
    expected = reference.ranked(sentence, {pair.identifier: pair.source for pair in memory}, top=MOST_PAIRS)
    assert [(match.pair.identifier, match.score) for match in ranking] == [
        (identifier, pytest.approx(score, abs=EXACT)) for identifier, score in expected
    ]


@pytest.mark.parametrize("rank", sorted(set(Rank) - {Rank.cosine, Rank.random}))
def test_scores_never_rise_down_a_list(rank: Rank, tmp_path: Path) -> None:
    for ranking in found(pairs(40), ["save this page now", "delete it"], tmp_path, rank=rank):
        scores = [score for _, score in ranking]
        assert scores
        assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("rank", sorted(set(Rank) - {Rank.cosine}))
def test_permuting_the_memory_changes_nothing(rank: Rank, tmp_path: Path) -> None:
    memory = pairs(40)
    sentences = ["save all changes now", "delete this page", "or"]
    shuffled = list(memory)
    random.Random(5).shuffle(shuffled)
    assert found(memory, sentences, tmp_path, rank=rank) == found(shuffled, sentences, tmp_path / "other", rank=rank)


def test_an_unrelated_pair_removes_no_match(tmp_path: Path) -> None:
    memory = pairs(6)
    unrelated = Pair(identifier="x:1", source="zebra quagga okapi", target="?")
    before = found(memory, ["save all changes"], tmp_path)[0]
    after = found([*memory, unrelated], ["save all changes"], tmp_path / "other")[0]
    assert [entry for entry in after if entry[0] != "x:1"] == before


def test_bm25_alone_prefers_rare_words_where_the_edit_distance_prefers_the_sentence(tmp_path: Path) -> None:
    """The reason for ranking again: a search engine's best is far away by edits."""
    memory = [
        Pair(identifier="near:1", source="save all the changes to the page", target="n"),
        Pair(identifier="far:1", source="okapi", target="f"),
        *(
            Pair(identifier=f"m:{n}", source=f"save all the changes to {word}", target="m")
            for n, word in enumerate("abcd")
        ),
    ]
    sentence = "save all the changes to the okapi"
    assert found(memory, [sentence], tmp_path)[0][0][0] == "near:1"
    assert found(memory, [sentence], tmp_path, rank=Rank.bm25)[0][0][0] == "far:1"


def test_a_tie_of_a_search_engine_goes_to_the_shorter_source_and_then_by_id(tmp_path: Path) -> None:
    texts = {"m:1": "save page !", "m:3": "save page", "m:2": "save page"}  # a mark alone is no word of the index
    memory = [Pair(identifier=identifier, source=text, target="x") for identifier, text in texts.items()]
    [ranking] = found(memory, ["save page now"], tmp_path, rank=Rank.bm25)
    assert len({score for _, score in ranking}) == 1
    assert [identifier for identifier, _ in ranking] == ["m:2", "m:3", "m:1"]


def test_random_pairs_follow_the_seed_and_the_sentence(tmp_path: Path) -> None:
    memory = pairs(40)

    def drawn(seed: int, folder: str) -> list[list[str]]:
        lists = found(memory, ["save", "delete"], tmp_path / folder, rank=Rank.random, seed=seed)
        return [[identifier for identifier, _ in ranking] for ranking in lists]

    first, second = drawn(1, "a")
    assert len(set(first)) == MOST_PAIRS
    assert first != second
    assert drawn(1, "b") == [first, second]
    assert drawn(2, "a") != [first, second]


def test_characters_where_words_are_written_together(tmp_path: Path) -> None:
    """By words, a Chinese sentence is one word: alike or not at all."""
    memory = [Pair(identifier="zh:1", source="保存所有更改", target="Save all changes")]
    asked = [record("q", "保存更改")]
    scores = {}
    for unit in ("auto", "char", "word"):
        wanted = matcher(memory, tmp_path / unit, f"method.fms_unit={unit}")
        wanted.language = "zh"
        [ranking] = wanted.matches(asked, rank=Rank.fms, prefilter=Shortlist.all)
        scores[unit] = ranking[0].score
    assert scores == {"auto": pytest.approx(4 / 6), "char": pytest.approx(4 / 6), "word": 0.0}


def test_subwords_are_the_tokens_of_the_model(tmp_path: Path) -> None:
    memory = [Pair(identifier="m:1", source="unsaved", target="x")]
    asked = [record("q", "unloved")]
    wanted = matcher(memory, tmp_path, "method.fms_unit=subword")
    with pytest.raises(ConfigError, match="subword"):
        wanted.matches(asked, rank=Rank.fms, prefilter=Shortlist.all)
    wanted.tokenize = lambda text: [ord(character) for character in text]
    [[match]] = wanted.matches(asked, rank=Rank.fms, prefilter=Shortlist.all)
    assert match.score == pytest.approx(reference.fms(list("unloved"), list("unsaved")))


@pytest.mark.parametrize(
    ("domain", "expected"),
    [("in", {"django"}), ("out", {"wagtail", "sphinx"}), ("mixed", {"django", "wagtail", "sphinx"})],
)
def test_a_sentence_uses_the_part_of_the_memory_that_the_domain_names(
    domain: str, expected: set[str], tmp_path: Path
) -> None:
    memory = [
        Pair(identifier=item.identifier, source=item.source, target=item.target, domain=item.domain.partition(":")[0])
        for item in records()
    ]
    wanted = matcher(memory, tmp_path, f"method.tm_domain={domain}")
    [ranking] = wanted.matches(
        [record("q", "the page may not be saved", domain="django:auth")], rank=Rank.fms, prefilter=Shortlist.all
    )
    assert {match.pair.domain for match in ranking} == expected


def test_a_domain_without_pairs_finds_nothing(tmp_path: Path) -> None:
    wanted = matcher(pairs(5), tmp_path, "method.tm_domain=in")
    assert wanted.matches([record("q", "save", domain="x:y")], rank=Rank.fms, prefilter=Shortlist.all) == [[]]


def test_coverage_takes_what_the_others_lack() -> None:
    candidates = {"ab": list("ab"), "abx": list("abx"), "cd": list("cd"), "zz": list("zz")}
    # "a b c d" has ten n-grams; "a b" and "c d" have three each, and nothing else adds any.
    assert covering(list("abcd"), candidates) == [("ab", 0.3), ("cd", 0.3)]
    assert covering(list("abcd"), {}) == []


def test_matches_are_shared_by_all_k_orders_and_templates(tmp_path: Path) -> None:
    memory, asked = pairs(20), [record("q", "save all changes")]
    base = matcher(memory, tmp_path)
    base.matches(asked, rank=Rank.fms, prefilter=Shortlist.bm25)
    for overrides in (
        ["method.k=2"],
        ["method.order=best_first"],
        ["method.template=instruction"],
        ["method.min_score=0.5"],
    ):
        other = matcher(memory, tmp_path, *overrides)
        other.matches(asked, rank=Rank.fms, prefilter=Shortlist.bm25)
        assert all(product.reused for product in other.stages.history), overrides
    other = matcher(memory, tmp_path, "method.fms_lower=false")
    other.matches(asked, rank=Rank.fms, prefilter=Shortlist.bm25)
    assert [product.name for product in other.stages.history if not product.reused] == ["index", "tm_matches"]


@settings(max_examples=60)
@given(st.lists(st.sampled_from("abc"), max_size=6), st.lists(st.sampled_from("abc"), max_size=6))
def test_the_score_is_symmetric_bounded_and_one_for_equals_alone(first: list[str], second: list[str]) -> None:
    from athlos.text.fuzzy import fuzzy_match_score

    score = fuzzy_match_score(first, second)
    assert score == pytest.approx(reference.fms(first, second), abs=EXACT)
    assert score == fuzzy_match_score(second, first)
    assert 0 <= score <= 1
    assert (score == 1) == (first == second)


def test_an_exact_match_is_told_by_the_normalised_source(tmp_path: Path) -> None:
    memory = [Pair(identifier="m:1", source="Save  all changes.", target="x")]
    [ranking] = matcher(memory, tmp_path).matches(
        [record("q", "save all changes")], rank=Rank.fms, prefilter=Shortlist.all
    )
    assert ranking[0].score < 1
    assert exact_matches(record("q", "save all changes"), ranking) == ranking
    assert exact_matches(record("q", "save any changes"), ranking) == []
