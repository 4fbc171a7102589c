"""What the paper of NDP claims, and the bars of our own studies."""

from collections.abc import Mapping
from typing import Any

from athlos.config.claims import Claim, Compare, Comparison, Direction, Measure, Tag

NDP = {"objective._target_": "athlos.methods.ndp.objective.NdpObjective"}
MIX = {**NDP, "objective.smooth": "softmax", "objective.use_sup": True, "objective.use_clm": True}
MIX_DIV = {**MIX, "objective.smooth": "div", "objective.lambda_": 0.8}
CONTROL = {**NDP, "objective.smooth": "div", "objective.use_clm": False}
PLAIN = {"objective._target_": "athlos.objectives.next_token.NextTokenObjective", "objective.label_smoothing": 0.0}
SMOOTHED = {**PLAIN, "objective.label_smoothing": 0.1}
UNIGRAM = {"objective._target_": "athlos.objectives.unigram_smoothing.UnigramSmoothingObjective"}
STOPPED = ("objective.", "train.max_steps")
"""What arms differ in whose settings and steps the loss on validation answers chose."""
DISTILLED = {"objective._target_": "athlos.objectives.distillation.DistillObjective"}
LAB = {"study": "lab_ndp", "construct.n": 1, "construct.mono": None, "data.answers.answers_per_question": 4}
ONE_ANSWER = {"study": "lab_ndp_one_answer"}
LM = {"study": "ndp_lm", "construct.n": 1}
TRANSLATION = {"study": "ndp_translation"}
STEP = {"benchmark": "ndp_step"}


def _against(
    where: Mapping[str, Any],
    metric: str,
    ours: Mapping[str, Any],
    other: Mapping[str, Any],
    *,
    names: str,
    direction: Direction,
    varies: tuple[str, ...] = ("objective.",),
) -> Comparison:
    """A metric of one objective less that of another; the two differ in the keys that `varies` begins."""
    return Comparison(
        label=f"{where['study']}: {metric}, {names}",
        ours=Measure(metric=metric, where=ours),
        against=Measure(metric=metric, where=other),
        compare=Compare.DIFFERENCE,
        direction=direction,
        where=where,
        varies=varies,
    )


def _scores(direction: Direction, *metrics: str) -> tuple[Comparison, ...]:
    """Translation: NDP less each baseline."""
    others = (("next token", PLAIN), ("label smoothing", SMOOTHED), ("distillation", DISTILLED))
    return tuple(
        _against(TRANSLATION, metric, MIX, other, names=f"ndp - {name}", direction=direction)
        for metric in metrics
        for name, other in others
    )


