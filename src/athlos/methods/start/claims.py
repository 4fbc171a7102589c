"""What the paper of START claims, and the bars of our lab study. One number of the paper is confirmed."""

from collections.abc import Mapping
from typing import Any

from athlos.config.claims import Claim, Compare, Comparison, Direction, Measure, Tag

LAB = {"study": "start_lab"}
F1 = "test/cite_f1@reward_judge"
FULL = {
    "method.warmup.enabled": True,
    "method.iterations": 2,
    "method.preference.pairs": "both",
    "method.attach": "model",
    "construct.warmup.num_queries": 60,
    "construct.warmup.verify": True,
    "reward.robust": True,
    "train.max_steps": 60,
}
COLD = FULL | {"method.warmup.enabled": False}
IMITATES = FULL | {"method.preference.pairs": "none"}
BASE = FULL | {"train.max_steps": 0}
POST_HOC = BASE | {"method.attach": "best_match"}
ABSTRACT = "abstract"
SECOND_HAND = "second-hand note; no number is confirmed"


def _compared(
    label: str, ours: Measure, against: Measure, *, direction: Direction = Direction.UP, varies: tuple[str, ...] = ()
) -> Comparison:
    return Comparison(
        label=label,
        ours=ours,
        against=against,
        compare=Compare.DIFFERENCE,
        direction=direction,
        where=LAB,
        varies=varies,
    )


def _arms(label: str, metric: str, ours: Mapping[str, Any], against: Mapping[str, Any]) -> Comparison:
    return _compared(
        label, Measure(metric=metric, where=ours), Measure(metric=metric, where=against), varies=("method", "train")
    )


def _within(label: str, metric: str, before: str) -> Comparison:
    """Two phases of one run."""
    return _compared(label, Measure(metric=metric, where=FULL), Measure(metric=before, where=FULL))


CLAIMS = (
    Claim(
        id="start.main",
        text="START cites better than the model that it starts from and than citations attached afterwards",
        paper=25.13,
        unit="%",
        source=f"{ABSTRACT}: average gain over three sets; over which reference is not confirmed",
        tag=Tag.PAPER,
        comparisons=(
            _arms("citation F1, START - untouched", F1, FULL, BASE),
            _arms("citation F1, START - post-hoc", F1, FULL, POST_HOC),
        ),
    ),
    Claim(
        id="start.warmup",
        text="with the warm-up more samples pass, in each iteration",
        source=f"table 3, {SECOND_HAND}",
        tag=Tag.NOTE,
        comparisons=(
            _arms("pass rate of iteration 1, warm-up - none", "construct/pass_rate@1", FULL, COLD),
            _arms("pass rate of iteration 2, warm-up - none", "construct/pass_rate@2", FULL, COLD),
        ),
    ),
    Claim(
        id="start.ablate",
        text="warm-up and preferences each add to the citation F1",
        source=f"table 2, {SECOND_HAND}",
        tag=Tag.NOTE,
        comparisons=(
            _arms("citation F1, START - without warm-up", F1, FULL, COLD),
            _arms("citation F1, START - without preferences", F1, FULL, IMITATES),
            _within("citation F1, START - its first iteration", F1, f"{F1}@prefer-1"),
        ),
    ),
    Claim(
        id="start.synth",
        text="warm-up data alone help little; the climb comes later",
        source=f"figure 3, {SECOND_HAND}",
        tag=Tag.NOTE,
        comparisons=(_within("citation F1, START - warm-up alone", F1, f"{F1}@warmup"),),
    ),
    Claim(
        id="start.multi",
        text="sentences that need several sources are supported by what they cite",
        source=ABSTRACT,
        tag=Tag.PAPER,
        comparisons=(
            _within(
                "supported of sentences with several citations, START - warm-up alone",
                "test/multi_cite_supported@reward_judge",
                "test/multi_cite_supported@reward_judge@warmup",
            ),
        ),
    ),
    Claim(
        id="start.human",
        text="people prefer its answers",
        source=f"table 4, {SECOND_HAND}",
        tag=Tag.NOTE,
        needs="people who compare answers",
    ),
)
