import os

import numpy as np
import pytest
import sacrebleu
from tests.tolerances import EXACT, FLOAT32, FLOAT64

from athlos.config.schema import EvalConfig
from athlos.evaluation.translation import CorpusScores, bleu_tokenizer, paired_bootstrap

REFERENCES = ["Die Katze saß auf der Matte.", "Ein Hund lief schnell davon.", "Heute scheint die Sonne.", "Ja."] * 6
HYPOTHESES = ["Die Katze saß auf einer Matte.", "Ein Hund rannte davon.", "Heute scheint die Sonne!", ""] * 6
BLEU_13A = "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:" + sacrebleu.__version__
CHRF = "nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|version:" + sacrebleu.__version__
TER = "nrefs:1|case:lc|tok:tercom|norm:no|punct:yes|asian:no|version:" + sacrebleu.__version__


def scored(hypotheses=HYPOTHESES, references=REFERENCES, target="de", resamples=0, seed=12345):
    """Metrics, details, signatures."""
    scores = CorpusScores(target, evaluation=EvalConfig(bootstrap=resamples, bootstrap_seed=seed))
    scores.update(hypotheses, references)
    return *scores.compute(), scores.signatures


def test_scores_are_those_of_sacrebleu_with_its_signatures():
    metrics, _, signatures = scored()
    expected = {
        "bleu": sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score,
        "chrf": sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score,
        "ter": sacrebleu.corpus_ter(HYPOTHESES, [REFERENCES]).score,
    }
    assert metrics == pytest.approx(expected, abs=EXACT)
    assert signatures == {"bleu": BLEU_13A, "chrf": CHRF, "ter": TER}


def test_a_perfect_output_has_the_best_scores_and_the_side_of_a_text_matters():
    metrics, _, _ = scored(REFERENCES)
    assert metrics == pytest.approx({"bleu": 100, "chrf": 100, "ter": 0}, abs=EXACT)
    longer = [text + " und mehr" for text in REFERENCES]
    assert scored(longer)[0]["bleu"] != pytest.approx(scored(REFERENCES, longer)[0]["bleu"], abs=1)


@pytest.mark.parametrize(
    ("target", "tokenizer"),
    [("de", "13a"), ("pt_BR", "13a"), ("zh", "zh"), ("zh_Hans", "zh"), ("th", "char"), ("ko", "13a")],
)
def test_the_tokenizer_follows_the_target(target, tokenizer):
    assert bleu_tokenizer(target) == tokenizer
    signature = scored(["x"], ["x"], target)[2]["bleu"]
    assert f"|tok:{tokenizer}|" in signature


def test_japanese_takes_mecab_only_where_it_is_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert bleu_tokenizer("ja") == "char"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert bleu_tokenizer("ja") == "ja-mecab"


def test_unspaced_targets_are_scored_by_their_tokens():
    references = ["今天天气很好，我们去公园。", "他昨天买了三本新书。"]
    hypotheses = ["今天天气很好，我们去学校。", "他昨天买了两本新书。"]
    assert scored(hypotheses, references, "zh")[0]["bleu"] > 50 > scored(hypotheses, references, "en")[0]["bleu"]
    thai = ["วันนี้อากาศดีมากเราไปสวนสาธารณะ"], ["วันนี้อากาศดีมากเราไปโรงเรียน"]
    assert scored(*thai, "th")[0]["bleu"] > 50 > scored(*thai, "en")[0]["bleu"]


def test_intervals_are_those_of_sacrebleu_and_obey_the_seed(monkeypatch):
    monkeypatch.delenv("SACREBLEU_SEED", raising=False)
    metrics, details, signatures = scored(resamples=200)
    bleu = sacrebleu.BLEU().corpus_score(HYPOTHESES, [REFERENCES], n_bootstrap=200)  # its default seed is 12345
    assert (details["bleu"].low, details["bleu"].high) == pytest.approx(
        (bleu._mean - bleu._ci, bleu._mean + bleu._ci), abs=FLOAT32
    )
    assert signatures["bleu"] == BLEU_13A  # the bootstrap is no part of what must agree to compare scores
    for name, detail in details.items():
        assert detail.n == len(HYPOTHESES)
        assert detail.low < metrics[name] < detail.high
        assert isinstance(detail.low, float)
    assert scored(resamples=200, seed=1)[1]["bleu"] != details["bleu"] == scored(resamples=200)[1]["bleu"]
    assert "SACREBLEU_SEED" not in os.environ


