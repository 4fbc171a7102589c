"""What a sampled answer is worth."""

import math
import random
from dataclasses import replace

import pytest
from tests.methods.start import reference
from tests.methods.start.made import SentenceJudge, question, reward_of

from athlos.data.records import Passage
from athlos.errors import ConfigError, DataError
from athlos.judging.interface import Pair
from athlos.methods.start.rewards import combined, read_sample, robustness
from athlos.text.citations import renumbered

FACTS = ["Ada0 was born in Rome.", "Ada0 wrote Orla0.", "Orla0 is a poem.", "Ada0 liked tea."]


def cite(*pairs):
    """An answer that states facts by number and cites documents: `cite((0, [1]), (2, [3, 4]))`."""
    return " ".join(
        f"{FACTS[fact][:-1]}{' ' if cited else ''}{''.join(f'[{n}]' for n in cited)}." for fact, cited in pairs
    )


def scored(*texts, record=None, most=3, **values):
    record = record or question()
    reward = reward_of(**values)
    samples = [read_sample(text, finished=True, record=record) for text in texts]
    reward.score(record, samples, most=most)
    return samples


def test_exact_values_of_the_specification():
    assert robustness(-1.20, -1.50) == pytest.approx(0.740818, abs=1e-6)
    assert robustness(-1.50, -1.20) == robustness(-1.20, -1.50)
    assert robustness(-1.2, -1.2) == 1
    config = reward_of().config
    assert combined(1.0, 0.75, 0.8, config=config) == pytest.approx(0.60)
    assert combined(0.99, 0.75, 0.8, config=config) == 0


def test_switches_of_the_combination():
    def value(**values):
        return combined(0.5, 0.75, 0.25, config=reward_of(**values).config)

    assert value(gate="soft") == pytest.approx(0.5 * 0.75 * 0.25)
    assert value(gate="soft", robust="false") == pytest.approx(0.5 * 0.75)
    assert value(gate="soft", combine="gated_mean") == pytest.approx(0.5 * 0.5)
    assert value(gate="soft", combine="gated_mean", robust="false") == pytest.approx(0.5 * 0.75)
    assert value(combine="gated_mean") == 0


def test_parts_equal_the_twin():
    rng = random.Random(1)
    record = question()
    texts = [passage.text for passage in record.passages]
    answers = [
        cite(*((rng.randrange(4), rng.sample(range(0, 6), rng.randint(0, 3))) for _ in range(rng.randint(1, 4))))
        for _ in range(60)
    ]

    def supports(premise, told):
        return SentenceJudge().scores([Pair(premise, told)])[0]

    for most in (1, 3):
        for answer, sample in zip(answers, scored(*answers, most=most), strict=True):
            assert sample.attr == pytest.approx(reference.attr(answer, texts, supports, most)), answer
            assert sample.compre == pytest.approx(reference.compre(answer, FACTS, supports)), answer


def test_a_sentence_counts_by_the_documents_it_cites_and_no_others():
    right, shifted, none, outside, two = scored(
        cite((0, [1]), (1, [2])),
        cite((0, [2]), (1, [3])),
        cite((0, []), (1, [2])),
        cite((0, [1, 9]), (1, [2])),
        cite((0, [2, 1])),
    )
    assert (right.attr, right.compre) == (1, 0.5)
    assert (shifted.attr, shifted.compre) == (0, 0.5), "citations that are off by one support nothing"
    assert none.attr == outside.attr == 0.5
    assert outside.counts["out_of_range"] == 1
    assert (two.attr, two.compre) == (1, 0.25)


def test_citations_beyond_the_allowed_number_do_not_count():
    text = cite((3, [1, 2, 3, 4]))
    assert [scored(text, most=most)[0].attr for most in (3, 4)] == [0, 1]


def test_citing_everything_is_never_worse_under_a_monotone_judge():
    for cited in ([1], [2], [1, 3], [2, 4]):
        part, whole = scored(cite((0, cited)), cite((0, [1, 2, 3, 4])), most=4)
        assert whole.attr >= part.attr


def test_an_uncited_document_changes_neither_attr_nor_compre():
    record = question()
    more = replace(record, passages=[*record.passages, Passage(title="", text="Nothing of it is here.")])
    texts = [cite((0, [1]), (1, [3])), cite((2, [3])), ""]
    for one, other in zip(scored(*texts), scored(*texts, record=more), strict=True):
        assert (one.attr, one.compre) == (other.attr, other.compre)


def test_permuting_documents_with_their_citations_changes_nothing():
    record = question()
    order = [2, 0, 3, 1]
    numbers = {old + 1: new + 1 for new, old in enumerate(order)}
    moved = replace(record, passages=[record.passages[old] for old in order])
    texts = [cite((0, [1]), (1, [2, 3])), cite((2, [4]), (3, [4]))]
    there = scored(*texts)
    back = scored(*(renumbered(text, numbers) for text in texts), record=moved)
    assert [(one.attr, one.compre) for one in there] == [(one.attr, one.compre) for one in back]
    assert [(one.attr, one.compre) for one in scored(*texts, record=moved)] != [(one.attr, one.compre) for one in there]


