"""What the paper of ClueAnchor claims, and the bars of our lab study. No result table of the paper is confirmed."""

from collections.abc import Mapping
from typing import Any

from athlos.config.claims import Claim, Compare, Comparison, Direction, Measure, Tag

LAB = {"study": "clueanchor_lab"}
TABLE: dict[str, Any] = {
    "objective.kind": "dpo",
    "construct.select.selector": "code_table",
    "construct.explore.paths": ["internal", "external", "clue"],
    "construct.explore.clue_source": "gold",
    "construct.explore.verify_gate": True,
    "train.max_steps": 40,
    "train.lr": 1.0e-4,
}
VANILLA = {"train.max_steps": 0}
SFT: dict[str, Any] = {"objective.kind": "sft_chosen", "objective.sft_weight": 0.0}
NO_CLUE: dict[str, Any] = {
    "construct.explore.paths": ["internal", "external"],
    "construct.explore.clue_source": "none",
    "construct.explore.num_draws": 1,
}
DDR = NO_CLUE | {"construct.select.selector": "ddr", "construct.explore.num_draws": 5}
LONG = {"study": "clueanchor_lab_long"}
"""The base has read three times as many lessons, so that it follows a clue."""
TUNED = TABLE | {"train.lr": 1.0e-3, "objective.sft_weight": 1.0}
ABSTRACT = "abstract; its result tables are not confirmed"


def _arms(label: str, metric: str, change: Mapping[str, Any] | None = None) -> tuple[Comparison, ...]:
    """ClueAnchor against an arm that differs by `change`, or against vanilla RAG, from both bases."""
    return tuple(
        Comparison(
            label=f"ClueAnchor - {label}{where}",
            ours=Measure(metric=metric, where=ours),
            against=Measure(metric=metric, where=VANILLA if change is None else {**ours, **change}),
            compare=Compare.DIFFERENCE,
            direction=Direction.UP,
            where=study,
            varies=("objective", "construct", "train"),
        )
        for where, ours, study in (("", TABLE, LAB), (", longer base", TUNED, LONG))
    )


CLAIMS = (
    Claim(
        id="clueanchor.main",
        text="ClueAnchor above vanilla RAG and above RAG-DDR in accuracy",
        source=ABSTRACT,
        tag=Tag.PAPER,
        comparisons=(*_arms("vanilla RAG", "test/acc"), *_arms("RAG-DDR", "test/acc", DDR)),
    ),
    Claim(
        id="clueanchor.noise",
        text="the gain over vanilla RAG stands, and grows, as distractors take the place of evidence",
        source=ABSTRACT,
        tag=Tag.PAPER,
        comparisons=(
            *_arms("vanilla RAG, no distractors", "test/acc@noise0"),
            *_arms("vanilla RAG, half", "test/acc@noise50"),
            *_arms("vanilla RAG, three quarters", "test/acc@noise75"),
        ),
    ),
    Claim(
        id="clueanchor.noclue",
        text="the trained model finds the evidence without a clue in its prompt",
        source=ABSTRACT,
        tag=Tag.PAPER,
        comparisons=_arms("vanilla RAG, gold sentences in the thought", "test/clue_overlap"),
    ),
    Claim(
        id="clueanchor.lab.sft",
        text="preferring is worth more than imitating the chosen replies",
        source="section 8 of our specification",
        tag=Tag.OURS,
        comparisons=_arms("SFT on the chosen replies", "test/acc", SFT),
    ),
    Claim(
        id="clueanchor.lab.table",
        text="the table, and the clue path in it, are worth more than any right reply over a wrong one",
        source="section 8 of our specification",
        tag=Tag.OURS,
        comparisons=(
            *_arms("random selector", "test/acc", {"construct.select.selector": "random"}),
            *_arms("the table without a clue path", "test/acc", NO_CLUE),
        ),
    ),
    Claim(
        id="clueanchor.paper",
        text="Llama-3.1-8B and Qwen2.5-7B on HotpotQA, NQ, SQuAD, TriviaQA and 2WikiMultihopQA",
        source="official code; no number is confirmed",
        tag=Tag.CODE,
        needs="models of 7 and 8 B parameters, five data sets with a retriever over Wikipedia: GPUs",
    ),
)