def test_resamples_that_match_nothing_have_an_interval():
    hypotheses, references = ["", "the cat sat on it", "oo"], ["tt", "the cat sat on mat", "zz"]
    metrics, details, _ = scored(hypotheses, references, "en", resamples=200, seed=1)
    for name in ("bleu", "chrf", "ter"):
        assert details[name].low < metrics[name] < details[name].high


def test_the_seed_of_the_environment_is_put_back(monkeypatch):
    monkeypatch.setenv("SACREBLEU_SEED", "99")
    scored(resamples=10)
    assert os.environ["SACREBLEU_SEED"] == "99"


def test_one_segment_has_no_interval_and_unequal_lengths_are_refused():
    metrics, details, _ = scored(["Ein Hund lief davon."], ["Ein Hund lief davon."], resamples=100)
    assert metrics["bleu"] == pytest.approx(100, abs=EXACT)
    assert details["bleu"].low is None
    with pytest.raises(ValueError, match="one reference a hypothesis"):
        scored(["a"], [])


def test_many_updates_equal_one():
    scores = CorpusScores("zh", evaluation=EvalConfig(bootstrap=20))
    texts = ["今天天气很好。", "", "naïve café 😀"], ["今天天气好。", "是", "naïve café 😀!"]
    for hypothesis, reference in zip(*texts, strict=True):
        scores.update([hypothesis], [reference])
    assert scores.compute() == scored(*texts, "zh", resamples=20)[:2]


@pytest.mark.shared
def test_real_segments_and_the_published_gain_of_the_memory(shared_data):
    """sacreBLEU 45.00 and 54.70 stand in the description of the data, for a plain and a memory-augmented system."""
    rows = (shared_data / "dgt_en_nl_300" / "dgt_en_nl_300.tsv").read_text(encoding="utf-8").splitlines()[1:]
    _, references, plain, repaired = zip(*(row.split("\t") for row in rows), strict=True)
    assert len(references) == 300
    assert round(scored(plain, references, "nl")[0]["bleu"], 2) == 45.00
    metrics, details, _ = scored(repaired, references, "nl", resamples=100)
    assert round(metrics["bleu"], 2) == 54.70
    assert details["bleu"].low < 54.7 < details["bleu"].high


GOLD = [f"der Benutzer {number} darf diese Seite nicht {verb}" for number, verb in enumerate(["ändern", "sehen"] * 15)]
BETTER = [text.replace("nicht", "nie") if number % 3 else text for number, text in enumerate(GOLD)]
WORSE = [text.replace("darf diese", "kann eine") if number % 4 else text for number, text in enumerate(BETTER)]


@pytest.mark.parametrize("name", ["bleu", "chrf", "ter"])
def test_a_paired_difference_is_that_of_resampled_corpora(name):
    evaluation = EvalConfig(suites={}, batch_size=1, bootstrap=15)
    found = paired_bootstrap(name, BETTER, WORSE, GOLD, target_language="de", evaluation=evaluation)
    metric = {"bleu": sacrebleu.metrics.BLEU, "chrf": sacrebleu.metrics.CHRF, "ter": sacrebleu.metrics.TER}[name]()

    def difference(places):
        gold, ours, theirs = ([texts[place] for place in places] for texts in (GOLD, BETTER, WORSE))
        return metric.corpus_score(ours, [gold]).score - metric.corpus_score(theirs, [gold]).score

    generator = np.random.default_rng(evaluation.bootstrap_seed)
    differences = [difference(draw) for draw in generator.choice(len(GOLD), size=(15, len(GOLD)), replace=True)]
    low, high = np.quantile(differences, [0.025, 0.975])
    assert found.difference == pytest.approx(difference(range(len(GOLD))), abs=FLOAT64)
    assert (found.low, found.high) == (pytest.approx(low, abs=FLOAT64), pytest.approx(high, abs=FLOAT64))
    other_side = min(sum(value <= 0 for value in differences), sum(value >= 0 for value in differences))
    assert found.p_value == min(1, 2 * (1 + other_side) / 16)


def test_p_is_two_sided_and_never_zero():
    evaluation = EvalConfig(suites={}, batch_size=1, bootstrap=99)
    up, down, same = (
        paired_bootstrap("chrf", ours, theirs, GOLD, target_language="de", evaluation=evaluation)
        for ours, theirs in ((BETTER, WORSE), (WORSE, BETTER), (WORSE, WORSE))
    )
    assert up.difference == -down.difference > 0
    assert up.p_value == down.p_value == pytest.approx(2 / 100)
    assert (up.low > 0) == (down.high < 0)
    assert (same.difference, same.p_value) == (0, 1)
    with pytest.raises(ValueError, match="needs segments"):
        paired_bootstrap("chrf", [], [], [], target_language="de", evaluation=evaluation)
