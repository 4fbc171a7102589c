"""`RolloutModule`: policy optimisation on the model's own responses, for every method that learns from rewards.

One RL step, in `micro_batches`, from top to bottom:

1. the method says what is asked (`prompts`);
2. the model answers each prompt G times, a chunk of prompts at a time (`generation/rollouts.py`), while a thread judges
   the chunk before it with the run's `reward` (`objectives/rewards.py`);
3. a response's advantage is its reward against those of its group (`objectives/policy.py`);
4. the method looks at what came out (`after_rollouts`), and curves are kept;
5. the responses, cut into mini-batches, are learned from by the clipped loss: one optimizer step each, in micro batches
   (`training_step`). Its ratio is p / p_old, both in the precision of the training: where the responses were sampled in
   another (`rollout_dtype`), p_old is computed once, before the first update.

Rollouts, prompts and draws of an RL step follow from the seed and the step; what does not (history, and what a method
adds) is in the checkpoint. Rollouts are not, so runs stop and resume between RL steps.

P prompts of an RL step on this device, G responses a prompt, B = P x G rows.
"""

import itertools
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from athlos.data.batches import Batch
from athlos.data.records import Record
from athlos.generation.rollouts import PolicyPrompt, Rollouts, response_entropies, sample_group
from athlos.objectives.config import PolicyConfig
from athlos.objectives.policy import (
    PolicyObjective,
    PolicyRows,
    group_advantages,
    joined_rows,
    policy_rows,
    step_denominator,
)
from athlos.objectives.rewards import build_reward
from athlos.parts import PartContext, Scores
from athlos.text.prompts import stop_strings
from athlos.training.module import SEED_STRIDE, Measured, MethodModule
from athlos.training.rollout_config import RolloutMethodConfig, num_policy_steps, num_updates

RolloutMethodT = TypeVar("RolloutMethodT", bound=RolloutMethodConfig)
PromptT = TypeVar("PromptT", bound=PolicyPrompt)
SlotT = TypeVar("SlotT")

REPEATED_GRAM = 4
"""Tokens of the n-grams whose repetition is a curve."""


@dataclass(frozen=True, kw_only=True)
class JudgedRollouts:
    """The responses to an RL step's prompts on this device, chunk by chunk, and what they earned."""

    chunks: list[Rollouts]
    scores: Scores
    repetition: float
    """Sum over responses of `repeated_share`."""
    seconds: float
    wait_seconds: float
    """Of `seconds`: after the last response was sampled, until the last was judged."""


