"""What the paper of ClueAnchor claims, and the bars of our lab study. No result table of the paper is confirmed."""

from collections.abc import Mapping
from typing import Any

from athlos.config.claims import Claim, Compare, Comparison, Direction, Measure, Tag

LAB = {"study": "clueanchor_lab"}
TABLE = {
    "objective.kind": "dpo",
    "construct.select.selector": "code_table",
    "construct.explore.paths": ["internal", "external", "clue"],
    "construct.explore.clue_source": "gold",
    "construct.explore.verify_gate": True,
    "train.max_steps": 40,
    "train.lr": 1.0e-4,
}
VANILLA = {"train.max_steps": 0}
SFT = TABLE | {"objective.kind": "sft_chosen"}
DDR = TABLE | {
    "construct.select.selector": "ddr",
    "construct.explore.paths": ["internal", "external"],
    "construct.explore.clue_source": "none",
    "construct.explore.num_draws": 5,
}
ABSTRACT = "abstract; its result tables are not confirmed"


def _arms(label: str, metric: str, against: Mapping[str, Any]) -> Comparison:
    return Comparison(
        label=label,
        ours=Measure(metric=metric, where=TABLE),
        against=Measure(metric=metric, where=against),
        compare=Compare.DIFFERENCE,
        direction=Direction.UP,
        where=LAB,
        varies=("objective", "construct", "train"),
    )


CLAIMS = (
    Claim(
        id="clueanchor.main",
        text="ClueAnchor above vanilla RAG and above RAG-DDR in accuracy",
        source=ABSTRACT,
        tag=Tag.PAPER,
        comparisons=(
            _arms("ClueAnchor - vanilla RAG", "test/acc", VANILLA),
            _arms("ClueAnchor - RAG-DDR", "test/acc", DDR),
        ),
    ),
    Claim(
        id="clueanchor.noise",
        text="the gain over vanilla RAG stands, and grows, as distractors take the place of evidence",
        source=ABSTRACT,
        tag=Tag.PAPER,
        comparisons=(
            _arms("ClueAnchor - vanilla RAG, no distractors", "test/acc@noise0", VANILLA),
            _arms("ClueAnchor - vanilla RAG, half", "test/acc@noise50", VANILLA),
            _arms("ClueAnchor - vanilla RAG, three quarters", "test/acc@noise75", VANILLA),
        ),
    ),
    Claim(
        id="clueanchor.noclue",
        text="the trained model finds the evidence without a clue in its prompt",
        source=ABSTRACT,
        tag=Tag.PAPER,
        comparisons=(_arms("gold sentences in the thought, ClueAnchor - vanilla RAG", "test/clue_overlap", VANILLA),),
    ),
    Claim(
        id="clueanchor.lab.sft",
        text="preferring is worth more than imitating the chosen replies",
        source="section 8 of our specification",
        tag=Tag.OURS,
        comparisons=(_arms("ClueAnchor - SFT on the chosen replies", "test/acc", SFT),),
    ),
    Claim(
        id="clueanchor.paper",
        text="Llama-3.1-8B and Qwen2.5-7B on HotpotQA, NQ, SQuAD, TriviaQA and 2WikiMultihopQA",
        source="official code; no number is confirmed",
        tag=Tag.CODE,
        needs="models of 7 and 8 B parameters, five data sets with a retriever over Wikipedia: GPUs",
    ),
)
