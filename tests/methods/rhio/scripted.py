"""Questions over two documents, heads with known scores, and a model that says what a test wants."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.assembled import loaded
from tests.generation.tiny_models import tiny

from athlos.config.compose import run_config
from athlos.data.records import Passage, QuestionRecord
from athlos.generation.interface import Sample
from athlos.models.head_scores import HeadRun, HeadScores
from athlos.models.tokenizers import byte_tokenizer
from athlos.parts import PartContext
from athlos.stages import StageStore

SCORES = [[0.0, 0.9, 0.05, 0.1], [0.3, 0.0, 0.8, 0.0]]
"""Of two layers with four heads: 0-1, 1-2, 1-0, 0-3 are the best."""
LAB = ["experiment=rhio/lab", "model=lab/tiny", "eval.bootstrap=0"]


def question(number: int) -> QuestionRecord:
    sentences = [f"Item {number} is in box {number}.", "Nobody looks there."]
    return QuestionRecord(
        identifier=f"q{number}",
        question=f"Where is item {number}?",
        answers=[f"box {number}"],
        passages=[
            Passage(title="a", text=" ".join(sentences), sentences=sentences),
            Passage(title="b", text="Boxes are red.", sentences=["Boxes are red."]),
        ],
        supporting_facts=[("a", 0)],
    )


def sample(text: str) -> Sample:
    return Sample(text=text, token_ids=[], log_probs=[], num_tokens=1, num_prompt_tokens=1, finished=True)


def scores_of(*_: Any, **__: Any) -> Any:
    """What `detected` returns."""
    run = HeadRun(length=8, depth=0.0, needle=0, recall=100.0, scores_LH=SCORES)
    return HeadScores(kept=[run, run], dropped=[]), SimpleNamespace(path=Path("heads"), key="key of heads")


def context_of(folder: Path, *overrides: str, records: list[Any], **more: Any) -> PartContext:
    source = SimpleNamespace(fingerprint=lambda split: "data")
    data: Any = SimpleNamespace(
        records=lambda split: iter(records), source=source, limit=lambda split: None, test_split="test"
    )
    return PartContext(
        config=run_config([*LAB, *overrides]),
        stages=StageStore(folder / "cache"),
        data=data,
        start=loaded(tiny(seed=1), byte_tokenizer()),
        **more,
    )