class RolloutModule(MethodModule[RolloutMethodT], ABC, Generic[RolloutMethodT, PromptT]):
    """The policy loop. A method fills `prompts`, and `after_rollouts` where it changes with what came out.

    One optimizer step is one mini-batch; every `num_updates` of them new rollouts are made. Lightning fetches batches
    ahead, so the data loader gives empty ones, and each is filled when its turn comes: with rollouts of the weights
    that the last update left.
    """

    loss_is_progress = False

    @abstractmethod
    def prompts(self, step: int) -> list[PromptT]:
        """This device's prompts of an RL step (see `share`), a function of seed, step and the state of the method."""

    def after_rollouts(
        self, step: int, *, prompts: Sequence[PromptT], scores: Scores, advantages_PG: Tensor
    ) -> dict[str, float]:
        """Called before the updates of an RL step: what the method learns from it, and further curves, by name."""
        return {}

    def before_training(self, *, context: PartContext) -> None:
        """Build the reward."""
        assert context.data is not None
        assert isinstance(self.objective, PolicyObjective)
        self.policy: PolicyConfig = self.objective.config
        self.num_updates, self.num_policy_steps = num_updates(self.config), num_policy_steps(self.config)
        self.pad_id = context.data.pad_id
        self.reward = build_reward(self.config.reward)
        self.reward.prepare(context=context)
        self.history: list[dict[str, float]] = []
        """One entry an RL step: its number and its curves."""

    def micro_batches(self, first_update: int) -> Iterator[Batch]:
        """The algorithm: the micro batches of all updates from `first_update` on, the first one of an RL step."""
        for step in itertools.count(first_update // self.num_updates):
            prompts = self.prompts(step)
            judged = self.sample_and_judge(prompts, step)
            assert isinstance(self.objective, PolicyObjective)
            advantages_PG = group_advantages(
                judged.scores.rewards_PG.float(), std=self.policy.adv_std, eps=self.objective.advantage_eps
            )
            curves = self._curves(judged, advantages_PG)
            curves |= self.after_rollouts(step, prompts=prompts, scores=judged.scores, advantages_PG=advantages_PG)
            self.history.append({"step": float(step), **curves})
            for update in self._updates(self._rows(judged, advantages_PG)):
                # Processes add up what they log, and each has the sums over all of them already.
                self.step_log.update({name: value / self.trainer.world_size for name, value in curves.items()})
                yield from update

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        return self.step_loss(self.objective.loss(self.model, batch), batch)

    def train_dataloader(self) -> DataLoader[Batch]:
        """An empty batch for each micro batch, which `on_train_batch_start` fills."""
        first_update = self.trainer.global_step
        self._fillings = self.micro_batches(first_update)
        empty = torch.zeros(0, 0, dtype=torch.int64)
        number = (self.config.num_steps - first_update) * self.config.num_accumulated
        batches = [{"input_ids": empty, "attention_mask": empty} for _ in range(number)]
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]  # a list is a data set too

    def on_train_batch_start(self, batch: Batch, batch_index: int) -> None:
        super().on_train_batch_start(batch, batch_index)
        batch.update(next(self._fillings))

    def share(self, slots: Sequence[SlotT]) -> list[SlotT]:
        """This device's part of an RL step's slots, one a prompt: every mini-batch is dealt out evenly."""
        mini = self.config.train.batch_size // self.policy.group_size
        return [
            slot
            for start in range(0, len(slots), mini)
            for slot in slots[start : start + mini][self.global_rank :: self.trainer.world_size]
        ]

    def sample_and_judge(self, prompts: Sequence[PromptT], step: int) -> JudgedRollouts:
        """Rollouts in chunks of prompts; a thread judges the responses of one while the next is sampled."""
        generator = torch.Generator(device=self.device)
        generator.manual_seed((self.config.seed * SEED_STRIDE + step) * self.trainer.world_size + self.global_rank)
        stops = self.stops(prompt.record for prompt in prompts)
        chunks: list[Rollouts] = []
        judgements: list[Future[tuple[Scores, float]]] = []
        start = time.perf_counter()
        with ThreadPoolExecutor(max_workers=1) as judges:
            for first in range(0, len(prompts), self.method.chunk_prompts):
                part = prompts[first : first + self.method.chunk_prompts]
                with self.trainer.precision_plugin.forward_context():  # in the number format of the updates
                    rollouts = sample_group(
                        self.model,
                        self.tokenizer,
                        [prompt.text for prompt in part],
                        group_size=self.policy.group_size,
                        max_new_tokens=self.policy.max_new_tokens,
                        temperature=self.policy.temperature,
                        generator=generator,
                        stop=stops,
                        dtype=self.method.rollout_dtype,
                    )
                    if self.reward.reads_entropies:
                        rollouts.entropies = response_entropies(self.model, rollouts)
                chunks.append(rollouts)
                judgements.append(judges.submit(self._judge, part, rollouts, progress=step / self.num_policy_steps))
            last = time.perf_counter()
            results = [judgement.result() for judgement in judgements]
        end = time.perf_counter()
        return JudgedRollouts(
            chunks=chunks,
            scores=joined_scores([scores for scores, _ in results]),
            repetition=sum(repetition for _, repetition in results),
            seconds=end - start,
            wait_seconds=end - last,
        )

    def _judge(self, prompts: Sequence[PromptT], rollouts: Rollouts, *, progress: float) -> tuple[Scores, float]:
        lengths = rollouts.response_mask.sum(dim=1).tolist()
        ids = [row[:length] for row, length in zip(rollouts.response_ids.tolist(), lengths, strict=True)]
        scores = self.reward.scores(prompts, rollouts, progress=progress)
        return scores, sum(repeated_share(row) for row in ids)

    def stops(self, records: Iterable[Record]) -> list[str]:
        """The stop strings of all records: each language may have its own, and none stands in another's answer."""
        style = self.config.prompt_style
        return list(dict.fromkeys(stop for record in records for stop in stop_strings(record, style)))

    def _rows(self, judged: JudgedRollouts, advantages_PG: Tensor) -> PolicyRows:
        parts_PG = advantages_PG.split(self.method.chunk_prompts)
        right_PG = judged.scores.is_right_PG.split(self.method.chunk_prompts)
        return joined_rows(
            [
                policy_rows(
                    rollouts,
                    part_PG.flatten().to(self.device),
                    pad_id=self.pad_id,
                    is_right_B=is_right_PG.flatten().to(self.device),
                )
                for rollouts, part_PG, is_right_PG in zip(judged.chunks, parts_PG, right_PG, strict=True)
            ],
            pad_id=self.pad_id,
        )

    def _updates(self, rows: PolicyRows) -> Iterator[Iterator[Batch]]:
        """The micro batches of each update: rows that have a gradient, with denominators over all rows and devices."""
        assert isinstance(self.objective, PolicyObjective)
        per_device = self.config.train.batch_size // self.trainer.world_size
        is_active = self.objective.is_active(rows.advantages_B).tolist()
        tokens_U = rows.num_tokens_B.view(self.num_updates, per_device).sum(dim=1)
        tokens = self.over_devices(tokens_U.double().cpu()).tolist()
        for update in range(self.num_updates):
            places = range(update * per_device, (update + 1) * per_device)
            step_targets = step_denominator(
                self.config.train.batch_size, int(tokens[update]), denominator=self.policy.denominator
            )
            # Skipped rows count as work, too: they were sampled and judged.
            num_tokens = int(rows.attention_mask_BT[places.start : places.stop].sum())
            chosen = [row for row in places if is_active[row]]
            yield self._update(rows, chosen, step_targets=step_targets, seen=torch.tensor([per_device, num_tokens]))

    def _update(self, rows: PolicyRows, chosen: list[int], *, step_targets: int, seen: Tensor) -> Iterator[Batch]:
        """The chosen rows in the micro batches of one update, the last of which may be empty; the first counts all."""
        size = self.config.train.micro_batch_size
        for micro in range(self.config.num_accumulated):
            batch = rows.batch(chosen[micro * size : (micro + 1) * size], step_targets=step_targets)
            yield {**batch, "seen": seen if micro == 0 else torch.zeros_like(seen)}

    def over_devices(self, values: Tensor) -> Tensor:
        """The sum over processes, the same on each, on the CPU."""
        if self.trainer.world_size == 1:
            return values
        gathered = self.all_gather(values.to(self.device))
        assert isinstance(gathered, Tensor)
        return gathered.sum(dim=0).cpu()

    def _curves(self, judged: JudgedRollouts, advantages_PG: Tensor) -> dict[str, float]:
        """Curves of an RL step over all devices: means over responses, tokens or prompts."""
        own = response_sums(judged, advantages_PG)
        summed = self.over_devices(torch.tensor(list(own.values()), dtype=torch.float64))
        sums = dict(zip(own, summed.tolist(), strict=True))
        return (
            means(sums, parts=list(judged.scores.parts))
            | self._sampler_ratio(judged)
            | {
                "cost/rollout_tokens_per_s": sums["tokens"] / judged.seconds,
                "cost/reward_wait_share": judged.wait_seconds / judged.seconds,
            }
        )

    def _sampler_ratio(self, judged: JudgedRollouts) -> dict[str, float]:
        """Mean and maximum over tokens of p_old / p_sampler, where rollouts were sampled in another number format.

        The clipped loss has p / p_old, both in the precision of the training; this ratio is in no loss.
        """
        ratios = [ratios_N for rollouts in judged.chunks if (ratios_N := sampler_ratios(rollouts)) is not None]
        if not ratios:
            return {}
        ratios_N = torch.cat(ratios).double()
        own_3 = torch.stack([ratios_N.sum(), ratios_N.new_tensor(len(ratios_N)), ratios_N.max()])
        if self.trainer.world_size > 1:
            gathered = self.all_gather(own_3.to(self.device))
            assert isinstance(gathered, Tensor)
            own_3 = torch.cat([gathered[:, :2].sum(dim=0), gathered[:, 2:].amax(dim=0)])
        total, count, most = own_3.tolist()
        return {"sampler_ratio_mean": total / count, "sampler_ratio_max": most}

    def after_training(self) -> Measured:
        """Means of all curves of the RL steps over the last quarter of them."""
        last = self.history[-max(1, len(self.history) // 4) :]
        metrics = {
            name if "/" in name else f"train/{name}": sum(entry[name] for entry in last) / len(last)
            for name in self.history[-1]
            if name != "step"
        }
        return metrics, {}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["history"] = self.history
        checkpoint["reward"] = self.reward.state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.history = list(checkpoint["history"])
        self.reward.restore(checkpoint["reward"])


def joined_scores(chunks: Sequence[Scores]) -> Scores:
    """The scores of several chunks of prompts below each other."""
    return Scores(
        rewards_PG=torch.cat([chunk.rewards_PG for chunk in chunks]),
        is_right_PG=torch.cat([chunk.is_right_PG for chunk in chunks]),
        parts={name: torch.cat([chunk.parts[name] for chunk in chunks]) for name in chunks[0].parts},
    )


def response_sums(judged: JudgedRollouts, advantages_PG: Tensor) -> dict[str, float]:
    """Sums over the responses and prompts of one device; they add up over devices.

    A token without a finite log-probability (`PolicyObjective.loss` drops it) adds nothing to `nats`.
    """
    scores = judged.scores
    log_probs = [rollouts.log_probs.double() for rollouts in judged.chunks]
    masks = [rollouts.response_mask.bool() for rollouts in judged.chunks]
    return {
        "reward": sum(map(sum, scores.rewards_PG.tolist())),
        **{name: sum(map(sum, part_PG.tolist())) for name, part_PG in scores.parts.items()},
        "repetition": judged.repetition,
        "truncated": float(sum(int(rollouts.truncated.sum()) for rollouts in judged.chunks)),
        "responses": float(scores.rewards_PG.numel()),
        "tokens": float(sum(rollouts.num_tokens for rollouts in judged.chunks)),
        "nats": -sum(float(table.masked_fill(~table.isfinite(), 0.0).sum()) for table in log_probs),
        "finite": float(
            sum(int((table.isfinite() & mask).sum()) for table, mask in zip(log_probs, masks, strict=True))
        ),
        "prompts": float(len(scores.rewards_PG)),
        "signal": float((advantages_PG > 0).any(dim=1).sum()),
        "any_correct": float(scores.is_right_PG.any(dim=1).sum()),
    }


def sampler_ratios(rollouts: Rollouts) -> Tensor | None:
    """p_old / p_sampler of each token with finite log-probabilities, [N]; None where both are the same numbers."""
    if rollouts.sampler_log_probs is None:
        return None
    differences_BL = rollouts.log_probs - rollouts.sampler_log_probs
    return differences_BL[rollouts.response_mask.bool() & differences_BL.isfinite()].exp()


def means(sums: Mapping[str, float], *, parts: Sequence[str]) -> dict[str, float]:
    """Curves of an RL step; the entropy is the mean of -log p over the sampled tokens, an unbiased estimate."""
    return {name: sums[name] / sums["responses"] for name in ("reward", *parts, "repetition", "truncated")} | {
        "response_len": sums["tokens"] / sums["responses"],
        "entropy": sums["nats"] / max(1.0, sums["finite"]),
        "signal_share": sums["signal"] / sums["prompts"],
        "any_correct_share": sums["any_correct"] / sums["prompts"],
    }


def repeated_share(token_ids: Sequence[int], *, length: int = REPEATED_GRAM) -> float:
    """Share of the token n-grams of a response that stood in it before, in [0, 1); 0 for fewer than two n-grams."""
    grams = [tuple(token_ids[start : start + length]) for start in range(len(token_ids) - length + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
