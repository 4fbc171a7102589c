"""What the paper of LANG claims, and the bars of our lab and small studies."""

from collections.abc import Mapping
from typing import Any

from athlos.config.claims import Claim, Compare, Comparison, Direction, Measure, Reduce, Tag

LAB = {"study": "lang_lab", "train.max_steps": 120}
"""Not the model before training, which the study has a run of."""
LONG, SMALL = {"study": "lang_lab_long"}, {"study": "lang_gemma3", "train.max_steps": 50}
KNOWN = {"study": "lang_lab_known"}
"""From a base in which low languages are known and rarely right."""
FADES = {"reward.rule": "conjunction", "method.hint.schedule": "cosine", "method.switch.scope": "group"}
LC_GRPO = {"reward.rule": "lc_penalty", "method.hint.schedule": "none"}
GRPO = {"reward.rule": "conjunction", "reward.lc": False, "method.hint.schedule": "none"}
FIXED = {"reward.rule": "conjunction", "method.hint.schedule": "constant"}
GPUS = "Qwen2.5-7B or 3B trained for 117 steps with 8 rollouts of up to 16,384 tokens: GPUs"
ARMS = ("method.hint", "method.switch", "reward")


def _arms(
    label: str,
    metric: str,
    ours: Mapping[str, Any],
    against: Mapping[str, Any],
    *,
    where: Mapping[str, Any] = LAB,
    direction: Direction = Direction.UP,
) -> Comparison:
    return Comparison(
        label=label,
        ours=Measure(metric=metric, where=ours),
        against=Measure(metric=metric, where=against),
        compare=Compare.DIFFERENCE,
        direction=direction,
        where=where,
        varies=ARMS,
    )


def _schedules(better: str, worse: str, *, name: str = "lab", where: Mapping[str, Any] = LAB) -> Comparison:
    rule = {"reward.rule": "conjunction"}
    ours = {**FADES, "method.hint.schedule": better}
    return _arms(
        f"{name}, {better} - {worse}", "test/lc_acc", ours, {**rule, "method.hint.schedule": worse}, where=where
    )


def _scaled(claim: str, text: str, ours: float, source: str, tag: Tag = Tag.NOTE) -> Claim:
    return Claim(id=claim, text=text, paper=ours, unit="LC&Acc", source=source, tag=tag, needs=GPUS)


