"""LANG: group-relative policy optimisation on prompts whose hints fade, and stop for each group of languages by itself.

RL step t of T, over the loop of `training/rollout_module.py`:

1. `prompts`: each question stands with the first floor(p_t x units) units of a teacher's trace behind it, where
   p_t = p0 (1 + cos(pi t / T)) / 2 (`schedule.hint_share`), and p_t = 0 in a group of languages that has switched;
2. G responses to each are sampled and scored: 1 if language, format and answer are all right, else 0
   (`reward=conjunction`, in `objectives/rewards.py`; the hint is part of the prompt and is not looked at);
3. advantages within each group of responses, and the clipped loss on them: the loop's;
4. `after_rollouts`: the share of a group's prompts that carry signal joins its moving average; a group whose average
   reaches tau goes without hints for good (`schedule.HintSwitch`).

Evaluation asks without hints, like any run. The baselines are other values of the same keys, and other rewards.
"""

import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from athlos.data.records import MathRecord
from athlos.errors import DataError
from athlos.methods.lang.config import LangConfig, SwitchMeasure, SwitchSignal
from athlos.methods.lang.figures import lens_figure, trace_figure
from athlos.methods.lang.lens import TokenLanguages, target_shares
from athlos.methods.lang.prompts import (
    PROBE_EVERY,
    HintedPrompt,
    PromptPlan,
    check_records,
    hint_units,
    hinted_prompt,
    shown_units,
)
from athlos.methods.lang.schedule import HintSwitch, hint_share
from athlos.models.forward import causal_model
from athlos.models.sites import backbone
from athlos.parts import PartContext, Scores
from athlos.text.language import detector
from athlos.training.module import Measured
from athlos.training.rollout_module import RolloutModule


