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
from athlos.generation.contrast import contrasted, contrasted_by_depth
from athlos.generation.endings import StopStrings, sample_of
from athlos.generation.interface import Contrast, Progress, Prompt, Sample, SamplingRule
from athlos.generation.kept_prompts import KeptPrompts
from athlos.generation.kv_cache import layer_windows
from athlos.generation.prefill import Prefill
from athlos.generation.rules import LogitsRule, generator, needs_ids, next_tokens, tempered, token_log_probs
from athlos.generation.step import DecoderStep
from athlos.models.head_mask import HeadMask
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
    kept: KeptPrompts | None = None
    """Beginnings that earlier calls have read."""
    reads_as_given: bool = False
    """Read prompts in their order, equal ones each by itself; else in the order that shares most."""
    shared_generator: torch.Generator | None = None
    """Draws the tokens of all rows under way at once; None: each sample draws from a generator of (seed, sample)."""
    log_prob_temperature: float = 1.0
    """The log-probabilities kept are those of the model's logits divided by it."""
    contrast: Contrast | None = None
    """Two streams or two depths whose logits become one."""
    silent: HeadMask | None = None
    """Heads that are silent in the second stream while it decodes."""
    progress: Progress | None = None
    samples: dict[Job, Sample] = field(default_factory=dict, init=False)
    """Those that have ended."""
    num_tokens: int = field(default=0, init=False)
    """Tokens of the samples that have ended."""

    def __post_init__(self) -> None:
        self.stop_strings = StopStrings(self.tokenizer, self.stop)
        self.ends_E = torch.tensor(list(self.ends), dtype=torch.int64, device=self.step.device)
        self.num_streams = self.contrast.num_streams if self.contrast else 1
        texts = [prompt.token_ids for prompt in self.prompts]
        if self.num_streams == 2:
            texts += [prompt.against_ids or prompt.token_ids for prompt in self.prompts]
        self.prefill = Prefill(
            self.step,
            texts,
            share_prefixes=self.share_prefixes,
            reads_as_given=self.reads_as_given,
            earlier=self.kept,
        )

    def run(self) -> list[list[Sample]]:
        """The samples of each prompt, in the order of the prompts."""
        order = [index for index in self.prefill.order if index < len(self.prompts)]
        jobs = [Job(prompt=index, sample=sample) for index in order for sample in range(self.num_samples)]
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
                if self.silent:
                    self.silent.is_active = True
                logits_BV = self.step(newest_B1, batch.cache, pad_B=batch.pad_B, most_padding=batch.most_padding)
                self._choose(batch, logits_BV, early_LBV=self.step.early_LBV)
            if batch.num_alive == 0:
                batch = None
        return [
            [self.samples[Job(prompt=index, sample=sample)] for sample in range(self.num_samples)]
            for index in range(len(self.prompts))
        ]

    def _started(self, jobs: Sequence[Job], later: Sequence[Job]) -> Batch:
        """A batch of new samples with their first tokens."""
        if self.silent:
            self.silent.is_active = False
        texts = [self._streams(job.prompt) for job in jobs]
        again = self._streams(later[0].prompt) if later and later[0].prompt == jobs[-1].prompt else []
        prefilled = self.prefill.read([text for of_job in texts for text in of_job], needed_again=again)
        has_own_draws = self.rule.temperature > 0 and self.shared_generator is None
        rows, read = [], []
        for job, of_job in zip(jobs, texts, strict=True):
            prompt = self.prompts[job.prompt]
            for text in of_job:
                read.append(self.prefill.texts[text])
                row = Row(job=job, limit=prompt.max_new_tokens, generator=None, pad=0, first=len(read[-1]))
                row.is_against = text != job.prompt
                if has_own_draws and not row.is_against:
                    row.generator = generator(prompt.seed, job.sample, device=self.step.device)
                rows.append(row)
        batch = Batch.started(rows, prefilled, read)
        early = [prompt.early_LV for prompt in prefilled if prompt.early_LV is not None]
        self._choose(
            batch,
            torch.stack([prompt.logits_V for prompt in prefilled]),
            early_LBV=torch.stack(early, dim=1) if early else None,
        )
        return batch

    def _streams(self, prompt: int) -> list[int]:
        """The texts of a prompt's streams, as the prefill counts them."""
        return [prompt + stream * len(self.prompts) for stream in range(self.num_streams)]

    def _choose(self, batch: Batch, logits_BV: Tensor, *, early_LBV: Tensor | None) -> None:
        """Write the next token of each row and its log-probability, and take note of the rows that ended with it.

        Of two streams one token is chosen and written into both rows.
        """
        column, streams = batch.column, self.num_streams
        plain_BV = logits_BV[::streams]
        if self.contrast is None:
            mixed_BV = plain_BV
        elif early_LBV is not None:
            mixed_BV = contrasted_by_depth(plain_BV, early_LBV, self.contrast)
        else:
            mixed_BV = contrasted(plain_BV, logits_BV[1::streams], self.contrast)
        tokens_B = next_tokens(
            mixed_BV,
            rule=self.rule,
            ids_BT=batch.ids_BC[::streams, :column] if needs_ids(self.rule, self.extra_rules) else None,
            first_B=[row.first for row in batch.rows[::streams]],
            generators=self.shared_generator
            or [None if row.is_done else row.generator for row in batch.rows[::streams]],
            extra_rules=self.extra_rules,
        )
        log_probs_B = token_log_probs(tempered(plain_BV, self.log_prob_temperature), tokens_B)
        tokens_B = tokens_B.repeat_interleave(streams)
        batch.ids_BC[:, column] = tokens_B
        batch.log_probs_BC[:, column] = log_probs_B.repeat_interleave(streams)
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
        if row.is_against:
            return
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
