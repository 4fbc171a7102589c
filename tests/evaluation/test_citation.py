"""ALCE's scores: equal to plain loops, to values by hand, and with the order that gold citations must have."""

import json
import math
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evaluation.alce_reference import WordJudge, alce
from tests.tolerances import EXACT

from athlos.config.schema import EvalConfig
from athlos.evaluation.citation import citation_scores, claim_recall, em_recall, macro_f1, str_hit
from athlos.judging.config import LexicalJudgeConfig
from athlos.judging.interface import Pair
from athlos.judging.lexical import LexicalJudge
from athlos.judging.support import cited_support, joint_scores
from athlos.text.citations import BY_LANGUAGE, Mode, Splitter, read_citations, with_citations, without_citations

AT_FULL_STOPS = Splitter(
    "full stops", lambda text, language: [f"{part.strip()}." for part in text.split(".") if part.strip()]
)
DOCS = ["a b", "c d", "a c", "e", "a b c"]
EVALUATION = EvalConfig(suites={}, batch_size=1, bootstrap=0, bootstrap_seed=0)


def scores(
    answer: str, docs: list[str] = DOCS, *, mode: Mode = Mode.strict, splitter: Splitter = AT_FULL_STOPS, **options: int
) -> dict[str, float]:
    read = read_citations(answer, num_documents=len(docs), mode=mode, splitter=splitter)
    [supports] = cited_support(WordJudge(), [read], [docs], threshold=0.5, **options)
    return citation_scores(supports)


@pytest.mark.parametrize(
    ("answer", "recall", "precision"),
    [
        ("a b [1].", 1, 1),
        ("a b [2].", 0, 0),
        ("a b.", 0, 0),  # nothing cited: nothing counts in precision
        ("a d [1][2].", 1, 1),  # neither supports alone, nor is one left out
        ("a d [1][2][4].", 1, 2 / 3),  # the last one is not needed
        ("a b [1][5].", 1, 1),  # each supports alone
        ("a b [1]. c d [9].", 1 / 2, 1),  # a document that there is not: no support, and no loss of precision
        ("a b [9][1].", 0, 0),
        ("a b [1][2][4][9].", 0, 0),  # the fourth is out of range: looked at before the first three are taken
        ("e [1][2][3][4].", 0, 0),  # the fourth would support
        ("a b [1][2][3][4].", 1, 1 / 3),
        ("a [0].", 0, 0),
        ("a b [1]. c d [2]. e.", 2 / 3, 1),
    ],
)
def test_values_by_hand(answer: str, recall: float, precision: float) -> None:
    found = scores(answer)
    assert found["cite_rec"] == pytest.approx(recall, abs=EXACT)
    assert found["cite_prec"] == pytest.approx(precision, abs=EXACT)


def test_both_precisions_and_the_shares_of_several_citations() -> None:
    found = scores("a b [1]. a d [1][2][4]. c d [1][4]. e. a [9].")
    assert found["sent_prec"] == 2 / 4  # of the sentences that cite, those that are supported
    assert found["cite_prec"] == (1 + 2) / (1 + 3 + 2)
    assert found["multi_cite_share"] == 2 / 5
    assert found["multi_cite_supported"] == 1 / 2
    assert found["overcite_share"] == 1
    assert found["cite_f1_item"] == pytest.approx(2 * 0.4 * 0.5 / 0.9, abs=EXACT)


def test_an_answer_without_a_sentence_is_no_zero() -> None:
    assert all(math.isnan(value) for value in scores("").values())
    bare = scores("a b.")
    assert (bare["cite_rec"], bare["cite_prec"], bare["cite_f1_item"]) == (0, 0, 0)
    assert math.isnan(bare["sent_prec"])


WORDS = st.lists(st.sampled_from("abcde"), min_size=1, max_size=3)
SENTENCES = st.lists(st.tuples(WORDS, st.lists(st.integers(0, 6), max_size=5)), max_size=5)


def written(sentences: list[tuple[list[str], list[int]]]) -> str:
    return " ".join(f"{' '.join(text)}{''.join(f' [{number}]' for number in cited)}." for text, cited in sentences)