class LangModule(RolloutModule[LangConfig, HintedPrompt]):
    """The policy loop with hints in its prompts, and the switch that ends them."""

    def before_training(self, *, context: PartContext) -> None:
        """Check the training prompts, plan their order, and set the switch up."""
        super().before_training(context=context)
        assert context.data is not None
        method = self.method
        if method.lens_prompts:
            backbone(causal_model(self.model))  # the lens needs it after training: what it lacks is told now
        self.cuts: Counter[str] = Counter()  # hints by how their trace was cut, on this device
        train = self._math_records(self.config.data.train_split)
        records = check_records(
            train,
            self._tests(),
            config=method,
            bad=context.data.source.bad,
            detector=detector(self.config.reward.language_detector, sorted({record.language for record in train})),
        )
        self.plan = PromptPlan(records, prompts_per_step=method.prompts_per_step, seed=self.config.seed)
        self.switch = HintSwitch(method.switch, method.groups)

    def prompts(self, step: int) -> list[HintedPrompt]:
        """This device's prompts of an RL step, with the hints that schedule and switch leave."""
        return [self._hinted(record, number, step=step) for record, number in self.share(self.plan.slots(step))]

    def shown_share(self, step: int, language: str) -> float:
        """p_t: the share of the hint's units that a prompt in a language shows at an RL step."""
        if self.switch.is_off(language):
            return 0.0
        hint = self.method.hint
        return hint.p0 * hint_share(step, self.num_policy_steps, schedule=hint.schedule)

    def _hinted(self, record: MathRecord, number: int, *, step: int) -> HintedPrompt:
        """A question with its hint; `number` counts the prompts of its language, some of which probe without one."""
        is_probe = self.method.switch.measure is SwitchMeasure.probe and number % PROBE_EVERY == 0
        share = 0.0 if is_probe else self.shown_share(step, record.language)
        shown: list[str] = []
        if share:
            hint = self.method.hint
            rng = random.Random(f"{self.config.seed}:hint:{step}:{record.language}:{record.identifier}")
            units = hint_units(record, hint, tokenizer=self.tokenizer, style=self.config.prompt_style)
            self.cuts[units.kind] += 1
            shown = shown_units(units.pieces, share=share, select=hint.select, rng=rng)
        text = hinted_prompt(record, "".join(shown), style=self.config.prompt_style)
        return HintedPrompt(record=record, text=text, num_units=len(shown), is_probe=is_probe)

    def after_rollouts(
        self, step: int, *, prompts: Sequence[HintedPrompt], scores: Scores, advantages_PG: Tensor
    ) -> dict[str, float]:
        """Update the switch by which prompts carry signal; curves of hints and averages."""
        curves = {"hint_units": self._mean_units(prompts)}
        for group, languages in self.method.groups.items():
            shares = [self.shown_share(step, language) for language in languages]
            curves[f"train/hint_ratio/{group}"] = sum(shares) / len(shares)
        self._update_switch(step, prompts, self._carries_signal(scores, advantages_PG))
        return curves | {f"train/switch_ema/{key}": value for key, value in self.switch.average.items()}

    def _carries_signal(self, scores: Scores, advantages_PG: Tensor) -> list[bool]:
        """Whether each prompt has a response of positive advantage, or a right one (`switch.signal`)."""
        is_positive = self.method.switch.signal is SwitchSignal.pos_adv
        carries: list[bool] = (advantages_PG > 0 if is_positive else scores.is_right_PG).any(dim=1).tolist()
        return carries

    def _update_switch(self, step: int, prompts: Sequence[HintedPrompt], carries: Sequence[bool]) -> None:
        keys = self.switch.keys
        counts = torch.zeros(len(keys), 2, dtype=torch.float64)
        for prompt, carry in zip(prompts, carries, strict=True):
            if prompt.is_probe or self.method.switch.measure is SwitchMeasure.hinted:
                counts[keys.index(self.switch.key(prompt.record.language))] += torch.tensor([float(carry), 1.0])
        summed = self.over_devices(counts).tolist()
        self.switch.update(step, {key: (row[0], row[1]) for key, row in zip(keys, summed, strict=True)})

    def _mean_units(self, prompts: Sequence[HintedPrompt]) -> float:
        own = [float(sum(prompt.num_units for prompt in prompts)), float(len(prompts))]
        units, number = self.over_devices(torch.tensor(own, dtype=torch.float64)).tolist()
        return float(units / number)

    def _math_records(self, split: str | None) -> list[MathRecord]:
        assert self.data is not None
        assert split is not None
        records = list(self.data.records(split))
        math_records = [record for record in records if isinstance(record, MathRecord)]
        if len(math_records) < len(records) or not math_records:
            name = self.config.data.name
            raise DataError(
                f"method=lang needs MathRecords; split '{split}' of data={name} has {len(math_records)} of them"
            )
        return math_records

    def _tests(self) -> list[MathRecord]:
        """All test items, whatever `data.limit_test` says."""
        assert self.data is not None
        split = self.config.data.test_split
        records = self.data.source.records(split) if split else ()
        return [record for record in records if isinstance(record, MathRecord)]

    def after_training(self) -> Measured:
        """Means of the curves, how traces were cut, and `diag/switch_step/<key>`; a figure of the curves.

        The last is the RL step after whose update a key went without hints; not a number = never.
        """
        cuts = {f"diag/hint_cut/{kind}": count / self.cuts.total() for kind, count in self.cuts.items()}
        off = self.switch.off_since
        switches = {f"diag/switch_step/{key}": float(off.get(key, "nan")) for key in self.switch.keys}
        metrics, _ = super().after_training()
        return metrics | cuts | switches, {"lang_traces": trace_figure(self.history)}

    def measurements(self) -> Measured:
        """The logit lens on test prompts."""
        metrics: dict[str, float] = {}
        figures: dict[str, bytes] = {}
        if self.method.lens_prompts and self.data is not None:
            curves = self._lens()
            for language, shares in curves.items():
                name = "diag/lens_language" if language == "all" else f"diag/lens_{language}"
                metrics |= {f"{name}/{layer}": share for layer, share in enumerate(shares, start=1)}
            figures["lang_lens"] = lens_figure(curves, title="share of the question's language, by layer")
        return metrics, figures

    def _lens(self) -> dict[str, list[float]]:
        """Shares by layer on the first test items of each language; words are counted in the training traces."""
        texts: dict[str, list[str]] = {}
        for record in self._math_records(self.config.data.train_split):
            texts.setdefault(record.language, []).append(record.solution)
        tests: dict[str, list[MathRecord]] = {}
        for record in self._tests():
            tests.setdefault(record.language, []).append(record)
        each = max(1, self.method.lens_prompts // len(tests))
        chosen = [record for records in tests.values() for record in records[:each]]
        style = self.config.prompt_style
        return target_shares(
            self.model,
            self.tokenizer,
            [(hinted_prompt(record, "", style=style), record.language) for record in chosen],
            languages=TokenLanguages(
                self.tokenizer, {language: "\n".join(traces) for language, traces in texts.items()}
            ),
            max_new_tokens=self.config.decoding.max_new_tokens,
            stop=self.stops(chosen),
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["lang"] = {"switch": self.switch.state(), "cuts": dict(self.cuts)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.switch.restore(checkpoint["lang"]["switch"])
        self.cuts = Counter(checkpoint["lang"]["cuts"])
