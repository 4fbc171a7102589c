"""LANG: rollouts on prompts with fading hints, a reward of language, format and accuracy, and GRPO on it.

One optimizer step is one mini-batch; every `num_updates` steps new rollouts are made. Which prompts, hints and draws an
RL step has follows from the seed and the step; what does not (averages, switched groups) is in the checkpoint.

P prompts of an RL step on this device, G responses a prompt, B = P x G rows.
"""

import random
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from athlos.config.parts import PartContext
from athlos.data.batches import Batch
from athlos.data.records import MathRecord
from athlos.errors import DataError
from athlos.generation.rollouts import Rollouts, sample_group
from athlos.methods.lang.config import LangConfig, SwitchMeasure, num_policy_steps, num_updates
from athlos.methods.lang.figures import lens_figure, trace_figure
from athlos.methods.lang.lens import TokenLanguages, target_shares
from athlos.methods.lang.measures import Verdicts, collected, judged_chunk, ratios, signals
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
from athlos.objectives.config import PolicyConfig
from athlos.objectives.policy import (
    PolicyObjective,
    group_advantages,
    joined_rows,
    policy_rows,
    step_denominator,
)
from athlos.text.language import detector
from athlos.text.prompts import stop_strings
from athlos.training.module import SEED_STRIDE, MethodModule

LAST_MEANS = ("reward", "lc", "acc", "entropy", "response_len", "repetition", "truncated", "signal_share",
              "cost/rollout_tokens_per_s")  # fmt: skip
"""Curves whose end joins the metrics of the run."""


