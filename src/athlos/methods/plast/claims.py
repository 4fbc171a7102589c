"""What the paper of PLAST claims, and the bars of our own studies."""

from athlos.config.claims import Claim, Compare, Comparison, Direction, Measure, Tag

LAB, REAL = {"study": "lab_plast"}, {"study": "plast_emoji"}
ITSELF = {"tuning._target_": "athlos.models.tuning.FullTuning"}
SELECTED = {"selection.selector": "specific_neurons", "selection.parts": "all", **ITSELF}
FULL, RANDOM, MIDDLE, TOP = ({"selection.selector": name, **ITSELF} for name in ("all", "random", "middle", "top"))
LORA = {"tuning._target_": "athlos.models.tuning.LoraEqualTuning"}
SLAM = {"selection.selector": "activation_gap", "selection.parts": "up_down"}
ARM = ("selection.", "tuning.")
"""Config keys that tell the arms apart."""
OTHERS = "test/acc_non_english"
POINTS = 0.01
"""One point of accuracy."""


def _gain(label: str, study: dict[str, str], *, bar: float | None = None, language: str = "") -> Comparison:
    """PLAST's model against the one it was made of, in the same run: in one language, or in all but the reference."""
    metric, before = (f"test/acc/{language}", f"test/acc_base/{language}") if language else (OTHERS, f"{OTHERS}_base")
    return Comparison(
        label=label,
        ours=Measure(metric=metric, where=SELECTED),
        against=Measure(metric=before, where=SELECTED),
        compare=Compare.DIFFERENCE,
        direction=Direction.UP,
        bar=bar,
        where=study,
    )


def _arm(label: str, other: dict[str, str], study: dict[str, str], *, bar: float | None = None) -> Comparison:
    return Comparison(
        label=label,
        ours=Measure(metric=OTHERS, where=SELECTED),
        against=Measure(metric=OTHERS, where=other),
        compare=Compare.DIFFERENCE,
        direction=Direction.UP,
        bar=bar,
        where=study,
        varies=ARM,
    )


def _arms(study: dict[str, str], name: str) -> tuple[Comparison, ...]:
    others = {
        "random layers": RANDOM,
        "middle layers": MIDDLE,
        "top layers": TOP,
        "LoRA of equal size": LORA,
        "SLAM's up and down": SLAM,
    }
    return tuple(_arm(f"plast - {label}, {name}", other, study) for label, other in others.items())


CLAIMS = (
    Claim(
        id="plast.bench",
        text="better on MMBench and MMMB than the base and other ways of tuning",
        source="abstract",
        tag=Tag.PAPER,
        needs="LLaVA-1.5 or a model like it, and a GPU",
    ),
    Claim(
        id="plast.bench.small",
        text="better on other languages than the base and other ways of tuning, in small",
        source="abstract, at 7 B and more",
        tag=Tag.PAPER,
        comparisons=(
            _gain("plast - base, lab pictures", LAB),
            *_arms(LAB, "lab pictures"),
            _gain("plast - base, emoji", REAL),
            *_arms(REAL, "emoji"),
        ),
    ),
    Claim(
        id="plast.share",
        text="share of the parameters that is tuned",
        paper=0.14,
        unit="of the parameters",
        source="abstract",
        tag=Tag.PAPER,
        needs="a run at 7 B; the dry run of experiment=plast/paper prints 14.33 %",
    ),
    Claim(
        id="plast.corr",
        text="languages with more specific neurons in shallow layers score better",
        source="abstract",
        tag=Tag.PAPER,
        needs="more languages than our studies have; notebooks/plast.ipynb shows r with its interval",
    ),
    Claim(
        id="plast.low",
        text="carries over to low-resource languages and complex visual reasoning",
        source="abstract",
        tag=Tag.PAPER,
        comparisons=(_gain("Hindi, not tuned on, plast - base", REAL, language="hi"),),
    ),
    Claim(
        id="plast.engage",
        text="shallow layers look more at the picture after tuning",
        source="abstract",
        tag=Tag.PAPER,
        comparisons=(
            Comparison(
                label="attention to the picture in layer 0, after - before",
                ours=Measure(metric="diag/image_attention/0", where=SELECTED),
                against=Measure(metric="diag/image_attention_base/0", where=SELECTED),
                compare=Compare.DIFFERENCE,
                direction=Direction.UP,
                where=LAB,
            ),
        ),
    ),
    Claim(
        id="plast.goal.gain",
        text="at least 3 points on other languages over the own base",
        source="our study's bar",
        tag=Tag.OURS,
        comparisons=(_gain("lab pictures", LAB, bar=3 * POINTS), _gain("emoji", REAL, bar=3 * POINTS)),
    ),
    Claim(
        id="plast.goal.english",
        text="English loses at most half a point",
        source="our study's bar",
        tag=Tag.OURS,
        comparisons=(
            _gain("lab pictures", LAB, bar=-0.5 * POINTS, language="latn"),
            _gain("emoji", REAL, bar=-0.5 * POINTS, language="en"),
        ),
    ),
    Claim(
        id="plast.goal.full",
        text="at most a point below tuning all layers",
        source="our study's bar",
        tag=Tag.OURS,
        comparisons=(
            _arm("plast - full, lab pictures", FULL, LAB, bar=-POINTS),
            _arm("plast - full, emoji", FULL, REAL, bar=-POINTS),
        ),
    ),
)
