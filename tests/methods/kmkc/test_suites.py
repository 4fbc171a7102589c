"""What the suite measures, with scripted answers, and what its questions back to the model are.

Sabotages that were tried and that these tests catch: the temperature fitted on the measured items, the threshold with
the wrong side, groups of held-out items.
"""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from tests.assembled import suite_of
from tests.methods.kmkc.made import question
from tests.tolerances import EXACT

from athlos.config.compose import run_config
from athlos.errors import ConfigError
from athlos.evaluation.calibration import ece_mass, fit_temperature, scaled, self_knowledge
from athlos.evaluation.config import CalibrationConfig
from athlos.evaluation.suite import SuiteResult
from athlos.evaluation.suites.calibration import add_calibration, is_held_out
from athlos.generation.interface import Prediction
from athlos.methods.kmkc import suites
from athlos.methods.kmkc.config import ConfidenceKind
from athlos.methods.kmkc.suites import is_refusal, read_percent

SHARE = 0.4
RECORDS = [question(f"q{number}", group="even" if number % 2 == 0 else "odd") for number in range(60)]
HELD = np.array([is_held_out(record, SHARE) for record in RECORDS])
CONF = np.linspace(0.2, 0.95, 60)
RIGHT = np.array([float(number % 3 > 0) for number in range(60)])


def measured(correct: np.ndarray, **changes: Any) -> SuiteResult:
    result = SuiteResult()
    values: dict[str, Any] = {"num_bins": 15, "held_out": SHARE, "by": "group", **changes}
    run: Any = SimpleNamespace(eval=SimpleNamespace(bootstrap=0))
    config = CalibrationConfig(_target_="", **values)
    add_calibration(result, config, run=run, records=RECORDS, conf=CONF.tolist(), correct=correct.tolist())
    return result


def test_facts_are_held_out_whole_and_about_as_many_as_asked() -> None:
    assert 10 < HELD.sum() < 40
    assert not any(is_held_out(record, 0.0) for record in RECORDS)
    assert is_held_out(question("x", fact="q1"), SHARE) == HELD[1]


def test_the_temperature_comes_from_held_out_items_and_measures_from_the_others() -> None:
    result = measured(RIGHT)
    temperature = fit_temperature(CONF[HELD], RIGHT[HELD])
    assert result.metrics["temperature"] == pytest.approx(temperature, abs=EXACT)
    assert result.metrics["ece_mass"] == pytest.approx(ece_mass(CONF[~HELD], RIGHT[~HELD]), abs=EXACT)
    expected = ece_mass(scaled(CONF[~HELD], temperature), RIGHT[~HELD])
    assert result.metrics["ece_mass_scaled"] == pytest.approx(expected, abs=EXACT)
    # Nothing of a measured item is in the temperature, and nothing of a held-out one in a measure.
    other = measured(np.where(HELD, RIGHT, 1 - RIGHT))
    assert other.metrics["temperature"] == result.metrics["temperature"]
    other = measured(np.where(HELD, 1 - RIGHT, RIGHT))
    assert other.metrics["ece_mass"] == result.metrics["ece_mass"]
    assert "auroc_scaled" not in result.metrics  # scaling changes no order


def test_groups_have_means_of_their_own() -> None:
    result = measured(RIGHT)
    even = np.array([number % 2 == 0 for number in range(60)]) & ~HELD
    assert result.metrics["acc_even"] == pytest.approx(RIGHT[even].mean(), abs=EXACT)
    assert result.metrics["conf_even"] == pytest.approx(CONF[even].mean(), abs=EXACT)
    assert "temperature" not in measured(RIGHT, held_out=0.0).metrics
    assert "ece_mass@10" in measured(RIGHT, num_bins=10).metrics
    assert "ece_mass_scaled@10" in measured(RIGHT, num_bins=10).metrics


def test_points_of_the_diagram_are_metrics_and_a_figure() -> None:
    result = measured(RIGHT)
    count = sum(result.metrics[f"reliability/{index}/n"] for index in range(15))
    assert count == (~HELD).sum()
    assert "reliability_scaled/0/accuracy" in result.metrics
    assert result.figures["reliability"].startswith(b"\x89PNG")


def test_nothing_left_to_measure_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"held_out=0.999999 leaves none of 60 items to measure"):
        measured(RIGHT, held_out=0.999999)


