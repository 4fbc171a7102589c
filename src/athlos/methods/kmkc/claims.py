"""What the paper of KMKC claims, and the predictions of our own studies.

Each run of the lab also tests its base (`_base`), what CGKE alone gave (`@cgke`), and all of them with temperature
scaling (`_scaled`). Calibration errors are debiased.
"""

from collections.abc import Mapping
from typing import Any

from athlos.config.claims import Claim, Compare, Comparison, Direction, Measure, Tag

LAB = {"study": "kmkc_lab"}
ALONE = {"method.cgke.enabled": False, "method.cdkc.enabled": True, "method.rounds": 1}
CDKC = {**ALONE, "reward.entropy_term": "reward"}
LOSS = {**ALONE, "reward.entropy_term": "loss"}
GRPO = {**ALONE, "reward.entropy_term": "disabled"}
WHOLE = {**CDKC, "method.cgke.enabled": True}
PLAIN = {"method.cdkc.enabled": False, "construct.use_regions": False}
ARMS = ("method.", "reward.", "construct.")
COUNTS = ("train.max_steps", "train.batch_size", "method.cgke.steps", "method.cgke.batch_size", "objective.group_size")
"""What rows and rollouts are counted by. Arms that learn from unequal numbers of either are not compared."""
GPUS = "7 billion parameters, 16 answers to each of 110,000 questions, and their training: GPUs"


def _compared(
    label: str,
    metric: str,
    ours: Mapping[str, Any],
    against: Mapping[str, Any],
    *,
    other: str = "",
    direction: Direction = Direction.UP,
) -> Comparison:
    """A metric of one arm less that of another, or less `other` of the same runs."""
    return Comparison(
        label=label,
        ours=Measure(metric=metric, where=ours),
        against=Measure(metric=other or metric, where=against),
        compare=Compare.DIFFERENCE,
        direction=direction,
        where=LAB,
        varies=ARMS,
        equal=COUNTS,
    )


def _value(label: str, metric: str, where: Mapping[str, Any], *, bar: float) -> Comparison:
    return Comparison(
        label=label,
        ours=Measure(metric=metric, where=where),
        compare=Compare.VALUE,
        direction=Direction.UP,
        bar=bar,
        where=LAB,
    )


ECE, DOWN = "test/ece_debiased", Direction.DOWN
CLAIMS = (
    Claim(
        id="kmkc.acc",
        text="CDKC answers right more often than GRPO: mean of 11 sets 43.91 -> 44.97, Qwen2.5-7B",
        paper=1.06,
        unit="points",
        source="main table",
        tag=Tag.PAPER,
        comparisons=(
            _compared("lab, CDKC - GRPO", "test/acc", CDKC, GRPO),
            _compared("lab, entropy in the loss - GRPO", "test/acc", LOSS, GRPO),
        ),
    ),
    Claim(
        id="kmkc.rounds",
        text="a second round adds: 44.97 -> 48.29",
        paper=3.32,
        unit="points",
        source="main table",
        tag=Tag.PAPER,
        needs=GPUS,
    ),
    Claim(
        id="kmkc.cgke",
        text="CGKE answers right more often than tuning on equal counts: 27.98 -> 29.15",
        paper=1.17,
        unit="points",
        source="main table; the number of SFT is second-hand",
        tag=Tag.PAPER,
        comparisons=(_compared("lab, by region - plain", "test/acc@cgke", WHOLE, PLAIN, other="test/acc"),),
    ),
    Claim(
        id="kmkc.llama",
        text="vanilla -> CDKC, Llama-3.1-8B: 30.91 -> 55.50, probably two rounds",
        paper=24.59,
        unit="points",
        source="second-hand; 30.91 is in the main table",
        tag=Tag.NOTE,
        needs=GPUS,
    ),
    Claim(
        id="kmkc.ece",
        text="the calibration error falls: mean ECE 60.41 -> 24.34",
        paper=-36.07,
        unit="points",
        source="second-hand",
        tag=Tag.NOTE,
        comparisons=(
            _compared("lab, CDKC - base", ECE, CDKC, CDKC, other=f"{ECE}_base", direction=DOWN),
            _compared("lab, CDKC - GRPO", ECE, CDKC, GRPO, direction=DOWN),
            _compared("lab, entropy in the loss - GRPO", ECE, LOSS, GRPO, direction=DOWN),
            _compared("lab, CGKE and CDKC - base", ECE, WHOLE, WHOLE, other=f"{ECE}_base", direction=DOWN),
            _compared("lab, CDKC - base with temperature", ECE, CDKC, CDKC, other=f"{ECE}_scaled_base", direction=DOWN),
            _compared(
                "lab, entropy in the loss - base with temperature",
                ECE,
                LOSS,
                LOSS,
                other=f"{ECE}_scaled_base",
                direction=DOWN,
            ),
        ),
    ),
    Claim(
        id="kmkc.self",
        text="self-knowledge of the final model: CBS 73.43, CAE 68.18",
        paper=(68.18, 73.43),
        unit="%",
        source="second-hand",
        tag=Tag.NOTE,
        comparisons=(
            _compared("lab, CDKC - base, CBS", "test/cbs", CDKC, CDKC, other="test/cbs_base"),
            _compared("lab, CDKC - base, CAE", "test/cae", CDKC, CDKC, other="test/cae_base"),
        ),
    ),
    Claim(
        id="kmkc.bound",
        text="correct decisions 63.37, boundary identification 79.07",
        paper=(63.37, 79.07),
        unit="%",
        source="second-hand",
        tag=Tag.NOTE,
        needs="definitions that the paper's readers do not give",
    ),
    Claim(
        id="kmkc.law",
        text="accuracy decays with uncertainty as a exp(-bU) + c, on six models",
        source="figures 1 and 7; no number",
        tag=Tag.NOTE,
        comparisons=(
            _value("lab, R2 of the base's fit", "profile/decay_r2", CDKC, bar=0.9),
            Comparison(
                label="Qwen2.5-Coder-1.5B on facts of countries, b",
                ours=Measure(metric="test/decay_b"),
                direction=Direction.UP,
                bar=0.0,
                where={"study": "kmkc_world"},
            ),
        ),
    ),
    Claim(
        id="kmkc.regions",
        text="the rule finds the regions that exposure makes: macro-F1 at least .6, chance .33",
        source="our specification, section 8",
        tag=Tag.OURS,
        comparisons=(_value("lab, base on test facts", "test/region_f1_base", CDKC, bar=0.6),),
    ),
    Claim(
        id="kmkc.missing",
        text="confidence on facts that were never told falls",
        source="our specification, section 8",
        tag=Tag.OURS,
        comparisons=(
            _compared(
                "lab, CDKC - base", "test/conf_missing", CDKC, CDKC, other="test/conf_missing_base", direction=DOWN
            ),
            _compared(
                "lab, entropy in the loss - base",
                "test/conf_missing",
                LOSS,
                LOSS,
                other="test/conf_missing_base",
                direction=DOWN,
            ),
        ),
    ),
)
