"""Athlos's own decode loop: prompts are read once, rows leave the batch when they end, waiting ones take their place.

A prompt is prefilled once however many samples it has; a beginning that prompts share is read once for all of them.
The loop hands the decoder masks, positions and a pre-allocated cache, and asks for the logits of the last column
alone. It runs the decoder's own forward pass, so a surgery works here as it does in training; a plain Llama has a
shorter one (`step.py`).

The native engine (`native.py`) and the rollouts of a model in training (`rollouts.py`) are its two uses. They differ in
where draws come from, in which log-probabilities are kept, and in the order in which prompts are read.

B rows, C columns, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from athlos.errors import ModelError
from athlos.generation.batch import Batch, Job, Row
from athlos.generation.endings import StopStrings, sample_of
from athlos.generation.interface import Progress, Prompt, Sample, SamplingRule
from athlos.generation.kv_cache import layer_windows
from athlos.generation.prefill import Prefill
from athlos.generation.rules import LogitsRule, generator, needs_ids, next_tokens, tempered, token_log_probs
from athlos.generation.step import DecoderStep
from athlos.models.sites import backbone

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DROP_SHARE = 1 / 8
"""Finished rows leave when they are this share of the batch: leaving copies the cache of those that stay."""
JOIN_SHARE = 1 / 4
"""Waiting samples join when this share of the batch is free: reading four prompts costs little more than one."""
LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")
"""Rotary embeddings whose angles change once a sequence passes the original length: for all rows of a batch at once."""


def check_model(model: "PreTrainedModel", prompts: Sequence[Prompt]) -> None:
    """Raises `ModelError` for a decoder that the loop does not fit.

    Its layers keep more than keys and values by column, or an answer may pass the length at which the angles of all
    rows would change.
    """
    layer_windows(backbone(model).config)
    config = model.config.get_text_config()
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


@dataclass(kw_only=True)
class DecodeLoop:
    """`num_samples` samples of each prompt. Made for one call of `run`, in inference mode."""

    step: DecoderStep
    tokenizer: "PreTrainedTokenizerBase"
    prompts: Sequence[Prompt]
    num_samples: int
    batch_size: int
    """Most samples under way at once."""
    rule: SamplingRule
    extra_rules: Sequence[LogitsRule] = ()
    ends: Sequence[int]
    """Tokens that end an answer."""
    stop: Sequence[str]
    """Strings that end an answer."""
    share_prefixes: bool = False
    """Read a beginning that several prompts share once."""
    reads_as_given: bool = False
    """Read prompts in their order, equal ones each by itself; else in the order that shares most."""
    shared_generator: torch.Generator | None = None
    """Draws the tokens of all rows under way at once; None: each sample draws from a generator of (seed, sample)."""
    log_prob_temperature: float = 1.0
    """The log-probabilities kept are those of the model's logits divided by it."""
    progress: Progress | None = None
    samples: dict[Job, Sample] = field(default_factory=dict, init=False)
    """Those that have ended."""
    num_tokens: int = field(default=0, init=False)
    """Tokens of the samples that have ended."""

    def __post_init__(self) -> None:
        self.stop_strings = StopStrings(self.tokenizer, self.stop)
        self.ends_E = torch.tensor(list(self.ends), dtype=torch.int64, device=self.step.device)
        self.prefill = Prefill(
            self.step,
            [prompt.token_ids for prompt in self.prompts],
            share_prefixes=self.share_prefixes,
            reads_as_given=self.reads_as_given,
        )

    def run(self) -> list[list[Sample]]:
        """The samples of each prompt, in the order of the prompts."""
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
        has_own_draws = self.rule.temperature > 0 and self.shared_generator is None
        rows = [
            Row(
                job=job,
                limit=prompt.max_new_tokens,
                generator=generator(prompt.seed, job.sample, device=self.step.device) if has_own_draws else None,
                pad=0,
                first=len(prompt.token_ids),
            )
            for job, prompt in ((job, self.prompts[job.prompt]) for job in jobs)
        ]
        batch = Batch.started(rows, prefilled, [self.prompts[job.prompt].token_ids for job in jobs])
        self._choose(batch, torch.stack([prompt.logits_V for prompt in prefilled]))
        return batch

    def _choose(self, batch: Batch, logits_BV: Tensor) -> None:
        """Write the next token of each row and its log-probability, and take note of the rows that ended with it."""
        column = batch.column
        tokens_B = next_tokens(
            logits_BV,
            rule=self.rule,
            ids_BT=batch.ids_BC[:, :column] if needs_ids(self.rule, self.extra_rules) else None,
            first_B=[row.first for row in batch.rows],
            generators=self.shared_generator or [None if row.is_done else row.generator for row in batch.rows],
            extra_rules=self.extra_rules,
        )
        batch.ids_BC[:, column] = tokens_B
        batch.log_probs_BC[:, column] = token_log_probs(tempered(logits_BV, self.log_prob_temperature), tokens_B)
        ended = self._ended(batch, tokens_B)
        if column < batch.next_limit and not any(ended):
            return
        for index, row in enumerate(batch.rows):
            if not row.is_done and (ended[index] or column >= row.last):
                self._finish(batch, index, row, finished=ended[index])
        batch.note_limits()
        if self.progress:
            self.progress(len(self.samples), len(self.prompts) * self.num_samples, self.num_tokens)

    def _ended(self, batch: Batch, tokens_B: Tensor) -> list[bool]:
        """Which rows end with their newest token, by an end token or a stop string."""
        ended = [False] * len(batch.rows)
        if self.ends:
            ended_B = (tokens_B[:, None] == self.ends_E).any(dim=1)
            if bool(ended_B.any()):
                ended = ended_B.tolist()
        if self.stop_strings:
            start = max(0, batch.column + 1 - self.stop_strings.num_tokens)
            tails = batch.ids_BC[:, start : batch.column + 1].tolist()
            for index, row in enumerate(batch.rows):
                if not row.is_done and not ended[index]:
                    answer_ids = batch.ids_BC[index, row.first : batch.column + 1]
                    ended[index] = self.stop_strings.ends(
                        tails[index][max(0, row.first - start) :], answer=answer_ids.tolist
                    )
        return ended

    def _finish(self, batch: Batch, index: int, row: Row, *, finished: bool) -> None:
        span = slice(row.first, batch.column + 1)
        row.is_done = True
        sample = sample_of(
            self.tokenizer,
            self.prompts[row.job.prompt],
            batch.ids_BC[index, span].tolist(),
            batch.log_probs_BC[index, span].tolist(),
            ends=self.ends,
            stop=self.stop,
            finished=finished,
        )
        self.samples[row.job] = sample
        self.num_tokens += sample.num_tokens
