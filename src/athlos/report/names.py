"""What names say: of a metric, its better direction and its language; of a class in a config, the part that it is."""

import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from athlos.config.registry import registry

LOWER_IS_BETTER = (
    "ppl",
    "nll",
    "loss",
    "english_loss",
    "unigram_nll",
    "kl_to_truth",
    "gap_to_floor",
    "bits_per_byte",
    "ter",
    "wer",
    "cer",
    "ece",
    "ece_debiased",
    "ece_mass",
    "ece_width",
    "mce",
    "brier",
    "aurc",
    "e_aurc",
    "runaway_rate",
    "em_gap",
    "em_std",
    "wall_s",
    "peak_mb",
)
HIGHER_IS_BETTER = (
    "acc",
    "acc_listed",
    "acc_letter",
    "acc_non_english",
    "acc_listed_non_english",
    "acc_letter_non_english",
    "accuracy",
    "calibration_accuracy",
    "em",
    "cover_em",
    "str_em",
    "f1",
    "bleu",
    "chrf",
    "comet",
    "rouge1",
    "rouge2",
    "rougeL",
    "auroc",
    "precision",
    "recall",
    "mrr",
    "ndcg",
    "lc",
    "lc_acc",
    "tokens_per_s",
    "prefill_tokens_per_s",
    "decode_tokens_per_s",
)
DIRECTIONS = {name: -1 for name in LOWER_IS_BETTER} | {name: 1 for name in HIGHER_IS_BETTER}
"""Last word of a metric's name -> 1 where greater is better, -1 where smaller is. Others have no known direction."""

LANGUAGE = re.compile(r"[a-z]{2,3}(?:[-_](?:[A-Z][a-z]{3}|[A-Z]{2}|[0-9]{3}))*")

NO_LANGUAGES = {*DIRECTIONS, "low", "mid"}
"""Last words that look like a code: metrics, and groups of languages by their resources."""


def direction(metric: str) -> int:
    """1 where greater is better, -1 where smaller is, 0 where nobody said. `test/acc/de` is an `acc`."""
    words = metric.split("/")
    for word in reversed(words[1:] or words):
        if sign := DIRECTIONS.get(word.removesuffix("_base")):
            return sign
    return 0


def by_language(metrics: Iterable[str]) -> dict[str, dict[str, str]]:
    """Metric -> language -> full name, for the metrics that stand once a language: `test/acc/de`, `test/acc/zh`.

    A last word is a language when it looks like a code and the name without it is a metric too, or is shared by two
    or more such words.
    """
    names = set(metrics)
    by_metric: dict[str, dict[str, str]] = {}
    for name in sorted(names):
        metric, _, last = name.rpartition("/")
        if metric.count("/") >= 1 and LANGUAGE.fullmatch(last) and last not in NO_LANGUAGES:
            by_metric.setdefault(metric, {})[last] = name
    return {metric: languages for metric, languages in by_metric.items() if metric in names or len(languages) > 1}


TARGET = "._target_"


def shown_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """A flat config as people write it: `surgery: none` in place of `surgery._target_` and a class.

    A part that is not registered is shown by the last word of its class. The line goes where the config names the part
    anyway: in `data.name` beside `data._target_`, or in the key itself (`eval.suites.math`).
    """
    shown: dict[str, Any] = {}
    for key, value in config.items():
        if not key.endswith(TARGET) or not isinstance(value, str):
            shown[key] = value
            continue
        place = key.removesuffix(TARGET)
        group = place.rpartition(".")[2]
        slug = _slugs().get((group, value)) or _slugs().get(("", value)) or value.rpartition(".")[2]
        if f"{place}.name" not in config and slug != group:
            shown[place] = slug
    return shown


@cache
def _slugs() -> dict[tuple[str, str], str]:
    """(Group, class) -> name of the part; the class alone, under the group "", for parts that stand elsewhere."""
    parts = [part for part in registry().parts.values() if part.target]
    return {("", part.target): part.name for part in parts} | {(part.group, part.target): part.name for part in parts}
