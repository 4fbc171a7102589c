"""What the paper of RHIO claims, and the predictions of our own studies.

Each run of the lab also tests what plain tuning alone gave, by the run's decoding rule (`@sft`).
"""

from collections.abc import Mapping
from typing import Any

from athlos.config.claims import Claim, Compare, Comparison, Direction, Measure, Tag

LAB, REAL = "rhio_lab", "rhio_clapnq"
FAITH, DOWN = "test/faith", Direction.DOWN
SID = {"decoding._target_": "athlos.generation.contrastive_decoding.Sid", "decoding.alpha": 0.2}
PLAIN = {**SID, "decoding.alpha": 0.0}
CAD = {"decoding._target_": "athlos.generation.contrastive_decoding.Cad"}
GREEDY = {"decoding._target_": "athlos.generation.decoding.Greedy"}
PAIRS = {"objective._target_": "athlos.objectives.control.ControlObjective", "method.fat.enabled": True}
OWN = {**PAIRS, "construct.negatives.source": "retrieval_mask"}
FAT, WHOLE = {**OWN, **PLAIN}, {**OWN, **SID}
SFT = {"method.fat.enabled": False}
GPUS = "7 or 13 billion parameters and the five sets of GroundBench: GPUs"


def _differs(
    label: str,
    ours: Measure,
    against: Measure,
    *,
    where: Mapping[str, Any],
    direction: Direction = Direction.UP,
    varies: tuple[str, ...] = (),
) -> Comparison:
    return Comparison(
        label=label,
        ours=ours,
        against=against,
        compare=Compare.DIFFERENCE,
        direction=direction,
        where=where,
        varies=varies,
    )


def _arms(label: str, ours: Mapping[str, Any], against: Mapping[str, Any], *, study: str = LAB) -> Comparison:
    """Two arms of a study."""
    return _differs(
        f"{'lab' if study == LAB else 'SmolLM2 on CLAP-NQ'}, {label}",
        Measure(metric=FAITH, where=ours),
        Measure(metric=FAITH, where=against),
        varies=("decoding.", "construct.", "method.", "objective."),
        where={"study": study},
    )


def _masked(study: str, metric: str, count: int, *, mode: str = "forced") -> Comparison:
    """What random heads cost less than the best ones: a metric of the same run."""
    return _differs(
        f"{study}, {metric} without {count} heads: retrieval - random",
        Measure(metric=f"test/{metric}@mask{count}_retrieval"),
        Measure(metric=f"test/{metric}@mask{count}_random"),
        direction=DOWN,
        where={"study": study, "eval.suites.heads.detect.mode": mode},
    )


def _claim(
    name: str, text: str, *comparisons: Comparison, source: str, paper: float | None = None, needs: str = ""
) -> Claim:
    """All that is known of the paper's tables is second-hand; its numbers are points of faithfulness."""
    return Claim(
        id=f"rhio.{name}",
        text=text,
        paper=paper,
        unit="" if paper is None else "points",
        source=source,
        tag=Tag.NOTE,
        comparisons=comparisons,
        needs=needs,
    )


CLAIMS = (
    _claim(
        "main7",
        "RHIO is more faithful than plain tuning: mean of GroundBench 72.98 -> 82.35, Llama-2-7B",
        _arms("FAT + SID - SFT of as many steps", WHOLE, {**SFT, **GREEDY}),
        _arms("FAT + SID - SFT of as many steps", WHOLE, {**SFT, **GREEDY, "train.max_steps": 30}, study=REAL),
        source="main table",
        paper=9.37,
    ),
    _claim("main13", "the same of Llama-2-13B: 74.40 -> 83.77", source="main table", paper=9.37, needs=GPUS),
    _claim(
        "gpt4o",
        "RHIO of 7B is as faithful as GPT-4o: 82.33 -> 82.35",
        source="main table; the abstract says outperforms",
        paper=0.02,
        needs=GPUS,
    ),
    _claim(
        "sid7",
        "self-induced decoding adds: 80.03 -> 82.35",
        _arms("FAT + SID - FAT", WHOLE, FAT),
        _arms("FAT + SID - FAT", WHOLE, {**OWN, **GREEDY}, study=REAL),
        source="ablation",
        paper=2.32,
    ),
    _claim("sid13", "the same of 13B: 80.42 -> 83.77", source="ablation", paper=3.35, needs=GPUS),
    _claim(
        "human",
        "people find answers of 13B as fully supported as those of GPT-4o: 86.5 -> 87.5",
        source="human table",
        paper=1.0,
        needs="people who read answers",
    ),
    _claim(
        "mask",
        "the more retrieval heads are silent, the less faithful the answers",
        _masked("rhio_lab_heads", "faith", 3),
        _masked("rhio_heads_smollm2", "faith", 20),
        _masked("rhio_heads_smollm2", "needle", 20),
        _masked("rhio_heads_smollm2", "f1", 20),
        *(_masked("rhio_heads_qwen", metric, 20, mode="generate") for metric in ("faith", "needle", "f1")),
        source="pilot figure; the abstract says salient correlation",
    ),
    _claim(
        "neg",
        "negatives without retrieval heads beat other negatives",
        *(
            _arms(
                f"retrieval heads - {source.replace('_', ' ')}",
                WHOLE,
                {**PAIRS, **SID, "construct.negatives.source": source},
            )
            for source in ("random_mask", "entity_swap", "relation_perturb", "prompt")
        ),
        source="analysis",
    ),
    _claim(
        "cad",
        "self-induced decoding is slightly more faithful than context-aware decoding",
        _arms("FAT + SID - SFT of as many steps + CAD", WHOLE, {**SFT, **CAD}),
        _arms("FAT + SID - FAT + CAD", WHOLE, {**OWN, **CAD}),
        source="analysis",
    ),
)
