"""What the paper of LISA claims, and the bars of our own study."""

from collections.abc import Mapping
from typing import Any

from athlos.config.claims import Claim, Compare, Comparison, Direction, Measure, Tag

REAL = {"study": "lisa_smollm2_wikitext2", "objective.ce": 1.0}
"""The study on SmolLM2 with labels; its control without labels is a row of its own."""
CONTROL = {"study": "lisa_smollm2_wikitext2", "objective.ce": 0.0}
LAB = {"study": "lab_lisa", "surgery.align.enabled": True, "method.stages": ["local", "end2end"]}
BY_LAYERS = ("surgery.layers.count",)
DECODE = {"benchmark": "lisa_decode"}
CONTEXTS = (512, 1024, 2048, 4096, 8192)


def _one_run(
    label: str,
    metric: str,
    other: str,
    compare: Compare,
    bar: float | None = None,
    *,
    where: Mapping[str, Any] = REAL,
    by: tuple[str, ...] = BY_LAYERS,
) -> Comparison:
    """Lower is better: two metrics of the same runs."""
    return Comparison(
        label=label,
        ours=Measure(metric=metric),
        against=Measure(metric=other),
        compare=compare,
        direction=Direction.DOWN,
        bar=bar,
        where=where,
        by=by,
    )


def _lab_arms(label: str, key: str, ours: Any, against: Any) -> Comparison:
    """Perplexity of two arms of the lab study that differ in one key."""
    where = {name: value for name, value in LAB.items() if name != key}
    return Comparison(
        label=label,
        ours=Measure(metric="test/ppl", where={key: ours}),
        against=Measure(metric="test/ppl", where={key: against}),
        compare=Compare.RATIO,
        direction=Direction.DOWN,
        where=where,
        by=BY_LAYERS,
    )


def _sharing(other: str, where: Mapping[str, Any]) -> Comparison:
    """Perplexity of the lab's base with six of eight layers sharing as LISA does, over another way of sharing."""
    return Comparison(
        label=f"lab, LISA / {other}",
        ours=Measure(metric="test/ppl", where={"surgery.align.hidden": 8}),
        against=Measure(metric="test/ppl", where=where),
        compare=Compare.RATIO,
        direction=Direction.DOWN,
        where={"study": "lab_lisa_sharing"},
        varies=("surgery.",),
    )


def _noise(label: str, study: str) -> Comparison:
    return Comparison(
        label=label,
        ours=Measure(metric="diag/noise_ppl_shallow"),
        against=Measure(metric="diag/noise_ppl_deep"),
        compare=Compare.RATIO,
        direction=Direction.UP,
        where={"study": study},
        by=("method.noise_sigma",),
    )


def _structure(label: str, metric: str, direction: Direction, bar: float | tuple[float, float]) -> Comparison:
    return Comparison(
        label=label, ours=Measure(metric=metric, is_fixed=True), direction=direction, bar=bar, where=REAL, by=BY_LAYERS
    )


def _decoding(case: str, contexts: tuple[int, ...], other: str, bar: float) -> tuple[Comparison, ...]:
    return tuple(
        Comparison(
            label=f"{case} cache, context {context}, over {other}",
            ours=Measure(metric=f"{case}_{context}/lisa_over_{other}"),
            direction=Direction.UP,
            bar=bar,
            where=DECODE,
        )
        for context in contexts
    )


