"""What the paper of SLAM claims, and the bars of our own studies."""

from collections.abc import Mapping

from athlos.config.claims import Claim, Compare, Comparison, Direction, Measure, Tag

LAB, REAL = {"study": "lab_slam"}, {"study": "slam_gemma3", "train.lr": 1e-4}
STEP = {"benchmark": "selective_step"}
ITSELF = {"tuning._target_": "athlos.models.tuning.FullTuning"}
SLAM = {"selection.selector": "activation_gap", "selection.position": "auto", **ITSELF}
FULL = {"selection.selector": "all", **ITSELF}
ONE_STAGE = {"method.reason_steps": 0}
RANDOM, TOP = {"selection.selector": "random"}, {"selection.selector": "top"}
LORA = {"tuning._target_": "athlos.models.tuning.LoraEqualTuning"}
ARM = ("selection.", "tuning.", "method.reason_steps", "train.max_steps")
"""Config keys that tell the arms apart."""


def _arms(
    label: str,
    metric: str,
    other: Mapping[str, object],
    study: Mapping[str, object],
    *,
    direction: Direction = Direction.UP,
    compare: Compare = Compare.DIFFERENCE,
    bar: float | None = None,
) -> Comparison:
    """SLAM's arm against another one of a study."""
    return Comparison(
        label=label,
        ours=Measure(metric=metric, where={**SLAM, **ONE_STAGE}),
        against=Measure(metric=metric, where=other),
        compare=compare,
        direction=direction,
        bar=bar,
        where=study,
        varies=ARM,
    )


def _controls(metric: str, study: Mapping[str, object], name: str) -> tuple[Comparison, ...]:
    return (
        _arms(f"slam - full, {name}", metric, {**FULL, **ONE_STAGE}, study),
        _arms(f"slam - random layers, {name}", metric, RANDOM, study),
        _arms(f"slam - top layers, {name}", metric, TOP, study),
        _arms(f"slam - LoRA of equal size, {name}", metric, LORA, study),
    )


def _bars(label: str, metric: str, bars: dict[str, float], direction: Direction) -> tuple[Comparison, ...]:
    return tuple(
        Comparison(
            label=f"{label}, {shape}",
            ours=Measure(metric=f"{shape}/{metric}"),
            direction=direction,
            bar=bar,
            where=STEP,
        )
        for shape, bar in bars.items()
    )


CLAIMS = (
    Claim(
        id="slam.avg",
        text="better on average over ten languages than all strong baselines",
        source="abstract",
        tag=Tag.PAPER,
        comparisons=(*_controls("test/acc_sum", LAB, "sums"), *_controls("test/chrf", REAL, "chrF")),
    ),
    Claim(
        id="slam.share",
        text="share of the parameters that is tuned, at 7 and 13 B",
        paper=(0.065, 0.08),
        unit="of the parameters",
        source="abstract",
        tag=Tag.PAPER,
        needs="a run at 7 B; the dry run of experiment=slam/paper prints 8.03 %",
    ),
    Claim(
        id="slam.layers",
        text="layers that are tuned, of 32 or 40",
        paper=6.0,
        unit="layers",
        source="abstract",
        tag=Tag.PAPER,
        needs="a probe of a 7 B model",
    ),
    Claim(
        id="slam.time",
        text="training takes less time than the two-stage recipe",
        paper=(4.1, 11.9),
        unit="times",
        source="abstract",
        tag=Tag.PAPER,
        comparisons=(
            *_bars(
                "passes and step time, by arithmetic",
                "two_stage_over_slam",
                {"smollm2": 4.0, "gemma3": 4.0},
                Direction.UP,
            ),
            _arms(
                "processor time, slam / two stages",
                "cost/train_cpu_s",
                {**FULL, "method.reason_steps": 38},
                REAL,
                direction=Direction.DOWN,
                compare=Compare.RATIO,
                bar=0.25,
            ),
            _arms(
                "processor time, slam / two stages, lab",
                "cost/train_cpu_s",
                {**FULL, "method.reason_steps": 96},
                LAB,
                direction=Direction.DOWN,
                compare=Compare.RATIO,
                bar=0.25,
            ),
        ),
    ),
    Claim(
        id="slam.low",
        text="languages are told apart in the lower layers",
        source="abstract",
        tag=Tag.PAPER,
        comparisons=(
            Comparison(
                label="deviation of layer 0 / last layer, lab",
                ours=Measure(metric="diag/layer_gap/0", where=SLAM, is_fixed=True),
                against=Measure(metric="diag/layer_gap/5", where=SLAM, is_fixed=True),
                compare=Compare.RATIO,
                direction=Direction.UP,
                where=LAB,
            ),
            Comparison(
                label="deviation of layer 0 / last layer, Gemma-3-270M",
                ours=Measure(metric="diag/layer_gap/0", where=SLAM, is_fixed=True),
                against=Measure(metric="diag/layer_gap/17", where=SLAM, is_fixed=True),
                compare=Compare.RATIO,
                direction=Direction.UP,
                where=REAL,
            ),
        ),
    ),
    Claim(
        id="slam.bar.step",
        text="a step takes less time than one of full fine-tuning",
        source="our bar",
        tag=Tag.OURS,
        comparisons=_bars("slam / full", "slam_over_full", {"smollm2": 0.7, "gemma3": 0.7}, Direction.DOWN),
    ),
    Claim(
        id="slam.bar.memory",
        text="peak memory of a step beyond the weights against full fine-tuning",
        source="our bar",
        tag=Tag.OURS,
        comparisons=_bars("slam / full", "slam_over_full_memory", {"smollm2": 0.5, "gemma3": 0.5}, Direction.DOWN),
    ),
    Claim(
        id="slam.bar.english",
        text="English perplexity rises less than with full fine-tuning",
        source="our bar",
        tag=Tag.OURS,
        comparisons=(
            _arms(
                "slam / full", "test/ppl", {**FULL, **ONE_STAGE}, REAL, direction=Direction.DOWN, compare=Compare.RATIO
            ),
        ),
    ),
    Claim(
        id="slam.bar.metamath",
        text="MetaMath-7B on MGSM, ten languages: the bar that tuning starts from",
        paper=38.4,
        unit="% right",
        source="QAlign's code",
        tag=Tag.CODE,
        needs="MetaMath-7B and a GPU",
    ),
    Claim(
        id="slam.bar.qalign",
        text="QAlign 7B on MGSM, ten languages",
        paper=49.6,
        unit="% right",
        source="QAlign's code",
        tag=Tag.CODE,
        needs="MetaMath-7B and a GPU",
    ),
)
