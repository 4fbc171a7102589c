"""What the paper of SpanNorm claims, and the bars of our own studies."""

from collections.abc import Mapping
from typing import Any

from athlos.config.claims import Claim, Compare, Comparison, Direction, Measure, Reduce, Tag

DEPTH = {"study": "spannorm_depth", "surgery.init_scale": "auto", "surgery.moe.num_experts": 0}
LAB = {"study": "lab_spannorm", "surgery.init_scale": "auto", "surgery.moe.num_experts": 0}
LAB_EXPERTS = {**LAB, "surgery.moe.num_experts": 8}
TUNED = ("spannorm_tuned", "lab_spannorm_tuned")
"""Studies in which each placement has a rate of its own, chosen on held-out text."""
BY_DEPTH = ("model.name", "train.lr")
STEP = {"benchmark": "spannorm_step"}
BY_SHAPE = ("options.layers", "options.hidden")


def _arm(metric: str, placement: str, reduce: Reduce | None = None) -> Measure:
    return Measure(metric=metric, where={"surgery.placement": placement}, reduce=reduce)


def _loss(where: Mapping[str, Any], other: str, *, by: tuple[str, ...] = (), of: str = "test/nll") -> Comparison:
    """Nats a token, SpanNorm less another placement."""
    return Comparison(
        label=f"{where['study']}: spannorm - {other}",
        ours=_arm(of, "spannorm"),
        against=_arm(of, other),
        compare=Compare.DIFFERENCE,
        direction=Direction.DOWN,
        where=where,
        by=by,
    )


def _loss_at_own_rates(study: str, other: str, *, width_scale: str = "inv_sqrt_d") -> Comparison:
    """Nats a token, SpanNorm less another placement with matrices of that scale, each at its own rate."""
    start = " of the model's own deviation" if width_scale == "none" else ""
    return Comparison(
        label=f"{study}, each at its own rate: spannorm - {other}{start}",
        ours=Measure(metric="test/nll", where={"surgery.placement": "spannorm", "surgery.branch_calibration": "none"}),
        against=Measure(metric="test/nll", where={"surgery.placement": other, "surgery.width_scale": width_scale}),
        compare=Compare.DIFFERENCE,
        direction=Direction.DOWN,
        where={"study": study},
        varies=("train.lr", "surgery."),
    )


CLAIMS = (
    Claim(
        id="span.dense",
        text="a lower loss than PreNorm and PostNorm, dense",
        source="abstract",
        tag=Tag.PAPER,
        comparisons=(
            _loss(DEPTH, "prenorm", by=BY_DEPTH),
            _loss(DEPTH, "postnorm", by=BY_DEPTH),
            _loss(LAB, "prenorm"),
            _loss(LAB, "postnorm"),
            *(
                _loss_at_own_rates(study, "prenorm", width_scale=scale)
                for study in TUNED
                for scale in ("inv_sqrt_d", "none")
            ),
        ),
    ),
    Claim(
        id="span.scale",
        text="a lower loss than PreNorm with the same small output projections",
        source="our control: is it the placement or its initial scale?",
        tag=Tag.OURS,
        comparisons=(
            _loss(DEPTH, "scaled_prenorm", by=BY_DEPTH),
            _loss(LAB, "scaled_prenorm"),
            *(_loss_at_own_rates(study, "scaled_prenorm") for study in TUNED),
        ),
    ),
    Claim(
        id="span.moe",
        text="a lower loss than PreNorm with a mixture of experts",
        source="abstract",
        tag=Tag.PAPER,
        comparisons=(_loss(LAB_EXPERTS, "prenorm"),),
    ),
    Claim(
        id="span.var",
        text="the stream's size stays bounded over depth, where PreNorm's grows",
        source="abstract",
        tag=Tag.PAPER,
        comparisons=tuple(
            Comparison(
                label=f"{where['study']}: spread of RMS {when}, spannorm / prenorm",
                ours=_arm(metric, "spannorm", Reduce.SPREAD),
                against=_arm(metric, "prenorm", Reduce.SPREAD),
                compare=Compare.RATIO,
                direction=Direction.DOWN,
                where=where,
                by=by,
            )
            for where, by in ((DEPTH, BY_DEPTH), (LAB, ()))
            for when, metric in (("at the start", "diag/act_rms_init/*"), ("at the end", "diag/act_rms/*"))
        ),
    ),
    Claim(
        id="span.depth",
        text="trains at 128 layers and 6.5 B parameters",
        paper=128,
        unit="layers",
        source="second-hand",
        tag=Tag.NOTE,
        needs="GPUs for 6.5 B parameters",
    ),
    Claim(
        id="span.lr",
        text="stable at the unchanged learning rate, whatever the depth",
        paper=0,
        unit="diverged share",
        source="second-hand",
        tag=Tag.NOTE,
        comparisons=(
            Comparison(
                label="diverged share",
                ours=_arm("train/diverged", "spannorm"),
                direction=Direction.DOWN,
                bar=0.0,
                where=DEPTH,
                by=BY_DEPTH,
            ),
            Comparison(
                label="nats a token above the frequencies of the tokens (bar of ours: .1 below them)",
                ours=_arm("test/nll", "spannorm"),
                against=_arm("test/unigram_nll", "spannorm"),
                compare=Compare.DIFFERENCE,
                direction=Direction.DOWN,
                bar=-0.1,
                where={"study": "spannorm_tuned"},
                by=BY_DEPTH,
            ),
        ),
    ),
    Claim(
        id="span.cost",
        text="a training step takes as long as PreNorm's (bar of ours: 1.02 times)",
        paper=1.0,
        unit="ratio",
        source="second-hand",
        tag=Tag.NOTE,
        comparisons=tuple(
            Comparison(
                label=f"{clock}, spannorm / prenorm",
                ours=Measure(metric=f"{metric}/spannorm/prenorm"),
                direction=Direction.DOWN,
                bar=1.02,
                where=STEP,
                by=BY_SHAPE,
            )
            for clock, metric in (("step", "ratio"), ("processor time", "cpu_ratio"))
        ),
    ),
    Claim(
        id="span.tasks",
        text="downstream tasks of one model whose size is not known",
        source="second-hand",
        tag=Tag.NOTE,
        needs="the size and the baseline of that model",
    ),
    Claim(
        id="span.bar.flat",
        text="RMS over depth within 10 % at the end",
        source="our study's bar",
        tag=Tag.OURS,
        comparisons=(
            Comparison(
                label="greatest over least layer",
                ours=_arm("diag/act_rms/*", "spannorm", Reduce.SPREAD),
                direction=Direction.DOWN,
                bar=1.1,
                where=DEPTH,
                by=BY_DEPTH,
            ),
        ),
    ),
    Claim(
        id="span.bar.postnorm",
        text="PostNorm is worse than PreNorm when deep",
        source="our study's bar",
        tag=Tag.OURS,
        comparisons=tuple(
            Comparison(
                label=f"{where['study']}: postnorm - prenorm",
                ours=_arm("test/nll", "postnorm"),
                against=_arm("test/nll", "prenorm"),
                compare=Compare.DIFFERENCE,
                direction=Direction.UP,
                where=where,
                by=by,
            )
            for where, by in ((DEPTH, BY_DEPTH), (LAB, ()))
        ),
    ),
)
