"""Athlos's own decode loop: prompts are read once, rows leave the batch when they end, waiting ones take their place.

A prompt is prefilled once however many samples it has; a beginning that prompts share is read once for all of them.
The loop hands the decoder masks, positions and a pre-allocated cache, and asks for the logits of the last column
alone. It runs the decoder's own forward pass, so a surgery works here as it does in training; a plain Llama has a
shorter one (`llama_step.py`).
"""

from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

import torch

from athlos.errors import ModelError
from athlos.generation.batch import Batch, Job, Row
from athlos.generation.config import NativeConfig
from athlos.generation.endings import StopStrings
from athlos.generation.fused_attention import fused
from athlos.generation.interface import Progress, Prompt, Sample, SamplingRule
from athlos.generation.kv_cache import layer_windows
from athlos.generation.linear import fast_linear
from athlos.generation.local import LocalEngine, check_prompts, eval_mode
from athlos.generation.prefill import Prefill
from athlos.generation.rules import LogitsRule, check_rule, generator, needs_ids, next_tokens, token_log_probs
from athlos.generation.step import DecoderStep
from athlos.models.sites import backbone

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedConfig, PreTrainedModel

DROP_SHARE = 1 / 8
"""Finished rows leave when they are this share of the batch: leaving copies the cache of those that stay."""
JOIN_SHARE = 1 / 4
"""Waiting samples join when this share of the batch is free: reading four prompts costs little more than one."""
LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")
"""Rotary embeddings whose angles change once a sequence passes the original length: for all rows of a batch at once."""


def misfit(model: "PreTrainedModel") -> str | None:
    """Why this engine cannot run a model; None where it can: it must find the decoder, and attention in all layers."""
    try:
        layer_windows(backbone(model).config)
    except ModelError as error:
        return str(error)
    return None


