"""The suite of the lab world's dials: what counts as right, which numbers it gives, and its figure."""

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tests.assembled import suite_of

from athlos.config.compose import run_config
from athlos.config.schema import RunConfig
from athlos.data.records import Passage, QuestionRecord, TextRecord
from athlos.errors import ConfigError
from athlos.evaluation.evaluate import base_evaluation, named
from athlos.evaluation.suite import Suite, SuiteResult
from athlos.evaluation.suites.premises import figure, is_right
from athlos.generation.interface import Prediction
from athlos.stages import StageStore

GOLD = "Mero"


class Scripted:
    """Answers each record with what `wrong` does not hold the identifier of: its gold answer, else nonsense."""

    model = torch.nn.Linear(1, 1)
    tokenizer = engine = None

    def __init__(self, wrong: set[str] = frozenset()) -> None:
        self.wrong = wrong
        self.prompts: dict[str, str] = {}
        self.num_calls = 0

    def answer(self, requests, *, progress=None):
        self.num_calls += 1
        self.prompts |= {request.identifier: request.prompt for request in requests}
        return [
            Prediction(
                identifier=request.identifier,
                text=" nonsense" if request.identifier in self.wrong else f" {request.record.answers[0]}\nand more",
                num_prompt_tokens=3,
                num_tokens=2,
                log_prob=-1.0,
                finished=True,
            )
            for request in requests
        ]


def probe(kind: str, dial: str, language: str, index: int = 0) -> QuestionRecord:
    answer = f"{index + 1} + 2 = {index + 3} kofi. Zuko teke {index + 3} kofi." if kind == "sum" else GOLD
    passages = [Passage(title="", text="A B C.", is_supporting=True)] if kind == "document" else []
    return QuestionRecord(
        identifier=f"{kind}-{dial}-{index}-{language}",
        language=language,
        question="who?",
        answers=[answer],
        passages=passages,
        meta={"kind": kind, "dial": dial},
    )


SETTINGS = {
    "fact": ("none", "rare", "frequent", "background"),
    "document": ("1", "2"),
    "sum": ("1", "2"),
    "chain": ("2", "3"),
}
PROBES = [
    probe(kind, dial, language, index)
    for kind, dials in SETTINGS.items()
    for dial in dials
    for language in (("latn",) if kind == "chain" else ("latn", "hani"))
    for index in range(2)
]
WRONG = {
    "fact-none-0-latn",
    "fact-none-1-latn",
    "fact-none-0-hani",
    "fact-none-1-hani",
    "fact-rare-0-hani",
    "chain-3-0-latn",
    "sum-2-1-latn",
    "document-2-0-hani",
}


def config(*overrides: str) -> RunConfig:
    lab = ["data=lab", "prompt_style=bare", "eval=premises", "train.max_steps=0", "eval.bootstrap=50"]
    return run_config([*lab, *overrides])


def suite(*overrides: str) -> Suite:
    return suite_of(config(*overrides))


def evaluated(records=PROBES, *, wrong: set[str] = WRONG) -> SuiteResult:
    return suite().evaluate(Scripted(wrong), records)


@pytest.mark.parametrize(
    ("answer", "gold", "kind", "expected"),
    [
        ("Mero", "Mero", "fact", True),
        (" Mero ", "Mero", "chain", True),
        ("mero", "Mero", "fact", False),
        ("Mero Mero", "Mero", "document", False),
        ("", "Mero", "fact", False),
        ("3 + 4 = 7 a. B c 7 a.", "3 + 4 = 7 x. B c 7 x.", "sum", True),
        ("9 + 9 = 1 a. B c 7 a.", "3 + 4 = 7 a. B c 7 a.", "sum", True),
        ("3 + 4 = 7 a. B c 8 a.", "3 + 4 = 7 a. B c 7 a.", "sum", False),
        ("7", "B c 7 a.", "sum", True),
        ("17", "B c 7 a.", "sum", False),
        ("no number", "B c 7 a.", "sum", False),
        ("", "B c 7 a.", "sum", False),
    ],
)
def test_what_is_right(answer: str, gold: str, kind: str, expected: bool) -> None:
    assert is_right(answer, gold, kind=kind) is expected