class Answers:
    """Says one text to every request and keeps the prompts."""

    def __init__(self, text: str) -> None:
        self.text, self.prompts = text, []  # type: ignore[var-annotated]

    def answer(self, requests: Any, *, progress: Any = None) -> list[Prediction]:
        self.prompts += [request.prompt for request in requests]
        return [
            Prediction(
                identifier=request.identifier,
                text=self.text,
                num_prompt_tokens=1,
                num_tokens=1,
                log_prob=-0.5,
                finished=True,
            )
            for request in requests
        ]


def test_a_model_is_asked_how_sure_it_is() -> None:
    model: Any = Answers(" 80%")
    pairs = [(RECORDS[0], "Lyon")]
    assert suites._verbalised(model, pairs) == [0.8]
    assert "Proposed answer: Lyon" in model.prompts[0]
    assert "Paris" not in model.prompts[0]


@pytest.mark.parametrize(
    ("text", "expected"), [("80", 0.8), ("I am 99.5 % sure", 0.995), ("0", 0.0), ("101", None), ("very", None)]
)
def test_a_number_is_read_or_undefined(text: str, expected: float | None) -> None:
    found = read_percent(text)
    assert math.isnan(found) if expected is None else found == expected


def test_true_against_false_is_a_probability() -> None:
    class Engine(suites.OpenAIEngine):
        def __init__(self) -> None:
            pass

        def first_token_probs(self, prompts: Any, *, options: Any) -> list[list[float]]:
            assert options == ("yes", "no")
            assert "Proposed answer: Lyon" in prompts[0].text
            return [[0.3, 0.1], [0.0, 0.0]]

    answerer: Any = SimpleNamespace(engine=Engine())
    found = suites._probabilities_of_true(answerer, [(RECORDS[0], "Lyon"), (RECORDS[1], "Nice")])
    assert found[0] == pytest.approx(0.75, abs=EXACT)
    assert math.isnan(found[1])


@pytest.mark.parametrize(
    ("text", "expected"), [("I do not know.", True), ("I don't know", True), ("Paris", False), ("knowledge", False)]
)
def test_refusals_are_recognised(text: str, expected: bool) -> None:
    assert is_refusal(text) is expected


def test_refusal_by_prompt_asks_again_and_by_threshold_looks_at_confidence() -> None:
    config = run_config(
        [
            "data=world_questions",
            "data.dir=x",
            "eval=kmkc",
            "prompt_style=closed_book",
            "eval.suites.kmkc.refusal=prompt",
        ]
    )
    suite: Any = suite_of(config)
    profiles: Any = [SimpleNamespace(acc=float(number % 3 > 0)) for number in range(60)]
    requests = [SimpleNamespace(identifier="q", prompt="Q", record=record, seed=0, stop=[]) for record in RECORDS]
    asked: Any = SimpleNamespace(requests=requests)
    model: Any = Answers("I do not know")
    result = SuiteResult()
    answered = suite._add_self_knowledge(result, model, asked, CONF, RIGHT, profiles, HELD)
    assert not answered.any()
    assert model.prompts[0].startswith("If you do not know the answer")
    suite.config.refusal = suites.Refusal.threshold
    result = SuiteResult()
    answered = suite._add_self_knowledge(result, model, asked, CONF, RIGHT, profiles, HELD)
    threshold = result.metrics["refusal_threshold"]
    assert threshold in CONF[HELD]
    assert (answered == (threshold <= CONF)).all()
    expected = self_knowledge((threshold <= CONF)[~HELD], RIGHT[~HELD], RIGHT[~HELD])
    assert {name: result.metrics[name] for name in expected} == pytest.approx(expected, abs=EXACT, nan_ok=True)
    # A question without a confidence is refused.
    unsure = np.where(np.arange(60) == 0, np.nan, CONF)
    assert not suite._add_self_knowledge(SuiteResult(), model, asked, unsure, RIGHT, profiles, HELD)[0]


def test_majority_is_the_share_of_the_commonest_answer() -> None:
    config = run_config(["data=lab_facts", "eval=kmkc", "prompt_style=bare", "eval.suites.kmkc.confidence=majority"])
    suite: Any = suite_of(config)
    assert suite.config.confidence is ConfidenceKind.majority
    profiles: Any = [SimpleNamespace(kappa=0.25)]
    asked: Any = SimpleNamespace()
    assert suite._confidences(None, asked, profiles) == [0.25]
