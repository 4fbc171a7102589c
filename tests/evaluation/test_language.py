import pytest
from tests.tolerances import EXACT

from athlos.evaluation.metrics import LanguageConsistency, LcAcc, MathAccuracy
from athlos.text.language import detector

GERMAN = "Sie kauft drei Äpfel und dann noch zwei, das sind zusammen"
ENGLISH = "She buys three apples and then two more, which makes in total"
THAI = "เธอซื้อแอปเปิ้ลสามลูกแล้วซื้ออีกสองลูก รวมเป็น"

TEXTS = [f"{GERMAN} 5.", f"{ENGLISH} 5.", f"{GERMAN} 6.", f"{THAI} ๕", f"{ENGLISH} 6."]
GOLDS = ["5", "5", "5", "5", "5"]
LANGUAGES = ["de", "de", "de", "th", "th"]


@pytest.fixture(scope="module")
def script():
    return detector("script", ["de", "th"])


def computed(metric):
    return {name: value.item() for name, value in metric.compute().items()}


def test_consistency_by_language(script):
    metric = LanguageConsistency(["de", "th"], detector=script)
    metric.update(TEXTS, LANGUAGES)
    assert computed(metric) == pytest.approx({"lc": (2 / 3 + 1 / 2) / 2, "lc/de": 2 / 3, "lc/th": 1 / 2}, abs=EXACT)


def test_lc_acc_is_the_mean_of_products_and_not_the_product_of_means(script):
    both = LcAcc(["de", "th"], detector=script)
    consistent, right = LanguageConsistency(["de", "th"], detector=script), MathAccuracy(["de", "th"])
    both.update(TEXTS, GOLDS, LANGUAGES)
    consistent.update(TEXTS, LANGUAGES)
    right.update(TEXTS, GOLDS, LANGUAGES)
    # German: one of three is right and German; two of three are German, two of three right.
    assert computed(both) == pytest.approx(
        {"lc_acc": (1 / 3 + 1 / 2) / 2, "lc_acc/de": 1 / 3, "lc_acc/th": 1 / 2}, abs=EXACT
    )
    product = computed(consistent)["lc/de"] * computed(right)["acc/de"]
    assert product == pytest.approx(4 / 9, abs=EXACT) != computed(both)["lc_acc/de"]


def test_many_updates_equal_one(script):
    once, often = LcAcc(["de", "th"], detector=script), LcAcc(["de", "th"], detector=script)
    once.update(TEXTS, GOLDS, LANGUAGES)
    for item in zip(TEXTS, GOLDS, LANGUAGES, strict=True):
        often.update(*[[part] for part in item])
    assert computed(once) == computed(often)


def test_unequal_lengths_are_refused(script):
    with pytest.raises(ValueError, match="shorter"):
        LanguageConsistency(["de"], detector=script).update(["a", "b"], ["de"])


def test_a_right_answer_in_a_text_of_maths_alone_counts(script):
    metric = LcAcc(["th"], detector=script)
    metric.update([r"\[ 2 + 3 = \boxed{5} \]", ""], ["5", "5"], ["th", "th"])
    assert computed(metric)["lc_acc"] == 0.5