def test_metrics_by_kind_setting_and_language() -> None:
    metrics = evaluated().metrics
    expected = {
        "acc_fact_none": 0.0,
        "acc_fact_rare": 0.75,
        "acc_fact_rare/latn": 1.0,
        "acc_fact_rare/hani": 0.5,
        "acc_fact_frequent": 1.0,
        "acc_fact_background": 1.0,
        "acc_fact": 11 / 16,
        "acc_fact/latn": 0.75,
        "acc_fact/hani": 0.625,
        "acc_document": 0.875,
        "acc_document_2": 0.75,
        "acc_sum_1": 1.0,
        "acc_sum_2": 0.75,
        "acc_sum_2/latn": 0.5,
        "acc_chain_2": 1.0,
        "acc_chain_3": 0.5,
        "acc_chain_3/latn": 0.5,
        "acc_chain": 0.75,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    plain = {name for name in metrics if "/" not in name}
    assert plain == {f"acc_{kind}" for kind in SETTINGS} | {
        f"acc_{kind}_{dial}" for kind, dials in SETTINGS.items() for dial in dials
    }
    assert {name for name in metrics if "/" in name} == {
        f"{name}/{language}"
        for name in plain
        for language in (("latn",) if name.startswith("acc_chain") else ("latn", "hani"))
    }


def test_rows_and_details() -> None:
    result = evaluated()
    rows = {row["id"]: row for row in result.predictions}
    assert len(rows) == len(PROBES)
    assert {identifier for identifier, row in rows.items() if not row["acc"]} == WRONG
    row = rows["fact-rare-1-latn"]
    assert (row["kind"], row["dial"], row["gold"], row["prediction"], row["language"]) == (
        "fact",
        "rare",
        GOLD,
        GOLD,
        "latn",
    )
    assert set(result.details) == set(result.metrics)
    assert result.details["acc_fact_rare"].n == 4
    half = result.details["acc_fact_rare/hani"]
    assert half.low is not None
    assert half.high is not None
    assert 0 <= half.low <= 0.5 <= half.high <= 1
    json.dumps(result.predictions, allow_nan=False)


def test_prompts_are_running_text() -> None:
    answerer = Scripted()
    suite().evaluate(answerer, PROBES)
    assert answerer.prompts["fact-rare-0-latn"] == "who?"
    assert answerer.prompts["document-1-0-latn"] == "A B C. who?"
    assert answerer.prompts["document-1-0-hani"] == "A B C.who?"


@pytest.mark.parametrize(
    "record",
    [
        QuestionRecord(identifier="a", language="en", question="who?", answers=["x"]),
        TextRecord(identifier="b", language="latn", text="x", meta={"kind": "statement", "dial": "rare"}),
        QuestionRecord(identifier="c", language="latn", question="", answers=["x"], meta={"kind": "recital"}),
    ],
    ids=["another source", "statement", "recital"],
)
def test_records_that_are_no_probes_are_refused(record) -> None:
    with pytest.raises(ConfigError, match="premises needs the probes of data=lab"):
        evaluated([*PROBES, record])


# the figure


def picture(png: bytes) -> np.ndarray:
    image = Image.open(io.BytesIO(png))
    image.load()
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"))


def test_the_figure_is_a_png_with_lines_of_each_language() -> None:
    result = evaluated()
    assert list(result.figures) == ["premises"]
    pixels = picture(result.figures["premises"])
    height, width, _ = pixels.shape
    assert width >= 800
    assert height >= 500
    colours = {tuple(int(value) for value in colour) for colour in np.unique(pixels.reshape(-1, 3), axis=0)}
    assert {(0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)} <= colours
    for rows in (slice(0, height // 2), slice(height // 2, height)):
        for columns in (slice(0, width // 2), slice(width // 2, width)):
            panel = pixels[rows, columns].reshape(-1, 3)
            assert (panel == (0x00, 0x72, 0xB2)).all(axis=1).sum() > 50


def test_the_figure_shows_the_values() -> None:
    assert evaluated().figures["premises"] == evaluated().figures["premises"]
    assert evaluated().figures["premises"] != evaluated(wrong=set()).figures["premises"]


@pytest.mark.parametrize("kinds", [("sum",), ("fact",), ("chain",), ("document", "sum")])
def test_a_part_of_the_probes_gives_a_figure_too(kinds: tuple[str, ...]) -> None:
    some = [record for record in PROBES if record.meta["kind"] in kinds]
    assert picture(evaluated(some).figures["premises"]).std() > 1


def test_a_figure_without_any_value_is_drawn() -> None:
    assert picture(figure({}, languages=[], details={})).size > 0


def test_a_figure_without_intervals_is_drawn() -> None:
    result = suite("eval.bootstrap=0").evaluate(Scripted(WRONG), PROBES)
    assert picture(result.figures["premises"]).std() > 1


def test_the_base_evaluation_is_stored_without_figures_and_read_again(tmp_path) -> None:
    data = SimpleNamespace(
        eval_records=lambda split: PROBES,
        shots_pool=list,
        limit=lambda split: None,
        source=SimpleNamespace(fingerprint=lambda split: "text"),
    )
    answerer, stages = Scripted(WRONG), StageStore(tmp_path)

    def measured() -> dict[str, SuiteResult]:
        return base_evaluation(config(), answerer, data, split="test", stages=stages, model_fingerprint="weights")

    first, second = measured(), measured()
    assert [product.reused for product in stages.history] == [False, True]
    assert answerer.num_calls == 1
    assert first == second
    assert first["premises"].figures == {}
    fresh = evaluated()
    assert first["premises"].metrics == fresh.metrics
    assert first["premises"].details == fresh.details
    metrics, _ = named(first, split="test", suffix="_base")
    assert metrics["test/acc_fact_rare_base/hani"] == 0.5