@pytest.mark.parametrize("mode", list(Mode))
@given(SENTENCES)
@settings(max_examples=150)
def test_equal_to_plain_loops(mode: Mode, sentences: list[tuple[list[str], list[int]]]) -> None:
    answer = written(sentences)
    wanted = alce(
        answer,
        DOCS,
        split=lambda text: AT_FULL_STOPS.split(text, "en"),
        entails=lambda premise, target: WordJudge().scores([Pair(premise, target)]) == [1],
        strict=mode is Mode.strict,
    )
    found = scores(answer, mode=mode)
    if wanted is None:
        assert all(map(math.isnan, found.values()))
    else:
        assert found == pytest.approx(wanted, abs=EXACT, nan_ok=True)


@given(SENTENCES, st.integers(1, 5))
@settings(max_examples=50)
def test_more_cited_documents_never_lower_the_recall_of_a_monotone_judge(sentences, extra: int) -> None:
    few = [(text, [number for number in cited if 1 <= number <= 5][:2]) for text, cited in sentences]
    more = [(text, [*cited, extra]) for text, cited in few]
    if sentences:
        assert scores(written(more))["cite_rec"] >= scores(written(few))["cite_rec"]


@given(SENTENCES, st.permutations(range(5)))
@settings(max_examples=50)
def test_documents_and_citations_that_move_together_change_nothing(sentences, order: list[int]) -> None:
    kept = [(text, [number for number in cited if 1 <= number <= 5][:3]) for text, cited in sentences]
    moved = [(text, [order.index(number - 1) + 1 for number in cited]) for text, cited in kept]
    assert scores(written(moved), [DOCS[place] for place in order]) == pytest.approx(
        scores(written(kept)), abs=EXACT, nan_ok=True
    )


def test_all_answers_share_two_batches_of_different_pairs() -> None:
    judge = WordJudge()
    read = [read_citations(text, num_documents=5, splitter=AT_FULL_STOPS) for text in ("a d [1][2]. a b [1].",) * 3]
    together = cited_support(judge, read, [DOCS] * 3, threshold=0.5)
    assert judge.counters == {"pairs": 2 + 2, "calls": 2}
    apart = [cited_support(WordJudge(), [one], [DOCS], threshold=0.5)[0] for one in read]
    assert together == apart
    assert cited_support(WordJudge(), [], [], threshold=0.5) == []


def test_the_number_of_citations_that_count_can_be_chosen() -> None:
    assert scores("e [1][2][3][4].", max_citations=4)["cite_rec"] == 1


def test_scores_by_all_documents_joined() -> None:
    read = read_citations("a e. x [1].", num_documents=2, splitter=AT_FULL_STOPS)
    assert joint_scores(WordJudge(), [read], [["a", "e"]]) == [[1.0, 0.0]]


def test_f1_of_the_means_and_not_the_mean_of_f1() -> None:
    metrics, details = macro_f1(
        "cite_f1",
        [1, 0, math.nan, 0.5],
        [0.5, 0, math.nan, 1],
        ["en", "en", "en", "de"],
        evaluation=EVALUATION,
    )
    assert metrics["cite_f1/en"] == pytest.approx(2 * 0.5 * 0.25 / 0.75, abs=EXACT)
    assert metrics["cite_f1/de"] == pytest.approx(2 / 3, abs=EXACT)
    assert metrics["cite_f1"] == pytest.approx((1 / 3 + 2 / 3) / 2, abs=EXACT)
    assert (details["cite_f1"].n, details["cite_f1"].undefined, details["cite_f1/en"].undefined) == (4, 1, 1)
    assert macro_f1("f", [0.0, 0.0], [0.0, 0.0], ["en", "en"], evaluation=EVALUATION)[0]["f"] == 0
    assert math.isnan(macro_f1("f", [math.nan], [math.nan], ["en"], evaluation=EVALUATION)[0]["f"])


def test_f1_has_an_interval_that_resamples_answers() -> None:
    evaluation = EvalConfig(suites={}, batch_size=1, bootstrap=200, bootstrap_seed=1)
    metrics, details = macro_f1("f", [1, 0.5, 0, 1], [1, 0.5, 0, 0.5], ["en"] * 4, evaluation=evaluation)
    detail = details["f"]
    assert detail.low is not None
    assert detail.high is not None
    assert detail.low <= metrics["f"] <= detail.high
    assert detail.low < detail.high