class NativeEngine(LocalEngine):
    """Generates with the model in this process."""

    name = "native"

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        rule: SamplingRule,
        num_samples: int = 1,
        stop: Sequence[str] = (),
        progress: Progress | None = None,
        end_token_ids: Sequence[int] | None = None,
        extra_rules: Sequence[LogitsRule] = (),
    ) -> list[list[Sample]]:
        check_rule(rule)
        check_prompts(prompts, num_samples=num_samples)
        assert isinstance(self.config, NativeConfig)
        model = self.causal_model
        check_rope(model.config.get_text_config(), prompts)
        num_distinct = num_samples if rule.temperature > 0 else 1
        with ExitStack() as stack:
            stack.enter_context(eval_mode(model))
            if self.config.onednn:
                stack.enter_context(fast_linear(model))
            stack.enter_context(fused(is_wanted=self.config.fused))
            found = _Loop(
                self, prompts, rule=rule, num_samples=num_distinct, stop=stop, ends=self.ends(end_token_ids),
                extra_rules=extra_rules, progress=progress,
            ).run()  # fmt: skip
        return [samples * (num_samples // num_distinct) for samples in found]


class _Loop:
    """One call of `generate`."""

    def __init__(
        self,
        engine: NativeEngine,
        prompts: Sequence[Prompt],
        *,
        rule: SamplingRule,
        num_samples: int,
        stop: Sequence[str],
        ends: Sequence[int],
        extra_rules: Sequence[LogitsRule],
        progress: Progress | None,
    ) -> None:
        assert isinstance(engine.config, NativeConfig)
        self.engine, self.prompts, self.rule, self.num_samples = engine, prompts, rule, num_samples
        self.stop, self.ends, self.extra_rules, self.progress = stop, ends, extra_rules, progress
        self.batch_size = engine.config.batch_size
        self.stop_strings = StopStrings(engine.tokenizer, stop)
        self.is_drawn = rule.temperature > 0
        self.needs_ids = needs_ids(rule, extra_rules)
        self.step = DecoderStep(engine.causal_model, written_out=engine.config.written_out)
        self.ends_E = torch.tensor(list(ends), dtype=torch.int64, device=self.step.device)
        self.prefill = Prefill(
            self.step, [prompt.token_ids for prompt in prompts], share_prefixes=engine.config.share_prefixes
        )
        self.samples: dict[Job, Sample] = {}
        self.num_tokens = 0

    def run(self) -> list[list[Sample]]:
        jobs = [Job(prompt=index, sample=sample) for index in self.prefill.order for sample in range(self.num_samples)]
        batch: Batch | None = None
        num_started = 0
        while batch is not None or num_started < len(jobs):
            free = self.batch_size - (batch.num_alive if batch else 0)
            if num_started < len(jobs) and free >= (JOIN_SHARE * self.batch_size if batch else 1):
                end = min(num_started + free, len(jobs))
                joining = self._started(jobs[num_started:end], jobs[end:])
                num_started = end
                batch = Batch.packed([batch, joining]) if batch else joining
            else:
                assert batch is not None
                if batch.is_full or batch.num_done >= DROP_SHARE * len(batch.rows):
                    batch = Batch.packed([batch])
                newest_B1 = batch.ids_BC[:, batch.column : batch.column + 1]
                logits_BV = self.step(newest_B1, batch.cache, pad_B=batch.pad_B, most_padding=batch.most_padding)
                self._choose(batch, logits_BV)
            if batch.num_alive == 0:
                batch = None
        return [
            [self.samples[Job(prompt=index, sample=sample)] for sample in range(self.num_samples)]
            for index in range(len(self.prompts))
        ]

    def _started(self, jobs: Sequence[Job], later: Sequence[Job]) -> Batch:
        """A batch of new samples with their first tokens."""
        again = later[0].prompt if later and later[0].prompt == jobs[-1].prompt else None
        prefilled = self.prefill.read([job.prompt for job in jobs], needed_again=again)
        rows = [
            Row(
                job=job,
                limit=prompt.max_new_tokens,
                generator=generator(prompt.seed, job.sample, device=self.step.device) if self.is_drawn else None,
                pad=0,
                first=len(prompt.token_ids),
            )
            for job, prompt in ((job, self.prompts[job.prompt]) for job in jobs)
        ]
        batch = Batch.started(rows, prefilled, [self.prompts[job.prompt].token_ids for job in jobs])
        self._choose(batch, torch.stack([one.logits_V for one in prefilled]))
        return batch

    def _choose(self, batch: Batch, logits_BV: "Tensor") -> None:
        """Write the next token of each row and note which rows ended with it."""
        column = batch.column
        tokens_B = next_tokens(
            logits_BV,
            rule=self.rule,
            ids_BT=batch.ids_BC[:, :column] if self.needs_ids else None,
            generators=[None if row.is_done else row.generator for row in batch.rows],
            extra_rules=self.extra_rules,
        )
        batch.ids_BC[:, column] = tokens_B
        batch.log_probs_BC[:, column] = token_log_probs(logits_BV, tokens_B)
        ended = [False] * len(batch.rows)
        if self.ends:
            ended_B = (tokens_B[:, None] == self.ends_E).any(dim=1)
            if bool(ended_B.any()):
                ended = ended_B.tolist()
        if self.stop_strings:
            start = max(0, column + 1 - self.stop_strings.num_tokens)
            tails = batch.ids_BC[:, start : column + 1].tolist()
            for index, row in enumerate(batch.rows):
                if not row.is_done and not ended[index]:
                    ended[index] = self.stop_strings.ends(tails[index][max(0, row.first - start) :])
        if column < batch.next_limit and not any(ended):
            return
        for index, row in enumerate(batch.rows):
            if not row.is_done and (ended[index] or column >= row.last):
                self._finish(batch, index, row, finished=ended[index])
        batch.note_limits()
        if self.progress:
            self.progress(len(self.samples), len(self.prompts) * self.num_samples, self.num_tokens)

    def _finish(self, batch: Batch, index: int, row: Row, *, finished: bool) -> None:
        span = slice(row.first, batch.column + 1)
        row.is_done = True
        sample = self.engine.sample(
            self.prompts[row.job.prompt],
            batch.ids_BC[index, span].tolist(),
            batch.log_probs_BC[index, span].tolist(),
            ends=self.ends,
            stop=self.stop,
            finished=finished,
        )
        self.samples[row.job] = sample
        self.num_tokens += sample.num_tokens


def check_rope(config: "PreTrainedConfig", prompts: Sequence[Prompt]) -> None:
    """Raises `ModelError` where an answer may pass the length at which the angles of all rows would change."""
    rope = getattr(config, "rope_parameters", None) or {}
    for kind in (rope, *(value for value in rope.values() if isinstance(value, dict))):
        if kind.get("rope_type") in LENGTH_DEPENDENT_ROPE:
            original = kind.get("original_max_position_embeddings") or config.max_position_embeddings
            longest = max((len(prompt.token_ids) + prompt.max_new_tokens for prompt in prompts), default=0)
            if longest > original:
                raise ModelError(
                    f"engine=native: a prompt and its answer may reach {longest} tokens, and the rotary embedding "
                    f"'{kind['rope_type']}' changes at {original} for all rows of a batch at once; lower "
                    "decoding.max_new_tokens, or use engine=transformers engine.batch_size=1"
                )
