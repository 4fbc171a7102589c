"""How much of a hint is shown at a step, and when a group of languages goes without. Pure Python, no torch."""

import math
from collections.abc import Mapping
from typing import Any

from athlos.methods.lang.config import HintSchedule, SwitchConfig, SwitchScope
from athlos.text.language import base_language

EXP_RATE = 5.0
"""The exponential schedule ends at exp(-5) = 0.0067."""
ALL = "all"
"""The one key of `switch.scope=global` and `none`."""


def hint_share(step: int, num_steps: int, *, schedule: HintSchedule) -> float:
    """Share of a hint's units at RL step `step` of `num_steps`, in [0, 1]; 0 for `none`.

    `steps` is QuestA's: all of p0 in the first half, half of it in the second. `num_steps` counts all steps, also when
    groups switch early.
    """
    progress = step / num_steps
    if schedule is HintSchedule.cosine:
        return 0.5 * (1 + math.cos(math.pi * progress))
    if schedule is HintSchedule.linear:
        return 1 - progress
    if schedule is HintSchedule.exp:
        return math.exp(-EXP_RATE * progress)
    if schedule is HintSchedule.steps:
        return 1.0 if progress < 0.5 else 0.5
    return 1.0 if schedule is HintSchedule.constant else 0.0


class HintSwitch:
    """An average of how often prompts carry signal, by key; a key whose average reaches tau gets no hints again.

    A key is a group, a language, or `all`, as `switch.scope` says; `none` averages and never switches.
    """

    def __init__(self, config: SwitchConfig, groups: Mapping[str, list[str]]) -> None:
        self.config = config
        self._group_of = {
            base_language(language): group for group, languages in groups.items() for language in languages
        }
        if config.scope is SwitchScope.group:
            keys = list(groups)
        elif config.scope is SwitchScope.language:
            keys = list(self._group_of)
        else:
            keys = [ALL]
        self.average = dict.fromkeys(keys, 0.0)
        self.off_since: dict[str, int] = {}
        """Key -> RL step (0-based) whose update switched it."""

    @property
    def keys(self) -> list[str]:
        return list(self.average)

    def key(self, language: str) -> str:
        if self.config.scope is SwitchScope.group:
            return self._group_of[base_language(language)]
        return base_language(language) if self.config.scope is SwitchScope.language else ALL

    def is_off(self, language: str) -> bool:
        return self.key(language) in self.off_since

    def update(self, step: int, signals: Mapping[str, tuple[float, float]]) -> None:
        """`signals` holds, for each key in the batch, (prompts that carry signal, prompts looked at).

        A key without prompts keeps its average.
        """
        config = self.config
        for key, (carrying, looked_at) in signals.items():
            if not looked_at:
                continue
            share = carrying / looked_at
            self.average[key] = config.ema_alpha * self.average[key] + (1 - config.ema_alpha) * share
            may_switch = config.scope is not SwitchScope["none"] and step >= config.t_min
            if may_switch and key not in self.off_since and self.average[key] >= config.tau:
                self.off_since[key] = step

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return {"average": dict(self.average), "off_since": dict(self.off_since)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.average, self.off_since = dict(state["average"]), dict(state["off_since"])