def test_what_an_answer_says() -> None:
    pairs = [["Rome", "Roma"], ["Ada Krone"]]
    assert em_recall("The city of roma, they say.", pairs, language="en") == 1 / 2
    assert str_hit("The city of roma, they say.", pairs, language="en") == 0
    assert str_hit("Ada Krone lives in Rome.", pairs, language="en") == 1
    assert math.isnan(em_recall("x", [], language="en"))
    assert math.isnan(str_hit("x", [], language="en"))
    judge = WordJudge()
    assert claim_recall(judge, ["a b", "", "c"], [["a", "b c"], ["a"], []], threshold=0.5)[:2] == [1 / 2, 0]
    assert judge.counters["calls"] == 1
    assert math.isnan(claim_recall(judge, ["c"], [[]], threshold=0.5)[0])
    assert claim_recall(WordJudge(), ["a"], [["a"]], threshold=1.0) == [1.0]  # a score at the threshold is enough


@pytest.mark.shared
class TestFewShotSets:
    """The demonstrations of ALCE: gold answers with citations, five documents each."""

    judge = LexicalJudge(LexicalJudgeConfig(_target_="", language="en", strict=False, window_words=0))

    def demonstrations(self, shared_data: Path, name: str) -> list[tuple[str, list[str]]]:
        file = shared_data / "alce_human_eval" / f"{name}_default.json"
        demos = json.loads(file.read_text(encoding="utf-8"))["demos"]
        return [(demo["answer"], [f"Title: {doc['title']}\n{doc['text']}" for doc in demo["docs"]]) for demo in demos]

    def means(self, items: list[tuple[str, list[str]]], mode: Mode = Mode.strict) -> tuple[float, float]:
        read = [read_citations(answer, num_documents=len(docs), mode=mode) for answer, docs in items]
        supports = cited_support(self.judge, read, [docs for _, docs in items], threshold=0.5)
        of_items = [citation_scores(of_item) for of_item in supports]
        return tuple(sum(row[key] for row in of_items) / len(of_items) for key in ("cite_rec", "cite_prec"))  # type: ignore[return-value]

    @pytest.mark.parametrize("name", ["asqa", "eli5", "qampari"])
    @pytest.mark.parametrize("mode", list(Mode))
    def test_gold_answers_cite_documents_that_are_there(self, shared_data: Path, name: str, mode: Mode) -> None:
        for answer, docs in self.demonstrations(shared_data, name):
            read = read_citations(answer, num_documents=len(docs), mode=mode)
            assert read.counts["out_of_range"] == 0
            assert any(sentence.cited for sentence in read.sentences)

    @pytest.mark.parametrize("name", ["asqa", "eli5"])
    def test_equal_to_plain_loops_on_real_answers(self, shared_data: Path, name: str) -> None:
        for answer, docs in self.demonstrations(shared_data, name):
            wanted = alce(
                answer,
                docs,
                split=lambda text: BY_LANGUAGE.split(text, "en"),
                entails=lambda premise, target: self.judge.scores([Pair(premise, target)])[0] >= 0.5,
                strict=False,
            )
            read = read_citations(answer, num_documents=len(docs), mode=Mode.parity)
            [supports] = cited_support(self.judge, [read], [docs], threshold=0.5)
            assert citation_scores(supports) == pytest.approx(wanted, abs=EXACT, nan_ok=True)

    def test_gold_beats_shuffled_none_and_all(self, shared_data: Path) -> None:
        items = self.demonstrations(shared_data, "asqa") + self.demonstrations(shared_data, "eli5")
        gold = self.means(items)
        draw = random.Random(0)
        shuffled, bare, everything = [], [], []
        for answer, docs in items:
            read = read_citations(answer, num_documents=len(docs))
            texts = [sentence.text for sentence in read.sentences]
            others = [
                draw.sample(rest := sorted({1, 2, 3, 4, 5} - set(sentence.cited)), min(len(sentence.cited), len(rest)))
                for sentence in read.sentences
            ]
            shuffled.append((" ".join(map(with_citations, texts, others)), docs))
            bare.append((without_citations(answer), docs))
            everything.append((" ".join(with_citations(text, (1, 2, 3, 4, 5)) for text in texts), docs))
        assert gold[0] > self.means(shuffled)[0]
        assert gold[1] > self.means(shuffled)[1]
        assert self.means(bare) == (0, 0)
        assert self.means(everything)[1] < gold[1]