def test_an_answer_without_a_sentence_has_nothing():
    [empty, cited_only] = scored("", "[1]")
    assert (empty.attr, empty.compre, empty.is_read) == (0, 0, False)
    assert (cited_only.attr, cited_only.compre) == (0, 0)


def test_claims_of_the_documents_pay_for_dumping_them_and_those_of_the_data_do_not():
    record = question(claims=question().claims[:1])
    short, dumped = cite((0, [1])), cite(*((fact, [fact + 1]) for fact in range(4)))
    by_docs = scored(short, dumped, record=record, claims="docs")
    by_oracle = scored(short, dumped, record=record, claims="oracle")
    assert by_docs[1].compre == 4 * by_docs[0].compre
    assert by_oracle[1].compre == by_oracle[0].compre == 1


def test_pooled_claims_are_the_supported_sentences_of_all_samples_merged():
    class Alike(SentenceJudge):
        """`Ada0 liked tea.` and `Ada0 drank tea.` mean the same."""

        def scores(self, pairs):
            return super().scores([Pair(*(text.replace("drank", "liked") for text in pair)) for pair in pairs])

    texts = [cite((0, [1]), (3, [4])), cite((1, [1]), (3, [4])).replace("liked", "drank"), cite((1, [2]))]
    samples = [read_sample(text, finished=True, record=question()) for text in texts]
    reward = reward_of(judge=Alike(), claims="pooled")
    reward.score(question(), samples, most=3)
    # Ada's birth, her tea once, and her work, which one sample cites wrongly and one rightly.
    assert [sample.compre for sample in samples] == pytest.approx([2 / 3, 2 / 3, 1 / 3])
    [alone] = scored(cite((0, [2])), claims="pooled")
    assert alone.compre == 0, "no supported sentence, no claim"


def test_no_claim_for_an_answer_is_an_error():
    with pytest.raises(DataError, match=r"question 'q0': no claim for reward.claims=oracle"):
        scored(cite((0, [1])), record=question(claims=[]))


@pytest.mark.parametrize("score", [-0.1, 1.5, math.nan])
def test_a_score_outside_its_range_is_an_error(score):
    with pytest.raises(DataError, match=r"judge sentences:0: got the score .*, expected one in \[0, 1\]"):
        scored(cite((0, [1])), judge=SentenceJudge(score))


def test_equal_pairs_are_judged_once():
    judge = SentenceJudge()
    scored(cite((0, [1])), cite((0, [1])), cite((1, []), (0, [1])), judge=judge)
    assert len(judge.asked) == len(set(judge.asked)) == 1 + 2 * len(FACTS)


def test_the_judge_of_the_evaluation_is_refused_unless_allowed(tmp_path):
    from tests.methods.start.made import COMPOSED, context_of

    from athlos.config.compose import run_config
    from athlos.methods.start.rewards import prepared_reward

    same = ["judge@reward.judge=symbolic", "reward.judge.world=${data.world}"]
    with pytest.raises(ConfigError, match=r"reward.judge: is the run's judge, so the evaluation would measure"):
        run_config([*COMPOSED, *same])
    assert run_config([*COMPOSED, *same, "judge.allow_same=true"]).judge.allow_same  # type: ignore[attr-defined]
    context = context_of(tmp_path)
    context.judge = prepared_reward(context).judge
    with pytest.raises(ConfigError, match=r"reward\.judge: is the run's judge"):
        prepared_reward(context)


def test_a_score_at_the_threshold_supports():
    pair = Pair("Ada liked tea.", "Ada liked tea.")
    assert reward_of(judge=SentenceJudge(score=0.5)).supports([pair]) == {pair: True}


def test_a_claim_that_another_one_entails_alone_stays_among_the_pooled():
    class Stronger(SentenceJudge):
        """Who liked strong tea liked tea, and not the other way round."""

        def scores(self, pairs):
            told = [premise.replace("strong tea.", "strong tea. Ada0 liked tea.") for premise, _ in pairs]
            return super().scores([Pair(premise, pair.hypothesis) for premise, pair in zip(told, pairs, strict=True)])

    record = question(facts=["Ada liked strong tea.", "Ada liked tea."])
    texts = ["Ada0 liked strong tea [1].", "Ada0 liked tea [2]."]
    samples = [read_sample(text, finished=True, record=record) for text in texts]
    reward_of(judge=Stronger(), claims="pooled").score(record, samples, most=3)
    assert [sample.compre for sample in samples] == [1, 0.5]