CLAIMS = (
    *(
        Claim(
            id=f"lisa.thr.{size}",
            text=f"maximum throughput of {model} against the full model",
            paper=gain,
            unit="%",
            source=source,
            tag=Tag.PAPER,
            needs=f"{model} trained with LISA, and a GPU",
        )
        for size, model, gain, source in (
            ("8b", "LLaMA3-8B", 19.5, "abstract"),
            ("7b", "LLaMA2-7B", 32.3, "abstract"),
            ("13b", "LLaMA2-13B", 40.1, "abstract v2"),
        )
    ),
    Claim(
        id="lisa.thr.135m",
        text="decoding in a fixed cache budget is faster than the full model, at 135 M parameters",
        paper=(1.195, 1.401),
        unit="ratio",
        source="abstract, at 8 to 13 B",
        tag=Tag.PAPER,
        comparisons=_decoding("budget", CONTEXTS, "sdpa", 1.0)
        + _decoding("budget", CONTEXTS, "eager", 1.0)
        + _decoding("budget", CONTEXTS, "fused", 1.0),
    ),
    Claim(
        id="lisa.layers",
        text="share of the layers that take their attention from the layer below",
        paper=(0.53, 0.84),
        unit="of the layers",
        source="abstract",
        tag=Tag.PAPER,
        is_by_construction=True,
        comparisons=(_structure("shared layers", "lisa/shared_layer_share", Direction.WITHIN, (0.53, 0.845)),),
    ),
    Claim(
        id="lisa.qk",
        text="Q and K of a shared layer are six times smaller",
        paper=6.0,
        unit="times",
        source="abstract",
        tag=Tag.PAPER,
        is_by_construction=True,
        comparisons=(_structure("Q and K", "lisa/qk_compression", Direction.UP, 6.0),),
    ),
    Claim(
        id="lisa.params",
        text="share of the parameters that is trained",
        paper=(0.0046, 0.0164),
        unit="of the parameters",
        source="second-hand",
        tag=Tag.NOTE,
        is_by_construction=True,
        comparisons=(_structure("trained", "cost/trainable_share", Direction.WITHIN, (0.0046, 0.0164)),),
    ),
    Claim(
        id="lisa.quality",
        text="perplexity stays about that of the full model (bar of ours: 1.10 times)",
        source="abstract; the bar is ours",
        tag=Tag.PAPER,
        comparisons=(
            _one_run("LISA / full", "test/ppl", "test/ppl_base", Compare.RATIO, 1.10),
            _one_run("lab, LISA / full", "test/ppl", "test/ppl_base", Compare.RATIO, 1.10, where=LAB),
            Comparison(
                label="LISA / full, trained without labels",
                ours=Measure(metric="test/ppl"),
                against=Measure(metric="test/ppl_base"),
                compare=Compare.RATIO,
                direction=Direction.DOWN,
                bar=1.10,
                where=CONTROL,
                by=BY_LAYERS,
            ),
        ),
    ),
    Claim(
        id="lisa.quality.tasks",
        text="accuracy on 13 benchmarks stays about that of the full model",
        source="abstract",
        tag=Tag.PAPER,
        needs="the paper's models; 135 M parameters stand near chance on most sets",
    ),
    Claim(
        id="lisa.direct",
        text="direct sharing, head for head, loses far more",
        source="abstract",
        tag=Tag.PAPER,
        comparisons=(
            _one_run("LISA / direct", "test/ppl", "test/ppl_direct", Compare.RATIO),
            Comparison(
                label="aligned heads / direct",
                ours=Measure(metric="test/ppl_align", is_fixed=True),
                against=Measure(metric="test/ppl_direct", is_fixed=True),
                compare=Compare.RATIO,
                direction=Direction.DOWN,
                where=REAL,
                by=BY_LAYERS,
            ),
            Comparison(
                label="lab, aligned heads / direct",
                ours=Measure(metric="test/ppl_align", is_fixed=True),
                against=Measure(metric="test/ppl_direct", is_fixed=True),
                compare=Compare.RATIO,
                direction=Direction.DOWN,
                where=LAB,
                by=BY_LAYERS,
            ),
            _one_run("LISA / aligned heads", "test/ppl", "test/ppl_align", Compare.RATIO),
            _one_run("lab, LISA / direct", "test/ppl", "test/ppl_direct", Compare.RATIO, where=LAB),
            _one_run("lab, LISA / aligned heads", "test/ppl", "test/ppl_align", Compare.RATIO, where=LAB),
        ),
    ),
    Claim(
        id="lisa.shallow",
        text="errors in the attention of shallow layers hurt more than those in deep ones",
        source="abstract",
        tag=Tag.PAPER,
        comparisons=(
            _noise("noise in the lower over noise in the upper half", "lisa_noise"),
            _noise("lab, noise in the lower over noise in the upper half", "lab_lisa_noise"),
        ),
    ),
    Claim(
        id="lisa.scratch",
        text="usable for pre-training and task tuning too",
        source="second-hand",
        tag=Tag.NOTE,
        needs="pre-training with shared layers at a size where it would tell",
    ),
    Claim(
        id="lisa.bar.parts",
        text="the aligner and the second stage of training each help",
        source="lab study's arms",
        tag=Tag.OURS,
        comparisons=(
            _lab_arms("lab, with / without the aligner", "surgery.align.enabled", True, False),
            _lab_arms("lab, two stages / the local one", "method.stages", ["local", "end2end"], ["local"]),
        ),
    ),
    Claim(
        id="lisa.bar.shuffle",
        text="with heads in another order matched scores lose less than copied ones",
        source="lab study's prediction",
        tag=Tag.OURS,
        comparisons=(
            _one_run(
                "lab, matched / copied, untrained",
                "test/ppl_align",
                "test/ppl_direct",
                Compare.RATIO,
                where={"study": "lab_lisa_shuffle", "surgery.align.init": "hungarian"},
                by=("surgery.shuffle_heads",),
            ),
        ),
    ),
    Claim(
        id="lisa.bar.sharing",
        text="costs less than other ways of sharing, all weights trained for the same steps",
        source="our lab study",
        tag=Tag.OURS,
        comparisons=(
            _sharing("copied scores", {"surgery.align.hidden": 0}),
            _sharing("MQA", {"surgery.groups": 1}),
            _sharing("CLA-2", {"surgery.group": 2}),
            _sharing("CLA-3", {"surgery.group": 3}),
            _sharing("YOCO", {"surgery.window": 32}),
            _sharing("LCKV", {"surgery.passes": 7}),
        ),
    ),
    Claim(
        id="lisa.bar.excess",
        text="less than a fifth of direct sharing's excess perplexity is left",
        source="our study's bar",
        tag=Tag.OURS,
        comparisons=(
            Comparison(
                label="excess left",
                ours=Measure(metric="test/ppl"),
                against=Measure(metric="test/ppl_direct"),
                origin=Measure(metric="test/ppl_base"),
                compare=Compare.EXCESS,
                direction=Direction.DOWN,
                bar=0.2,
                where=REAL,
                by=BY_LAYERS,
            ),
        ),
    ),
    Claim(
        id="lisa.bar.budget",
        text="at least 1.2 times the tokens a second in a fixed cache budget",
        paper=(1.195, 1.401),
        unit="ratio",
        source="our bar; the paper's range at 8 to 13 B",
        tag=Tag.OURS,
        comparisons=_decoding("budget", CONTEXTS, "sdpa", 1.2),
    ),
    Claim(
        id="lisa.bar.equal",
        text="no slower at equal batch from 4,096 tokens",
        source="our bar",
        tag=Tag.OURS,
        comparisons=_decoding("equal", (4096, 8192), "sdpa", 1.0),
    ),
)
