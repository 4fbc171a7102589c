"""What the paper of DaPT claims, and the bars of our studies of when a second decomposition pays."""

from collections.abc import Mapping
from typing import Any

from athlos.config.claims import Claim, Compare, Comparison, Direction, Measure, Tag

NEEDS = "MuSiQue, HotpotQA and 2WikiMultihopQA in five languages, an instruction model, and the paper's baselines"
ALIGN = {"method.merge.kind": "align"}
DUAL, SOURCE, ENGLISH = ({"method.path": path, **ALIGN} for path in ("dual", "src", "en"))
BOTH_INDEXES = {"method.retrieval": "bilingual"}
LAB = {
    "study": "dapt_lab",
    "method.noise.decompose_s": 0.3,
    "method.noise.decompose_en": 0.1,
    "method.noise.correlated": False,
}
CONTROL = {
    "study": "dapt_lab",
    "method.noise.decompose_s": 0.2,
    "method.noise.decompose_en": 0.2,
}
WORLD = {"study": "dapt_world", "method.noise.decompose_s": 0.3, "method.noise.correlated": False}
RETRIEVAL, XQUAD = {"study": "dapt_retrieval"}, {"study": "dapt_xquad"}
EQUAL = ("method.k",)
"""Passages that a node is read with: an arm that reads more can win by that alone."""
ABOUT_NONE = 0.02
"""What a difference may be that stands for none, in EM and in recall."""


def _difference(
    label: str,
    metric: str,
    ours: Mapping[str, Any],
    against: Mapping[str, Any],
    *,
    where: Mapping[str, Any],
    against_metric: str = "",
    direction: Direction = Direction.UP,
    bar: float | tuple[float, float] | None = None,
    by: tuple[str, ...] = (),
) -> Comparison:
    return Comparison(
        label=label,
        ours=Measure(metric=metric, where=ours),
        against=Measure(metric=against_metric or metric, where=against),
        compare=Compare.DIFFERENCE,
        direction=direction,
        bar=bar,
        where=where,
        by=by,
        equal=EQUAL,
    )


def _merges() -> tuple[Comparison, ...]:
    others = ("union", "prefer_src", "prefer_en", "none")
    where = {**LAB, **BOTH_INDEXES, "method.path": "dual"}
    return tuple(
        _difference(f"lab, align - {kind}", "test/em", ALIGN, {"method.merge.kind": kind}, where=where)
        for kind in others
    )


CLAIMS = (
    Claim(
        id="dapt.musique",
        text="average EM over languages on MuSiQue, relative to the strongest baseline",
        paper=18.3,
        unit="%",
        source="abstract",
        tag=Tag.PAPER,
        needs=NEEDS,
    ),
    Claim(
        id="dapt.balance",
        text="advanced RAG systems are strongly imbalanced over languages",
        source="abstract",
        tag=Tag.PAPER,
        needs=NEEDS,
    ),
    Claim(
        id="dapt.concise",
        text="answers are shorter than those of baselines",
        source="abstract",
        tag=Tag.PAPER,
        needs=NEEDS,
    ),
    Claim(
        id="dapt.dual",
        text="both decompositions answer more questions than either, with independent damage",
        source="specification, section 9 C",
        tag=Tag.OURS,
        comparisons=(
            _difference("lab, dual - English path", "test/em", DUAL, ENGLISH, where={**LAB, **BOTH_INDEXES}),
            _difference("lab, dual - source path", "test/em", DUAL, SOURCE, where={**LAB, **BOTH_INDEXES}),
            _difference(
                "lab, dual - English path, 4 hops", "test/em_hop4", DUAL, ENGLISH, where={**LAB, **BOTH_INDEXES}
            ),
            _difference(
                "countries, dual - English path",
                "test/em",
                DUAL,
                ENGLISH,
                where={**WORLD, **BOTH_INDEXES},
                by=("method.noise.decompose_en",),
            ),
            _difference(
                "countries, dual - source path",
                "test/em",
                DUAL,
                SOURCE,
                where={**WORLD, **BOTH_INDEXES},
                by=("method.noise.decompose_en",),
            ),
        ),
    ),
    Claim(
        id="dapt.control",
        text="identical damage of both graphs gives no win",
        source="specification, sections 7 and 9 C",
        tag=Tag.OURS,
        comparisons=(
            _difference(
                "lab, identical, dual - English path",
                "test/em",
                DUAL,
                ENGLISH,
                where={**CONTROL, **BOTH_INDEXES, "method.noise.correlated": True},
                direction=Direction.WITHIN,
                bar=(-ABOUT_NONE, ABOUT_NONE),
            ),
            _difference(
                "lab, independent, dual - English path",
                "test/em",
                DUAL,
                ENGLISH,
                where={**CONTROL, **BOTH_INDEXES, "method.noise.correlated": False},
            ),
        ),
    ),
    Claim(
        id="dapt.merge",
        text="aligned graphs are better than every simpler merge",
        source="specification, section 3.1",
        tag=Tag.OURS,
        comparisons=_merges(),
    ),
    Claim(
        id="dapt.steps",
        text="gold sub-questions find more than the whole question at an equal number of passages",
        source="specification, section 9 A",
        tag=Tag.OURS,
        comparisons=tuple(
            Comparison(
                label=f"MuSiQue, k = {k}, steps{ending} - whole",
                ours=Measure(metric=f"test/recall@{k}_shared{suffix}", is_fixed=not suffix),
                against=Measure(metric=f"test/recall@{k}", is_fixed=True),
                compare=Compare.DIFFERENCE,
                direction=Direction.UP,
                where=RETRIEVAL,
            )
            for k in (5, 10, 20)
            for suffix, ending in (("", ""), ("_p0.3", " with noise .3"))
        ),
    ),
    Claim(
        id="dapt.bilingual",
        text="two indexes find more than the better one when the translator is noisy, not when it is perfect",
        source="specification, section 9 B",
        tag=Tag.OURS,
        comparisons=tuple(
            Comparison(
                label=f"XQuAD, k = {k}, noise {share}",
                ours=Measure(metric=f"test/gain@{k}_p{share}", is_fixed=share == "0"),
                direction=Direction.WITHIN if share == "0" else Direction.UP,
                bar=(-1.0, ABOUT_NONE) if share == "0" else 0.0,
                where=XQUAD,
            )
            for k in (2, 5, 10)
            for share in ("0", "0.3", "0.5")
        ),
    ),
)
