"""Groups of samples of the model that is being trained, with the log-probabilities it drew them with.

The loop is the native engine's (`loop.py`): a prompt is read once for its whole group, and rows that end leave the
batch. Decoders it does not fit go through transformers' own loop. All draws come from one generator, so a call depends
on its state and on the batch, unlike an engine's samples.

P prompts, G samples of each, B = P * G rows (row p * G + g is sample g of prompt p).
"""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from athlos.data.records import Record
from athlos.errors import ConfigErrors, DataError, ModelError
from athlos.generation.config import NumberFormat, TransformersConfig
from athlos.generation.cpu.linear import fast_linear
from athlos.generation.endings import end_tokens
from athlos.generation.half_weights import HalfWeights, is_half
from athlos.generation.interface import Prompt, Sample, SamplingRule
from athlos.generation.kv_cache import padded_ids
from athlos.generation.local import check_prompts, context_length, encoded_prompt, eval_mode
from athlos.generation.loop import DecodeLoop, check_model
from athlos.generation.step import DecoderStep
from athlos.generation.transformers_engine import TransformersEngine
from athlos.models.forward import causal_model, hidden_states, project
from athlos.models.sites import backbone

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class PolicyPrompt:
    """What the model is asked, and the record that a response to it is judged by."""

    record: Record
    text: str


@dataclass(kw_only=True)
class Rollouts:
    """Samples of P prompts, `group_size` of each; rows of one prompt stand together.

    Lp is the longest prompt, Lr the longest response of this batch. Nothing here carries a gradient.
    """

    prompt_ids: Tensor
    """int64 [P, Lp], padded on the left with 0."""
    prompt_mask: Tensor
    """int64 [P, Lp], 1 on tokens."""
    response_ids: Tensor
    """int64 [B, Lr], padded on the right with 0."""
    response_mask: Tensor
    """int64 [B, Lr], 1 on generated tokens, the end token included."""
    log_probs: Tensor
    """float32 [B, Lr], of each token under the sampling temperature, in nats; 0 on padding. In the precision of the
    training, whatever that of the sampling was."""
    texts: list[str]
    """Responses without end token, cut at the first stop string."""
    truncated: Tensor
    """bool [B]: cut by length, so that no end token and no stop string stands in the response."""
    group_size: int
    entropies: Tensor | None = None
    """float32 [B, Lr], of the plain distribution that each token was drawn from, in nats; 0 on padding. Only for a
    reward that reads them."""
    sampler_log_probs: Tensor | None = None
    """Like `log_probs`, but as the sampling had them; None where both are the same."""

    @property
    def num_tokens(self) -> int:
        """Generated tokens."""
        return int(self.response_mask.sum())

    def rows(self) -> dict[str, Tensor]:
        """The batch of a whole forward pass, prompt and response: ids, mask and positions [B, Lp + Lr]."""
        prompt_BL = self.prompt_ids.repeat_interleave(self.group_size, dim=0)
        mask_BL = self.prompt_mask.repeat_interleave(self.group_size, dim=0)
        mask_BT = torch.cat([mask_BL, self.response_mask], dim=1)
        return {
            "input_ids": torch.cat([prompt_BL, self.response_ids], dim=1),
            "attention_mask": mask_BT,
            "position_ids": (mask_BT.cumsum(dim=1) - 1).clamp(min=0),
        }


def sample_group(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[str],
    *,
    group_size: int,
    max_new_tokens: int,
    temperature: float,
    generator: torch.Generator | None,
    stop: Sequence[str] = (),
    dtype: NumberFormat = NumberFormat.float32,
) -> Rollouts:
    """`group_size` samples of each prompt. The model is left in the mode it came in.

    Sampled in bfloat16 (`dtype`, see `NativeConfig`), the responses get their log-probabilities by one forward pass of
    the model as it is, and those of the sampling beside them. The copy in bfloat16 is gone when the call ends.

    `temperature` 0 takes the most probable token, with its log-probability at temperature 1, and needs no generator. A
    prompt is encoded as in training (`data/encoding.py`). Raises `ConfigErrors` for numbers out of range and
    `DataError` for no prompts, an empty one, or one that leaves no room in the context.
    """
    _check(group_size=group_size, max_new_tokens=max_new_tokens, temperature=temperature, generator=generator)
    inner = causal_model(model)
    asked = _asked(inner, tokenizer, prompts, max_new_tokens=max_new_tokens)
    try:
        check_model(inner, asked)
    except ModelError:
        samples = _by_transformers(inner, tokenizer, asked, group_size, temperature, generator, stop)
        rollouts = joined_samples(asked, samples, group_size=group_size, device=inner.device)
        # The engine gives the log-probabilities of the plain model.
        with eval_mode(inner), torch.no_grad():
            rollouts.log_probs = response_log_probs(inner, rollouts, temperature=temperature or 1.0)
        return rollouts
    in_half = is_half(dtype, inner.device)
    with ExitStack() as stack:
        stack.enter_context(eval_mode(inner))
        stack.enter_context(HalfWeights().applied(backbone(inner)) if in_half else fast_linear(inner))
        stack.enter_context(torch.inference_mode())
        loop = DecodeLoop(
            step=DecoderStep(inner, written_out=True, cache_dtype=torch.bfloat16 if in_half else None),
            tokenizer=tokenizer,
            prompts=asked,
            num_samples=group_size,
            batch_size=len(asked) * group_size,
            rule=SamplingRule(temperature=temperature),
            ends=end_tokens(inner, tokenizer),
            stop=stop,
            reads_as_given=True,
            shared_generator=generator,
            log_prob_temperature=temperature or 1.0,
        )
        samples = loop.run()
    rollouts = joined_samples(asked, samples, group_size=group_size, device=inner.device)
    if in_half:
        rollouts.sampler_log_probs = rollouts.log_probs
        with eval_mode(inner), torch.no_grad():
            rollouts.log_probs = response_log_probs(inner, rollouts, temperature=temperature or 1.0)
    return rollouts