CLAIMS = (
    Claim(
        id="ndp.mt",
        text="better translations than next-token training (COMET; ours chrF and BLEU)",
        paper=2.97,
        unit="COMET, best case",
        source="abstract",
        tag=Tag.PAPER,
        comparisons=_scores(Direction.UP, "test/chrf", "test/bleu"),
    ),
    Claim(
        id="ndp.general",
        text="better mean score over general tasks",
        paper=0.61,
        unit="points",
        source="abstract",
        tag=Tag.PAPER,
        needs="a model of 2 to 8 B parameters, tuned on 200,000 instructions",
    ),
    Claim(
        id="ndp.medical",
        text="better mean score over medical tasks",
        paper=10.75,
        unit="points",
        source="abstract",
        tag=Tag.PAPER,
        needs="a model of 7 B parameters and a medical corpus",
    ),
    Claim(
        id="ndp.transfer",
        text="better transfer to a language",
        source="abstract",
        tag=Tag.PAPER,
        needs="the languages and data of that experiment",
    ),
    *(
        Claim(
            id=f"ndp.sim.{name}",
            text=f"the mix is nearer to the outputs of {model} than one-hot targets",
            paper=ratio,
            unit="ratio of cosines",
            source="logs beside the official code",
            tag=Tag.CODE,
            needs=f"{model}",
        )
        for name, model, ratio in (
            ("mistral7b", "Mistral-7B", 1.00047),
            ("nemo", "Mistral-Nemo-12B", 1.00003),
            ("yi34b", "Yi-1.5-34B", 0.99604),
        )
    ),
    Claim(
        id="ndp.iwslt.base",
        text="T5 base, IWSLT17: 19.97 -> 21.87 (arms of different batch sizes)",
        paper=1.90,
        unit="BLEU",
        source="scored by us from released outputs",
        tag=Tag.OURS,
        needs="T5 v1.1 and 206,100 pairs",
    ),
    Claim(
        id="ndp.wmt22.base",
        text="T5 base, WMT22: 13.61 -> 15.14 (arms of different batch sizes)",
        paper=1.53,
        unit="BLEU",
        source="scored by us from released outputs",
        tag=Tag.OURS,
        needs="T5 v1.1 and 206,100 pairs",
    ),
    Claim(
        id="ndp.sim.smollm2",
        text="the mix is nearer to the outputs of SmolLM2-135M than one-hot targets",
        source="our check of the logs beside the official code",
        tag=Tag.OURS,
        comparisons=(
            Comparison(
                label="cosine with the mix over cosine with the label",
                ours=Measure(metric="ndp/cosine_ratio/mix", is_fixed=True),
                direction=Direction.UP,
                bar=1.0,
                where={"study": "ndp_similarity"},
            ),
        ),
    ),
    Claim(
        id="ndp.truth",
        text="the mix is nearer to the true distribution when answers are few and share beginnings",
        source="our lab study",
        tag=Tag.OURS,
        comparisons=(
            *(
                _against(LAB, "test/kl_to_truth", ours, other, names=names, direction=Direction.DOWN)
                for names, ours, other in (
                    ("softmax mix - next token", MIX, PLAIN),
                    ("div mix - next token", MIX_DIV, PLAIN),
                    ("div mix - label smoothing", MIX_DIV, SMOOTHED),
                    ("div mix - control", MIX_DIV, CONTROL),
                )
            ),
            *(
                _against(
                    ONE_ANSWER,
                    "test/kl_to_truth",
                    {**MIX_DIV, "objective.lambda_": 0.2},
                    other,
                    names=f"div mix - {name}",
                    direction=Direction.DOWN,
                    varies=STOPPED,
                )
                for name, other in (
                    ("next token", {**PLAIN, "train.max_steps": 40}),
                    ("label smoothing", SMOOTHED),
                    ("unigram smoothing", UNIGRAM),
                )
            ),
        ),
    ),
    Claim(
        id="ndp.lm",
        text="a lower one-hot loss from scratch on lines of real text",
        source="our study",
        tag=Tag.OURS,
        comparisons=tuple(
            _against(LM, "test/nll", MIX, other, names=f"ndp - {name}", direction=Direction.DOWN)
            for name, other in (("next token", PLAIN), ("label smoothing", SMOOTHED), ("distillation", DISTILLED))
        ),
    ),
    Claim(
        id="ndp.step",
        text="a training step costs at most 1.05 of a one-hot step",
        source="our bar",
        tag=Tag.OURS,
        comparisons=tuple(
            Comparison(
                label=f"step, vocabulary of {vocab}: {arm} / one-hot",
                ours=Measure(metric=f"vocab_{vocab}/ratio/{arm}"),
                direction=Direction.DOWN,
                bar=1.05,
                where=STEP,
            )
            for vocab in (49152, 262144)
            for arm in ("ndp", "ndp_leak")
        ),
    ),
    Claim(
        id="ndp.read",
        text="reading the targets of a batch costs at most 3 % of its step",
        source="our bar",
        tag=Tag.OURS,
        comparisons=tuple(
            Comparison(
                label=f"reading, vocabulary of {vocab}",
                ours=Measure(metric=f"vocab_{vocab}/read_share/ndp"),
                direction=Direction.DOWN,
                bar=0.03,
                where=STEP,
            )
            for vocab in (49152, 262144)
        ),
    ),
)
