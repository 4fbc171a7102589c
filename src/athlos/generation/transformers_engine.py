"""The engine `transformers`: the same interface over `model.generate`, as the twin that `native` is compared with.

Rows are padded on the left, sorted by length, and stay in their batch until its longest answer ends.

B batch, V vocabulary, S generated tokens.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteria, StoppingCriteriaList

from athlos.generation.endings import StopStrings, sample_of
from athlos.generation.interface import Progress, Prompt, Sample, SamplingRule
from athlos.generation.kv_cache import padded_ids
from athlos.generation.local import LocalEngine, check_prompts, eval_mode
from athlos.generation.rules import PAD, LogitsRule, check_rule, generator, next_tokens, token_log_probs
from athlos.models.quiet import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TransformersEngine(LocalEngine):
    """Generates with any model that transformers generates with; the draws are those of `native`."""

    name = "transformers"

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
        model, ends = self.causal_model, self.ends(end_token_ids)
        num_distinct = num_samples if rule.temperature > 0 else 1
        longest_first = sorted(range(len(prompts)), key=lambda index: -len(prompts[index].token_ids))
        jobs = [(index, sample) for index in longest_first for sample in range(num_distinct)]
        sample_of_job: dict[tuple[int, int], Sample] = {}
        num_tokens = 0
        with eval_mode(model), _own_rules(model), quiet_transformers():
            for start in range(0, len(jobs), self.config.batch_size):
                batch = jobs[start : start + self.config.batch_size]
                samples = self._batch(
                    model,
                    [(prompts[index], sample) for index, sample in batch],
                    rule=rule,
                    stop=stop,
                    ends=ends,
                    extra_rules=extra_rules,
                )
                sample_of_job.update(zip(batch, samples, strict=True))
                num_tokens += sum(sample.num_tokens for sample in samples)
                if progress:
                    progress(len(sample_of_job), len(jobs), num_tokens)
        return [
            [sample_of_job[index, sample] for sample in range(num_distinct)] * (num_samples // num_distinct)
            for index in range(len(prompts))
        ]

    def _batch(
        self,
        model: "PreTrainedModel",
        batch: Sequence[tuple[Prompt, int]],
        *,
        rule: SamplingRule,
        stop: Sequence[str],
        ends: Sequence[int],
        extra_rules: Sequence[LogitsRule],
    ) -> list[Sample]:
        prompts = [prompt.token_ids for prompt, _ in batch]
        limits = [prompt.max_new_tokens for prompt, _ in batch]
        width, longest = max(map(len, prompts)), max(limits)
        ids_BT = padded_ids(prompts, width=width, fill=PAD, device=model.device)
        is_real_BT = ids_BT != PAD
        generators: list[torch.Generator | None] = [None] * len(batch)
        if rule.temperature > 0:
            generators = [generator(prompt.seed, sample, device=model.device) for prompt, sample in batch]
        chooser = _ChooseTokens(is_real_BT=is_real_BT, rule=rule, generators=generators, extra_rules=extra_rules)
        stopper = _StopRows(StopStrings(self.tokenizer, stop), width=width, limits=limits, ends=ends)
        sequences = cast(Any, model).generate(  # the class with a head has it, its base has not
            input_ids=ids_BT.clamp(min=0),
            attention_mask=is_real_BT.long(),
            logits_processor=LogitsProcessorList([chooser]),
            stopping_criteria=StoppingCriteriaList([stopper]),
            generation_config=GenerationConfig(max_new_tokens=longest, do_sample=False, use_cache=True),
        )
        assert isinstance(sequences, Tensor)
        generated = sequences[:, width:].tolist()
        log_probs = torch.stack(chooser.log_probs, dim=1).tolist()
        return [
            sample_of(
                self.tokenizer,
                prompt,
                generated[row][:count],
                log_probs[row][:count],
                ends=ends,
                stop=stop,
                finished=stopper.finished[row],
            )
            for row, ((prompt, _), count) in enumerate(zip(batch, stopper.num_tokens, strict=True))
        ]


@dataclass(kw_only=True)
class _ChooseTokens(LogitsProcessor):
    """Chooses the next tokens itself and notes their log-probability; what `generate` sees is the choice alone."""

    is_real_BT: Tensor
    rule: SamplingRule
    generators: Sequence[torch.Generator | None]
    extra_rules: Sequence[LogitsRule]
    log_probs: list[Tensor] = field(default_factory=list)
    """[B] a step."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        ids_BT = input_ids.clone()
        ids_BT[:, : self.is_real_BT.shape[1]].masked_fill_(~self.is_real_BT, PAD)
        chosen_B = next_tokens(
            scores,
            rule=self.rule,
            ids_BT=ids_BT,
            first_B=[self.is_real_BT.shape[1]] * len(ids_BT),
            generators=self.generators,
            extra_rules=self.extra_rules,
        )
        self.log_probs.append(token_log_probs(scores, chosen_B))
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen_B[:, None], 0.0)


class _StopRows(StoppingCriteria):
    """Ends each row at an end token, at a stop string, or at its own limit of tokens; keeps where it ended."""

    def __init__(self, stop: StopStrings, *, width: int, limits: Sequence[int], ends: Sequence[int]) -> None:
        self.stop, self.width, self.limits, self.ends = stop, width, limits, set(ends)
        self.num_tokens = [0] * len(limits)
        self.finished = [False] * len(limits)
        self._is_running = [True] * len(limits)

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        step = input_ids.shape[1] - self.width
        tails = input_ids[:, -min(step, self.stop.num_tokens) :].tolist()
        for row, tail in enumerate(tails):
            if not self._is_running[row]:
                continue
            answer_ids = input_ids[row, self.width :]
            self.finished[row] = tail[-1] in self.ends or (
                bool(self.stop) and self.stop.ends(tail, answer=answer_ids.tolist)
            )
            self._is_running[row] = not self.finished[row] and step < self.limits[row]
            self.num_tokens[row] = step
        return torch.tensor([not running for running in self._is_running], device=input_ids.device)


@contextmanager
def _own_rules(model: "PreTrainedModel") -> Iterator[None]:
    """`generate` fills what it is not told from the model's generation config (penalties, end tokens): empty it."""
    before = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = before