def _check(*, group_size: int, max_new_tokens: int, temperature: float, generator: torch.Generator | None) -> None:
    accepted = {
        "group_size": (group_size, group_size >= 1, "an integer >= 1"),
        "max_new_tokens": (max_new_tokens, max_new_tokens >= 1, "an integer >= 1"),
        "temperature": (temperature, 0 <= temperature < math.inf, "a number >= 0"),
        "generator": (generator, generator is not None or temperature == 0, "a torch.Generator above temperature 0"),
    }
    errors = [
        f"{name}: got {value}, expected {what}" for name, (value, is_good, what) in accepted.items() if not is_good
    ]
    if errors:
        raise ConfigErrors(errors)


def _asked(
    model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[str], *, max_new_tokens: int
) -> list[Prompt]:
    """The encoded prompts, all with the longest response that the context leaves to the longest of them."""
    if not prompts:
        raise DataError("rollouts: got no prompts")
    ids = [encoded_prompt(tokenizer, prompt) for prompt in prompts]
    context = context_length(model)
    longest = max(map(len, ids))
    if longest >= context:
        raise DataError(f"a prompt has {longest} tokens, the model's context {context}; shorten prompt or hint")
    asked = [Prompt(token_ids=row, max_new_tokens=min(max_new_tokens, context - longest)) for row in ids]
    check_prompts(asked, num_samples=1)
    return asked


def _by_transformers(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Prompt],
    group_size: int,
    temperature: float,
    generator: torch.Generator | None,
    stop: Sequence[str],
) -> list[list[Sample]]:
    """The same for any decoder, one sample at a time: its loop is right whatever the layers keep between tokens."""
    if generator is not None and temperature > 0:
        for prompt in prompts:
            prompt.seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
    engine = TransformersEngine(TransformersConfig(_target_="", batch_size=1), model=model, tokenizer=tokenizer)
    return engine.generate(prompts, rule=SamplingRule(temperature=temperature), num_samples=group_size, stop=stop)


def joined_samples(
    prompts: Sequence[Prompt], samples: Sequence[Sequence[Sample]], *, group_size: int, device: torch.device
) -> Rollouts:
    """The tables of a batch of rollouts, made outside inference mode, so that autograd may save them."""
    rows = [sample for of_prompt in samples for sample in of_prompt]
    ids = [prompt.token_ids for prompt in prompts]
    width = max(map(len, ids))
    pads_P = torch.tensor([width - len(prompt) for prompt in ids], device=device)
    lengths_B = torch.tensor([sample.num_tokens for sample in rows], device=device)
    log_probs = [torch.tensor(sample.log_probs, dtype=torch.float32, device=device) for sample in rows]
    return Rollouts(
        prompt_ids=padded_ids(ids, width=width, fill=0, device=device),
        prompt_mask=(torch.arange(width, device=device) >= pads_P[:, None]).long(),
        response_ids=pad_sequence([torch.tensor(sample.token_ids, device=device) for sample in rows], batch_first=True),
        response_mask=(torch.arange(int(lengths_B.max()), device=device) < lengths_B[:, None]).long(),
        log_probs=pad_sequence(log_probs, batch_first=True),
        texts=[sample.text for sample in rows],
        truncated=torch.tensor([not sample.finished for sample in rows], device=device),
        group_size=group_size,
    )


def response_log_probs(model: "PreTrainedModel", rollouts: Rollouts, *, temperature: float) -> Tensor:
    """float32 [B, Lr]: log-probability of each response token by a whole forward pass, 0 on padding."""
    logits_NV, is_token_BL = _response_logits(model, rollouts)
    logits_NV = logits_NV / temperature
    chosen_N1 = rollouts.response_ids[is_token_BL][:, None]
    log_probs_N = logits_NV.gather(1, chosen_N1).squeeze(1) - logits_NV.logsumexp(dim=-1)
    return torch.zeros_like(rollouts.log_probs).masked_scatter(is_token_BL, log_probs_N.float())


@torch.no_grad()
def response_entropies(model: "PreTrainedModel", rollouts: Rollouts) -> Tensor:
    """float32 [B, Lr]: entropy of the plain model's distribution at each response token, in nats, 0 on padding.

    By a whole forward pass; the whole vocabulary counts, whatever the sampling rule was.
    """
    inner = causal_model(model)
    with eval_mode(inner):
        logits_NV, is_token_BL = _response_logits(inner, rollouts)
    return torch.zeros_like(rollouts.log_probs).masked_scatter(is_token_BL, entropies_of(logits_NV).float())


def entropies_of(logits_NV: Tensor) -> Tensor:
    """Entropy of each row's softmax, [N], in nats, in float32."""
    log_probs_NV = logits_NV.float().log_softmax(dim=-1)
    # A token of probability 0 adds nothing: 0 times -inf would be no number.
    return -(log_probs_NV.exp() * log_probs_NV.clamp(min=torch.finfo(torch.float32).min)).sum(dim=-1)


def _response_logits(model: "PreTrainedModel", rollouts: Rollouts) -> tuple[Tensor, Tensor]:
    """Logits [N, V] of all response tokens, and where these stand, bool [B, Lr]."""
    length = rollouts.response_ids.shape[1]
    hidden_BLD = hidden_states(model, rollouts.rows())[:, -length - 1 : -1]
    is_token_BL = rollouts.response_mask.bool()
    return project(model, hidden_BLD[is_token_BL]), is_token_BL
