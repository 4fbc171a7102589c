"""Whole runs of START on a tiny model: a warm-up, imitation from the base, preference, and the suite after each."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.assembled import ready_to_train

from athlos.config.compose import run_config
from athlos.data.source import build_source
from athlos.generation.interface import Sample
from athlos.methods.start import samples as sampling
from athlos.runs import assemble, chain
from athlos.stages import StageStore, cache_dir
from athlos.text.prompts import build_prompt

LAB = [
    "experiment=start/lab",
    "model=lab/tiny",
    "tracking=none",
    "progress=false",
    "data.num_train=8",
    "data.num_test=2",
    "construct.warmup.num_queries=8",
    "construct.sample.num_queries=4",
    "construct.sample.num_samples=4",
    "train.max_steps=2",
    "train.batch_size=2",
    "train.micro_batch_size=2",
    "method.iterations=1",
    "method.rft.steps=2",
    "method.preference.steps=2",
    "method.preference.batch_size=2",
    "decoding.max_new_tokens=12",
    "eval.bootstrap=0",
]


def test_the_warm_up_trains_on_cited_answers_of_the_lab(cache: Path):
    assembly = ready_to_train(run_config(LAB))
    context = assembly.context
    assert context.made is not None
    records = list(context.made.records or [])
    assert records
    tokenizer, rows = context.tokenizer, context.data.rows("train")  # type: ignore[union-attr]
    _, labels = rows.row(0)
    told = tokenizer.decode(labels[labels != -100][:-1])
    assert told.strip() in {record.answer for record in records}  # type: ignore[attr-defined]
    assert "[" in told


class Taught:
    """Stands for weights that half know how to cite: of four answers one is right, one leaves out, two cite wrongly."""

    def __init__(self, run: Any) -> None:
        self.records = {
            build_prompt(record, shots=(), style=run.prompt_style): record
            for record in build_source(run).records("train")
        }

    def generate(self, prompts: Any, **_: Any) -> list[list[Sample]]:
        return [[self._sample(text) for text in self._answers(prompt.text)] for prompt in prompts]

    def _answers(self, prompt: str) -> list[str]:
        record: Any = next(record for asked, record in self.records.items() if record.question in prompt)
        first = record.answer.partition(".")[0] + "."
        return [record.answer, first, first.replace("[", "[9"), record.claims[0].text]

    def _sample(self, text: str) -> Sample:
        return Sample(text=text, token_ids=[], log_probs=[], num_tokens=9, num_prompt_tokens=9, finished=True)


@pytest.mark.slow
def test_a_run_warms_up_imitates_from_the_base_and_prefers(
    cache: Path, run: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
):
    config = run_config(LAB)
    taught = Taught(config)
    monkeypatch.setattr(sampling, "own_engine", lambda context: taught)
    code, out, error = run("run", *LAB, f"results_dir={cache.parent / 'results'}")
    assert code == 0, error
    folder = Path(out.splitlines()[-1])
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["construct/pass_rate@1"] == 0.5
    assert metrics["construct/pairs_attr@1"] == metrics["construct/pairs_comp@1"] == 4
    for phase in ("", "@warmup", "@rft-1"):
        assert f"test/cite_f1@reward_judge{phase}" in metrics
    assert "reward/prefer-1/margin" in (folder / "events" / "metrics.jsonl").read_text()
    made = {path.name for path in cache.rglob("training/*/made/*")}
    assert made == {"warmup.jsonl", "synth_report.json", "samples_1.jsonl", "pairs_1.jsonl"}
    stages = [json.loads(path.read_text()) for path in cache.glob("training/*/stage.json")]
    starts = {stage["inputs"]["start"] for stage in stages}
    assert len(starts) == 2, "warm-up and imitation start from the base, preference from imitation"
    assert sum("made_by" in stage["inputs"] for stage in stages) == 2


def test_post_hoc_citations_are_of_the_answers_alone(cache: Path, monkeypatch: pytest.MonkeyPatch):
    from athlos.generation.interface import Prediction, Request

    config = run_config([*LAB, "method.attach=best_match", "train.max_steps=0"])
    stages = StageStore(cache_dir(config.cache_dir))
    start = assemble.load(config, chain.start_of(config, stages=stages).model, stages=stages)
    module: Any = assemble.for_evaluation(config, start, applies_surgery=False, load_base=None, stages=stages).module
    record: Any = next(iter(build_source(config).records("test")))
    told = Prediction(
        identifier="q", text=record.claims[0].text, num_prompt_tokens=1, num_tokens=1, log_prob=0.0, finished=True
    )
    monkeypatch.setattr(type(module.decoding), "answer", lambda *_, **__: [told])
    [answer] = module.answer([Request(identifier="q", prompt="", record=record)])
    assert answer.text.startswith(record.claims[0].text[:-1] + " [")