CLAIMS = (
    _scaled("lang.7b.mmath", "LANG on MMATH, 7B; LC-GRPO 26.3, mGRPO 26.0", 28.6, "main table, second-hand"),
    _scaled("lang.7b.poly", "LANG on PolyMath, 7B; LC-GRPO 13.9, mGRPO 13.0", 15.6, "main table, second-hand"),
    _scaled("lang.3b.mmath", "LANG on MMATH, 3B; LC-GRPO 16.8, mGRPO 16.0", 17.7, "main table, second-hand"),
    _scaled("lang.3b.poly", "LANG on PolyMath, 3B; LC-GRPO 9.5, GRPO 8.6", 10.1, "main table, second-hand"),
    Claim(
        id="lang.mean",
        text="mean gain over LC-GRPO of four models, MMATH; PolyMath +18.7 %",
        paper=24.1,
        unit="%",
        source="second-hand; the two models listed gain 8.7 and 5.4 % on MMATH",
        tag=Tag.NOTE,
        needs=GPUS,
    ),
    Claim(
        id="lang.th",
        text="gain over mGRPO on Thai MMATH",
        paper=39.0,
        unit="%",
        source="second-hand",
        tag=Tag.NOTE,
        needs=GPUS,
    ),
    Claim(
        id="lang.vi",
        text="gain over mGRPO on Vietnamese PolyMath",
        paper=24.6,
        unit="%",
        source="second-hand",
        tag=Tag.NOTE,
        needs=GPUS,
    ),
    Claim(
        id="lang.transfer",
        text="MMLU-ProX 35.9 to 41.0, XWinograd 65.7 to 79.9, mean with XStoryCloze and XCOPA",
        paper=10.9,
        unit="points",
        source="second-hand",
        tag=Tag.NOTE,
        needs=GPUS,
    ),
    Claim(
        id="lang.lc_grpo",
        text="LANG answers right and in language more often than LC-GRPO",
        source="main table",
        tag=Tag.PAPER,
        comparisons=(
            _arms("lab, LANG - LC-GRPO", "test/lc_acc", FADES, LC_GRPO),
            _arms("lab, LANG - LC-GRPO, low group", "test/lc_acc/low", FADES, LC_GRPO),
            _arms("lab, four times the steps, LANG - LC-GRPO", "test/lc_acc", FADES, LC_GRPO, where=LONG),
            _arms("lab, four times the steps, low group", "test/lc_acc/low", FADES, LC_GRPO, where=LONG),
            _arms("lab, known languages, LANG - LC-GRPO", "test/lc_acc", FADES, LC_GRPO, where=KNOWN),
            _arms("lab, known languages, low group", "test/lc_acc/low", FADES, LC_GRPO, where=KNOWN),
            _arms("Gemma 3 270M, LANG - LC-GRPO", "test/lc_acc", FADES, LC_GRPO, where=SMALL),
        ),
    ),
    Claim(
        id="lang.hints",
        text="hints that never fade raise the reward in training and lower the score without hints",
        source="pilot study, second-hand",
        tag=Tag.NOTE,
        comparisons=(
            _arms("lab, fixed hints - GRPO, reward", "train/reward", FIXED, GRPO),
            _arms("lab, fixed hints - GRPO, entropy", "train/entropy", FIXED, GRPO),
            _arms("lab, fixed hints - GRPO, length", "train/response_len", FIXED, GRPO),
            _arms("lab, fixed hints - GRPO, repetition", "train/repetition", FIXED, GRPO),
            _arms("lab, fixed hints - GRPO, test", "test/acc", FIXED, GRPO, direction=Direction.DOWN),
        ),
    ),
    Claim(
        id="lang.both",
        text="accuracy rises without loss of language consistency",
        source="abstract",
        tag=Tag.PAPER,
        comparisons=(
            _arms("lab, LANG - GRPO, language consistency", "test/lc", FADES, GRPO),
            _arms("lab, LANG - fixed hints, accuracy", "test/acc", FADES, FIXED),
            _arms("lab, known languages, LANG - GRPO, language consistency", "test/lc", FADES, GRPO, where=KNOWN),
            _arms("lab, known languages, LANG - fixed hints, accuracy", "test/acc", FADES, FIXED, where=KNOWN),
        ),
    ),
    Claim(
        id="lang.layers",
        text="more of the layers think in the target language after training",
        source="abstract",
        tag=Tag.PAPER,
        comparisons=(
            Comparison(
                label="lab, LANG - GRPO, mean over layers",
                ours=Measure(metric="diag/lens_language/*", where=FADES, reduce=Reduce.MEAN),
                against=Measure(metric="diag/lens_language/*", where=GRPO, reduce=Reduce.MEAN),
                compare=Compare.DIFFERENCE,
                direction=Direction.UP,
                where=LAB,
                varies=ARMS,
            ),
        ),
    ),
    Claim(
        id="lang.ablation",
        text="cosine above linear above exponential above constant; full 28.6, linear 27.1, exp "
        "24.1, constant 10.1 on MMATH",
        source="ablation table, second-hand",
        tag=Tag.NOTE,
        comparisons=(
            _schedules("cosine", "linear"),
            _schedules("linear", "exp"),
            _schedules("exp", "constant"),
            _schedules("cosine", "linear", name="lab, known languages", where=KNOWN),
            _schedules("cosine", "constant", name="lab, known languages", where=KNOWN),
        ),
    ),
)
