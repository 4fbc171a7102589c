"""What the paper of RHIO claims, and the predictions of our own studies.

Each run of the lab also tests what plain tuning alone gave, by the run's decoding rule (`@sft`).
"""

from collections.abc import Mapping
from typing import Any

from athlos.config.claims import Claim, Compare, Comparison, Direction, Measure, Tag

LAB = {"study": "rhio_lab"}
ARMS = ("decoding.", "construct.", "method.", "objective.")
FAITH, DOWN = "test/faith", Direction.DOWN
SID = {"decoding._target_": "athlos.generation.contrastive_decoding.Sid", "decoding.alpha": 0.2}
PLAIN = {**SID, "decoding.alpha": 0.0}
OWN = {"construct.negatives.source": "retrieval_mask"}
CONTROL = {"objective._target_": "athlos.objectives.control.ControlObjective", "method.fat.enabled": True}
FAT, WHOLE = {**CONTROL, **OWN, **PLAIN}, {**CONTROL, **OWN, **SID}
SFT = {"method.fat.enabled": False}
CAD = {**CONTROL, **OWN, "decoding._target_": "athlos.generation.contrastive_decoding.Cad"}
GPUS = "7 or 13 billion parameters and the five sets of GroundBench: GPUs"


def _compared(label: str, ours: Mapping[str, Any], against: Mapping[str, Any], **where: Any) -> Comparison:
    return Comparison(
        label=label,
        ours=Measure(metric=FAITH, where=ours),
        against=Measure(metric=FAITH, where=against),
        compare=Compare.DIFFERENCE,
        direction=Direction.UP,
        where={**LAB, **where},
        varies=ARMS,
    )


def _masked(study: str, metric: str, count: int) -> Comparison:
    """What random heads cost less than the best ones: a metric of the same run."""
    return Comparison(
        label=f"{study}, {metric} without {count} heads: retrieval - random",
        ours=Measure(metric=f"test/{metric}@mask{count}_retrieval", where={}),
        against=Measure(metric=f"test/{metric}@mask{count}_random", where={}),
        compare=Compare.DIFFERENCE,
        direction=DOWN,
        where={"study": study, "eval.suites.heads.detect.mode": "forced"},
    )


CLAIMS = (
    Claim(
        id="rhio.main7",
        text="RHIO is more faithful than plain tuning: mean of GroundBench 72.98 -> 82.35, Llama-2-7B",
        paper=9.37,
        unit="points",
        source="main table",
        tag=Tag.NOTE,
        comparisons=(_compared("lab, FAT + SID - SFT of as many steps", WHOLE, SFT),),
    ),
    Claim(
        id="rhio.main13",
        text="the same of Llama-2-13B: 74.40 -> 83.77",
        paper=9.37,
        unit="points",
        source="main table",
        tag=Tag.NOTE,
        needs=GPUS,
    ),
    Claim(
        id="rhio.gpt4o",
        text="RHIO of 7B is as faithful as GPT-4o: 82.33 -> 82.35",
        paper=0.02,
        unit="points",
        source="main table; the abstract says outperforms",
        tag=Tag.NOTE,
        needs=GPUS,
    ),
    Claim(
        id="rhio.sid7",
        text="self-induced decoding adds: 80.03 -> 82.35",
        paper=2.32,
        unit="points",
        source="ablation",
        tag=Tag.NOTE,
        comparisons=(_compared("lab, FAT + SID - FAT", WHOLE, FAT),),
    ),
    Claim(
        id="rhio.sid13",
        text="the same of 13B: 80.42 -> 83.77",
        paper=3.35,
        unit="points",
        source="ablation",
        tag=Tag.NOTE,
        needs=GPUS,
    ),
    Claim(
        id="rhio.human",
        text="people find answers of 13B as fully supported as those of GPT-4o: 86.5 -> 87.5",
        paper=1.0,
        unit="points",
        source="human table",
        tag=Tag.NOTE,
        needs="people who read answers",
    ),
    Claim(
        id="rhio.mask",
        text="the more retrieval heads are silent, the less faithful the answers",
        source="pilot figure; the abstract says salient correlation",
        tag=Tag.NOTE,
        comparisons=(
            _masked("rhio_lab_heads", "faith", 3),
            _masked("rhio_heads_smollm2", "needle", 20),
            _masked("rhio_heads_smollm2", "f1", 20),
        ),
    ),
    Claim(
        id="rhio.neg",
        text="negatives without retrieval heads beat other negatives",
        source="analysis",
        tag=Tag.NOTE,
        comparisons=tuple(
            _compared(
                f"lab, retrieval heads - {source.replace('_', ' ')}",
                WHOLE,
                {**CONTROL, **SID, "construct.negatives.source": source},
            )
            for source in ("random_mask", "entity_swap", "relation_perturb", "prompt")
        ),
    ),
    Claim(
        id="rhio.cad",
        text="self-induced decoding is slightly more faithful than context-aware decoding",
        source="analysis",
        tag=Tag.NOTE,
        comparisons=(_compared("lab, FAT + SID - FAT + CAD", WHOLE, CAD),),
    ),
)