class LangModule(MethodModule):
    """Hinted prompts -> rollouts -> rewards -> advantages -> updates; evaluation asks without hints, like any run."""

    loss_is_progress = False

    def prepare(self, *, context: PartContext) -> None:
        """Check the training prompts and take over the data's stream: its batches are made of rollouts."""
        method = self.config.method
        assert isinstance(method, LangConfig)
        self.method, self.history = method, list[dict[str, float]]()
        self.cuts: Counter[str] = Counter()  # hints by how their trace was cut, on this device
        self._data = context.data
        if context.data is None or not self.config.num_steps:
            return
        assert isinstance(self.objective, PolicyObjective)
        assert isinstance(self.objective.config, PolicyConfig)
        self.policy = self.objective
        self.num_updates, self.num_policy_steps = num_updates(self.config), num_policy_steps(self.config)
        self.pad_id = context.data.pad_id
        self.switch = HintSwitch(method.switch, method.groups)
        train, test = self._math_records(self.config.data.train_split), self._tests()
        languages = sorted({record.language for record in train})
        self.detector = detector(self.config.eval.language_detector, languages)
        records = check_records(
            train, test, config=method, detector=self.detector, bad=context.data.source.bad
        )  # fmt: skip
        self.plan = PromptPlan(records, prompts_per_step=method.prompts_per_step, seed=self.config.seed)
        context.data.own_stream = self.stream

    def _math_records(self, split: str | None) -> list[MathRecord]:
        assert self._data is not None
        assert split is not None
        records = list(self._data.records(split))
        found = [record for record in records if isinstance(record, MathRecord)]
        if len(found) < len(records) or not found:
            name = self.config.data.name
            raise DataError(f"method=lang needs MathRecords; split '{split}' of data={name} has {len(found)} of them")
        return found

    def _tests(self) -> list[MathRecord]:
        """All test items, whatever `data.limit_test` says."""
        assert self._data is not None
        split = self.config.data.test_split
        records = self._data.source.records(split) if split else ()
        return [record for record in records if isinstance(record, MathRecord)]

    def stream(self, first_step: int) -> Iterator[Batch]:
        """One empty batch a micro batch: `on_train_batch_start` fills it, when the weights are those to sample from."""
        for _ in range((self.config.num_steps - first_step) * self.config.num_accumulated):
            empty = torch.zeros(0, 0, dtype=torch.int64)
            yield {"input_ids": empty, "attention_mask": empty}

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        """Make rollouts where an RL step begins, and give the micro batch its rows."""
        super().on_train_batch_start(batch, batch_index)
        micro = batch_index % self.config.num_accumulated
        if micro == 0 and self.global_step % self.num_updates == 0:
            self._begin_policy_step(self.global_step // self.num_updates)
        if micro == 0:
            self.step_log.update({name: value / self.trainer.world_size for name, value in self._step_metrics.items()})
        update = self.global_step % self.num_updates
        rows, step_targets = self._mini_batches[update]
        size = self.config.train.micro_batch_size
        batch.update(self._rows.batch(rows[micro * size : (micro + 1) * size], step_targets=step_targets))
        batch["seen"] = self._worked_on(update) if micro == 0 else torch.zeros(2, dtype=torch.int64)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        return self.step_loss(self.objective.loss(self.model, batch), batch)

    def _begin_policy_step(self, step: int) -> None:
        """One step of the algorithm up to the advantages; the updates follow in `training_step`."""
        prompts = self.prompts(step)
        start = time.perf_counter()
        chunks = self._sample_and_judge(prompts, step)
        seconds = time.perf_counter() - start
        rewards_PG = torch.tensor([rewards for _, verdicts in chunks for rewards in verdicts.rewards])
        advantages_PG = group_advantages(rewards_PG, std=self.policy.config.adv_std)
        sums = self._summed(collected(prompts, chunks, advantages_PG))
        self._rows = joined_rows([
            policy_rows(rollouts, part_PG.flatten().to(self.device), pad_id=self.pad_id)
            for (rollouts, _), part_PG in zip(chunks, advantages_PG.split(self.method.chunk_prompts), strict=True)
        ], pad_id=self.pad_id)  # fmt: skip
        self._mini_batches = self._split()
        self._step_metrics = self._metrics(step, sums, seconds)
        self._update_switch(step, prompts, signals(chunks, advantages_PG, signal=self.method.switch.signal))
        averages = {f"train/switch_ema/{key}": value for key, value in self.switch.average.items()}
        self._step_metrics |= averages
        self.history.append({"step": float(step), **self._step_metrics})

    def prompts(self, step: int) -> list[HintedPrompt]:
        """This device's prompts of an RL step, with the hints that schedule and switch leave."""
        config, size = self.method, self.policy.config.group_size
        slots = self.plan.slots(step)
        mini = self.config.train.batch_size // size
        mine = [
            slot
            for start in range(0, len(slots), mini)
            for slot in slots[start : start + mini][self.global_rank :: self.trainer.world_size]
        ]
        found = []
        for record, number in mine:
            is_probe = config.switch.measure is SwitchMeasure.probe and number % PROBE_EVERY == 0
            share = 0.0 if is_probe else self.shown_share(step, record.language)
            shown: list[str] = []
            if share:
                rng = random.Random(f"{self.config.seed}:hint:{step}:{record.language}:{record.identifier}")
                units = hint_units(record, config.hint)
                self.cuts[units.kind] += 1
                shown = shown_units(units.pieces, share=share, select=config.hint.select, rng=rng)
            text = hinted_prompt(record, "".join(shown), style=self.config.prompt_style)
            found.append(HintedPrompt(record=record, text=text, num_units=len(shown), is_probe=is_probe))
        return found

    def shown_share(self, step: int, language: str) -> float:
        """p_t: the share of the hint's units that a prompt in a language shows at an RL step."""
        if self.switch.is_off(language):
            return 0.0
        hint = self.method.hint
        return hint.p0 * hint_share(step, self.num_policy_steps, schedule=hint.schedule)

    def _sample_and_judge(self, prompts: list[HintedPrompt], step: int) -> list[tuple[Rollouts, Verdicts]]:
        """Rollouts in chunks of prompts; a thread judges the responses of one while the next is sampled."""
        policy, chunk = self.policy.config, self.method.chunk_prompts
        generator = torch.Generator(device=self.device)
        generator.manual_seed((self.config.seed * SEED_STRIDE + step) * self.trainer.world_size + self.global_rank)
        stops = self._stops(prompt.record for prompt in prompts)
        waiting: list[tuple[Rollouts, Future[Verdicts]]] = []
        with ThreadPoolExecutor(max_workers=1) as judges:
            for start in range(0, len(prompts), chunk):
                part = prompts[start : start + chunk]
                with self.trainer.precision_plugin.forward_context():  # in the number format of the updates
                    rollouts = sample_group(
                        self.model, self.tokenizer, [prompt.text for prompt in part], group_size=policy.group_size,
                        max_new_tokens=policy.max_new_tokens, temperature=policy.temperature, generator=generator,
                        stop=stops,
                    )  # fmt: skip
                judging = judges.submit(
                    judged_chunk, part, rollouts, detector=self.detector, config=self.method.reward,
                    progress=step / self.num_policy_steps,
                )  # fmt: skip
                waiting.append((rollouts, judging))
            last = time.perf_counter()
            done = [(rollouts, verdicts.result()) for rollouts, verdicts in waiting]
            self._reward_wait_seconds = time.perf_counter() - last
        return done

    def _stops(self, records: Iterable[MathRecord]) -> list[str]:
        """The stop strings of all records: each language may have its own, and none stands in another's answer."""
        style = self.config.prompt_style
        return list(dict.fromkeys(stop for record in records for stop in stop_strings(record, style)))

    def _update_switch(self, step: int, prompts: list[HintedPrompt], carries: list[bool]) -> None:
        keys = self.switch.keys
        counts = torch.zeros(len(keys), 2, dtype=torch.float64)
        for prompt, carry in zip(prompts, carries, strict=True):
            if prompt.is_probe or self.method.switch.measure is SwitchMeasure.hinted:
                counts[keys.index(self.switch.key(prompt.record.language))] += torch.tensor([float(carry), 1.0])
        summed = self._over_devices(counts).tolist()
        self.switch.update(step, {key: (row[0], row[1]) for key, row in zip(keys, summed, strict=True)})

    def _summed(self, values: Mapping[str, float]) -> dict[str, float]:
        summed = self._over_devices(torch.tensor(list(values.values()), dtype=torch.float64))
        return dict(zip(values, summed.tolist(), strict=True))

    def _over_devices(self, values: Tensor) -> Tensor:
        """The sum over processes, the same on each."""
        if self.trainer.world_size == 1:
            return values
        gathered = self.all_gather(values.to(self.device))
        assert isinstance(gathered, Tensor)
        return gathered.sum(dim=0).cpu()

    def _split(self) -> list[tuple[list[int], int]]:
        """For each update of this RL step: the rows that have a gradient, and the denominator over all devices."""
        per_device = self.config.train.batch_size // self.trainer.world_size
        is_active = self.policy.is_active(self._rows.advantages_B).tolist()
        tokens_U = self._rows.num_tokens_B.view(self.num_updates, per_device).sum(dim=1)
        tokens = self._over_devices(tokens_U.double().cpu()).tolist()
        return [
            (
                [row for row in range(update * per_device, (update + 1) * per_device) if is_active[row]],
                step_denominator(
                    self.config.train.batch_size, int(tokens[update]), denominator=self.policy.config.denominator
                ),
            )
            for update in range(self.num_updates)
        ]

    def _metrics(self, step: int, sums: Mapping[str, float], seconds: float) -> dict[str, float]:
        found = ratios(sums) | {
            "cost/rollout_tokens_per_s": sums["tokens"] / seconds,
            "cost/reward_wait_share": self._reward_wait_seconds / seconds,
        }
        for group, languages in self.method.groups.items():
            shares = [self.shown_share(step, language) for language in languages]
            found[f"train/hint_ratio/{group}"] = sum(shares) / len(shares)
        return found

    def _worked_on(self, update: int) -> Tensor:
        """[2]: rows and tokens of a mini-batch on this device, skipped ones too: they were sampled and judged."""
        per_device = self.config.train.batch_size // self.trainer.world_size
        tokens = self._rows.attention_mask_BT[update * per_device : (update + 1) * per_device].sum()
        return torch.tensor([per_device, int(tokens)])

    def training_metrics(self) -> dict[str, float]:
        """Means over the last quarter of the RL steps, how traces were cut, and `diag/switch_step/<key>`.

        The last is the RL step after whose update a key went without hints; not a number = never.
        """
        last = self.history[-max(1, len(self.history) // 4) :]
        means = {name: sum(entry[name] for entry in last) / len(last) for name in LAST_MEANS}
        found = {name if "/" in name else f"train/{name}": value for name, value in means.items()}
        found |= {f"diag/hint_cut/{kind}": count / self.cuts.total() for kind, count in self.cuts.items()}
        off = self.switch.off_since
        return found | {f"diag/switch_step/{key}": float(off.get(key, "nan")) for key in self.switch.keys}

    def measurements(self) -> tuple[dict[str, float], dict[str, bytes]]:
        """The logit lens on test prompts, and figures."""
        metrics: dict[str, float] = {}
        figures = {"lang_traces": trace_figure(self.history)} if self.history else {}
        if self.method.lens_prompts and self._data is not None:
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
            self.model, self.tokenizer, [(hinted_prompt(one, "", style=style), one.language) for one in chosen],
            languages=TokenLanguages(self.tokenizer, {one: "\n".join(text) for one, text in texts.items()}),
            max_new_tokens=self.config.decoding.max_new_tokens, stop=self._stops(chosen),
        )  # fmt: skip

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["lang"] = {"switch": self.switch.state(), "history": self.history, "cuts": dict(self.cuts)}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.switch.restore(checkpoint["lang"]["switch"])
        self.history, self.cuts = list(checkpoint["lang"]["history"]), Counter(checkpoint["lang"]["cuts"])
