"""RHIO's decoding and module in the stacks of other methods, on a tiny model that has both control tokens."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.data.sources.test_questions import musique_row
from tests.generation.tiny_models import SIZES
from transformers import LlamaConfig, LlamaForCausalLM

from athlos.config.compose import run_config
from athlos.errors import ConfigErrors
from athlos.models.control_tokens import add_control_tokens
from athlos.models.tokenizers import byte_tokenizer
from athlos.runs.execute import execute

Run = Callable[..., tuple[int, str, str]]
REMOTE = ["generator=openai", "generator.model=x", "generator.base_url=http://127.0.0.1:9/v1"]
STRONG = ["decoding.alpha=3", "decoding.plausibility=0"]


@pytest.fixture
def told(tmp_path: Path) -> str:
    """Folder of a model of random weights to which the two tokens say different things; it reads bytes."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = LlamaForCausalLM(LlamaConfig(**{**SIZES, "max_position_embeddings": 4096}, num_hidden_layers=2))
        tokenizer = byte_tokenizer()
        ids = add_control_tokens(model, tokenizer)
        with torch.no_grad():
            model.get_input_embeddings().weight[list(ids)] = torch.randn(2, 48)
    model.save_pretrained(tmp_path / "told")
    tokenizer.save_pretrained(tmp_path / "told")
    return f"dir:{tmp_path / 'told'}"


def rows_of(folder: Path, suite: str) -> list[dict[str, Any]]:
    text = (folder / "predictions" / f"{suite}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.slow
def test_a_model_that_start_tuned_answers_by_sid(told: str, tmp_path: Path, cache: Path) -> None:
    """START keeps the tokens of the model that it tunes, so the contrast changes its answers."""
    start = [
        *("experiment=start/lab", "model=own", f"model.source={told}", "tracking=none", "progress=false"),
        *("data.num_train=4", "data.num_test=2", "construct.warmup.num_queries=4", "method.iterations=0"),
        *("train.max_steps=1", "train.batch_size=2", "train.micro_batch_size=2", "train.max_length=2048"),
        *("eval.bootstrap=0", "decoding.max_new_tokens=12", f"results_dir={tmp_path / 'results'}"),
    ]
    texts = {}
    for name in (["decoding=greedy"], ["decoding=sid_greedy", *STRONG]):
        folder = execute(run_config([*start, *name]))
        texts[name[0]] = [row["prediction"] for row in rows_of(folder, "grounded")]
    assert len(list(cache.glob("training/*/stage.json"))) == 1, "both rules ask one training"
    assert texts["decoding=greedy"] != texts["decoding=sid_greedy"]


def test_the_reader_of_dapt_answers_by_sid(told: str, tmp_path: Path, cache: Path) -> None:
    (tmp_path / "questions.jsonl").write_text(json.dumps(musique_row()) + "\n", encoding="utf-8")
    dapt = [
        *("experiment=dapt/musique", "model=own", f"model.source={told}", f"data.dir={tmp_path}"),
        *("data.files={dev: questions.jsonl}", "method.max_new_tokens=32", "tracking=none", "eval.bootstrap=0"),
        f"results_dir={tmp_path / 'results'}",
    ]
    replies = set()
    for decoding in (["greedy"], ["sid_greedy", "decoding.alpha=0"], ["sid_greedy", *STRONG]):
        [row] = rows_of(execute(run_config([*dapt, f"decoding={decoding[0]}", *decoding[1:]])), "chains")
        replies.add(next(step["reply"] for step in row["trace"] if step["purpose"] == "read"))
    assert len(replies) == 3, "plain, behind [POS], and against [NEG]"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["decoding=sid"], "asks for the most probable answer; decoding=sid_greedy"),
        (["decoding=sid_greedy", *REMOTE], "use generator=self engine=native"),
        (["decoding=cad"], "got CadConfig, but a pipeline asks for the most probable answer"),
    ],
)
def test_rules_that_a_pipeline_cannot_follow(told: str, change: list[str], message: str) -> None:
    with pytest.raises(ConfigErrors) as error:
        run_config(["experiment=dapt/lab", "model=own", f"model.source={told}", *change])
    assert message in str(error.value)


def test_ask_shows_an_answer_of_rhio_with_its_marks(told: str, tmp_path: Path, cache: Path, run: Run) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "rome.md").write_text("# Rome\nThe mayor of Rome is Livia Carta.\n", encoding="utf-8")
    code, out, error = run(
        *("ask", "Who is the mayor of Rome?", "method=rhio", "corpus=files", f"corpus.path={notes}", "model=own"),
        *(f"model.source={told}", "decoding=sid_greedy", "decoding.max_new_tokens=8"),
    )
    assert code == 0, error
    lines = out.splitlines()
    assert any(line.startswith("answer ") for line in lines)
    assert any("supported by" in line for line in lines), out
    assert any(line.startswith("judge      lexical") for line in lines)
    assert any(line.startswith("sources    rome.md#1") for line in lines)
