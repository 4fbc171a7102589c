"""Groups of samples of the model that is being trained, with the log-probabilities it drew them with.

A prompt is read once for its whole group, and rows that end leave the batch. The loop is the native engine's: its
masks, its static cache, its written-out Llama step; decoders it does not fit go through transformers' own loop. All
draws come from one generator, so a call depends on its state and on the batch, unlike an engine's samples.

P prompts, G samples of each, B = P * G rows (row p * G + g is sample g of prompt p), A rows under way, V vocabulary.
"""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from athlos.data.encoding import prefix_token
from athlos.data.records import Record
from athlos.errors import ConfigErrors, DataError, ModelError
from athlos.generation.config import TransformersConfig
from athlos.generation.endings import StopStrings, cut, end_tokens
from athlos.generation.interface import Prompt, SamplingRule
from athlos.generation.kv_cache import KVCache, Span, layer_windows, padded_ids
from athlos.generation.linear import fast_linear
from athlos.generation.local import check_prompts, context_length, eval_mode
from athlos.generation.native import check_rope
from athlos.generation.step import DecoderStep
from athlos.generation.transformers_engine import TransformersEngine
from athlos.models.forward import causal_model, hidden_states, project
from athlos.models.sites import backbone

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DROP_SHARE = 1 / 8
"""Finished rows leave when they are this share of the batch: leaving copies the cache of those that stay."""
GROWTH = 128
"""Columns allocated ahead."""


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
    """float32 [B, Lr], of each token under the sampling temperature, in nats; 0 on padding."""
    texts: list[str]
    """Responses without end token, cut at the first stop string."""
    truncated: Tensor
    """bool [B]: cut by length, so that no end token and no stop string stands in the response."""
    group_size: int

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
) -> Rollouts:
    """`group_size` samples of each prompt. The model is left in the mode it came in.

    `temperature` 0 takes the most probable token, with its log-probability at temperature 1, and reads no generator;
    else None draws from torch's own. A prompt is encoded as in training (`data/encoding.py`). Raises `ConfigErrors` for
    numbers out of range and `DataError` for no prompts, an empty one, or one that leaves no room in the context.
    """
    _check(group_size=group_size, max_new_tokens=max_new_tokens, temperature=temperature)
    ids = _encoded(tokenizer, prompts)
    inner = causal_model(model)
    context = context_length(inner)
    longest = max(map(len, ids))
    if longest >= context:
        raise DataError(f"a prompt has {longest} tokens, the model's context {context}; shorten prompt or hint")
    limit = min(max_new_tokens, context - longest)
    asked = [Prompt(token_ids=one, max_new_tokens=limit) for one in ids]
    check_prompts(asked, num_samples=group_size)
    try:
        check_rope(inner.config.get_text_config(), asked)
        layer_windows(backbone(inner).config)
    except ModelError:
        return _by_transformers(inner, tokenizer, asked, group_size, temperature, generator, stop)
    with ExitStack() as stack:
        stack.enter_context(eval_mode(inner))
        stack.enter_context(fast_linear(inner))
        stack.enter_context(torch.inference_mode())
        loop = _Loop(
            DecoderStep(inner, written_out=True), asked,
            group_size=group_size, temperature=temperature, generator=generator,
            ends=end_tokens(inner, tokenizer), stop=StopStrings(tokenizer, stop),
        )  # fmt: skip
        loop.run()
    return loop.rollouts(tokenizer, stop)


def _check(*, group_size: int, max_new_tokens: int, temperature: float) -> None:
    accepted = {
        "group_size": (group_size, group_size >= 1, "an integer >= 1"),
        "max_new_tokens": (max_new_tokens, max_new_tokens >= 1, "an integer >= 1"),
        "temperature": (temperature, 0 <= temperature < math.inf, "a number >= 0"),
    }
    errors = [
        f"{name}: got {value}, expected {what}" for name, (value, is_good, what) in accepted.items() if not is_good
    ]
    if errors:
        raise ConfigErrors(errors)


def _encoded(tokenizer: "PreTrainedTokenizerBase", prompts: Sequence[str]) -> list[list[int]]:
    if not prompts:
        raise DataError("rollouts: got no prompts")
    prefix = prefix_token(tokenizer)
    first = [] if prefix is None else [prefix]
    return [[*first, *tokenizer.encode(prompt, add_special_tokens=False, verbose=False)] for prompt in prompts]


class _Loop:
    """One call of `sample_group`. All rows start in the same column; token t of every row is made in pass t."""

    def __init__(
        self,
        step: DecoderStep,
        prompts: Sequence[Prompt],
        *,
        group_size: int,
        temperature: float,
        generator: torch.Generator | None,
        ends: Sequence[int],
        stop: StopStrings,
    ) -> None:
        self.step, self.group_size, self.temperature, self.generator = step, group_size, temperature, generator
        self.stop, self.limit, device = stop, prompts[0].max_new_tokens, step.device
        self.ends_E = torch.tensor(list(ends), dtype=torch.int64, device=device)
        self.ids = [prompt.token_ids for prompt in prompts]
        rows = len(prompts) * group_size
        self.ids_BL = torch.zeros(rows, self.limit, dtype=torch.int64, device=device)
        self.log_probs_BL = torch.zeros(rows, self.limit, device=device)
        self.lengths_B = torch.full((rows,), self.limit, device=device)
        self.truncated_B = torch.ones(rows, dtype=torch.bool, device=device)

    def run(self) -> None:
        logits_PV, cache, pad_P = self._read()
        alive_A = torch.arange(len(self.ids_BL), device=self.step.device)
        of_row_A = alive_A // self.group_size
        logits_AV, pad_A = logits_PV.index_select(0, of_row_A), pad_P.index_select(0, of_row_A)
        cache = self._kept(cache, of_row_A, pad_A, made=0)
        done_A = torch.zeros_like(alive_A, dtype=torch.bool)
        most_padding = int(pad_A.max())
        for made in range(self.limit):
            tokens_A, log_probs_A = self._choose(logits_AV)
            self.ids_BL[alive_A, made] = tokens_A  # what ended rows get here lies behind their length
            self.log_probs_BL[alive_A, made] = log_probs_A
            ended_A = ~done_A & self._ended(tokens_A, alive_A, made=made)
            self.truncated_B[alive_A[ended_A]] = False
            self.lengths_B[alive_A[ended_A]] = made + 1
            done_A |= ended_A
            num_done = int(done_A.sum())
            if num_done == len(alive_A) or made + 1 == self.limit:
                return
            if num_done >= DROP_SHARE * len(alive_A) or cache.length == cache.capacity:
                kept_K = (~done_A).nonzero()[:, 0]
                alive_A, pad_A, tokens_A, done_A = (
                    table.index_select(0, kept_K) for table in (alive_A, pad_A, tokens_A, done_A)
                )
                length = cache.length
                cache = self._kept(cache, kept_K, pad_A, made=made)
                pad_A = pad_A - (length - cache.length)
                most_padding = int(pad_A.max())
            logits_AV = self.step(tokens_A[:, None], cache, pad_B=pad_A, most_padding=most_padding)

    def _read(self) -> tuple[Tensor, KVCache, Tensor]:
        """Logits [P, V] behind each prompt, the cache of all prompts, and their padding [P]."""
        width = max(map(len, self.ids))
        pads = [width - len(one) for one in self.ids]
        pad_P = torch.tensor(pads, device=self.step.device)
        cache = self.step.new_cache(capacity=width)
        ids_PL = padded_ids(self.ids, width=width, fill=0, device=self.step.device)
        return self.step(ids_PL, cache, pad_B=pad_P, most_padding=max(pads)), cache, pad_P

    def _kept(self, cache: KVCache, rows_A: Tensor, pad_A: Tensor, *, made: int) -> KVCache:
        """The given rows, without columns that are padding in all of them, and with room to grow."""
        length = cache.length - int(pad_A.min())
        room = min(GROWTH, self.limit - made)
        return KVCache.gathered(
            [Span(cache=cache, rows=rows_A, end=cache.length)], length=length, capacity=length + room
        )

    def _choose(self, logits_AV: Tensor) -> tuple[Tensor, Tensor]:
        """The next token of each row and its log-probability under the temperature, [A] each.

        A draw is the largest of logit plus Gumbel noise, -log(-log(u)) of one uniform u a token of the vocabulary.
        """
        if self.temperature == 0:
            tokens_A = logits_AV.argmax(dim=-1)
        else:
            logits_AV = logits_AV if self.temperature == 1 else logits_AV / self.temperature
            noise_AV = torch.empty_like(logits_AV).uniform_(generator=self.generator)
            tokens_A = (logits_AV - noise_AV.log_().neg_().log_()).argmax(dim=-1)
        chosen_A = logits_AV.gather(1, tokens_A[:, None]).squeeze(1)
        return tokens_A, chosen_A - logits_AV.logsumexp(dim=-1)

    def _ended(self, tokens_A: Tensor, alive_A: Tensor, *, made: int) -> Tensor:
        ended_A = (tokens_A[:, None] == self.ends_E).any(dim=1)
        if self.stop:
            tails = self.ids_BL[alive_A, max(0, made + 1 - self.stop.num_tokens) : made + 1].tolist()
            ended_A |= torch.tensor([self.stop.ends(tail) for tail in tails], device=ended_A.device)
        return ended_A

    def rollouts(self, tokenizer: "PreTrainedTokenizerBase", stop: Sequence[str]) -> Rollouts:
        """Copies, made outside inference mode, so that autograd may save them."""
        return _made(
            tokenizer, self.ids, self.ids_BL.clone(), self.log_probs_BL.clone(), self.lengths_B.clone(),
            self.truncated_B.clone(), ends=self.ends_E.tolist(), stop=stop, group_size=self.group_size,
        )  # fmt: skip


def _made(
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Sequence[int]],
    ids_BL: Tensor,
    log_probs_BL: Tensor,
    lengths_B: Tensor,
    truncated_B: Tensor,
    *,
    ends: Sequence[int],
    stop: Sequence[str],
    group_size: int,
) -> Rollouts:
    width, longest = max(map(len, prompts)), int(lengths_B.max())
    prompt_ids = padded_ids(prompts, width=width, fill=0, device=ids_BL.device)
    pad_P = torch.tensor([width - len(one) for one in prompts], device=ids_BL.device)
    mask_BL = torch.arange(longest, device=ids_BL.device) < lengths_B[:, None]
    shown = [row[:length] for row, length in zip(ids_BL.tolist(), lengths_B.tolist(), strict=True)]
    shown = [row[:-1] if row[-1] in ends else row for row in shown]
    texts = tokenizer.batch_decode(shown, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return Rollouts(
        prompt_ids=prompt_ids,
        prompt_mask=(torch.arange(width, device=ids_BL.device) >= pad_P[:, None]).long(),
        response_ids=ids_BL[:, :longest] * mask_BL,
        response_mask=mask_BL.long(),
        log_probs=log_probs_BL[:, :longest] * mask_BL,
        texts=[cut(text, stop) for text in texts],
        truncated=truncated_B,
        group_size=group_size,
    )


def _by_transformers(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Prompt],
    group_size: int,
    temperature: float,
    generator: torch.Generator | None,
    stop: Sequence[str],
) -> Rollouts:
    """The same for any decoder, one sample at a time: its loop is right whatever the layers keep between tokens.

    Log-probabilities come from a forward pass, since the engine gives those of the plain model.
    """
    if temperature:
        device = generator.device if generator is not None else torch.device("cpu")
        for prompt in prompts:
            prompt.seed = int(torch.randint(2**31, (), generator=generator, device=device))
    engine = TransformersEngine(TransformersConfig(_target_="", batch_size=1), model=model, tokenizer=tokenizer)
    rule = SamplingRule(temperature=temperature)
    found = engine.generate(prompts, rule=rule, num_samples=group_size, stop=stop)
    samples = [sample for group in found for sample in group]
    lengths_B = torch.tensor([sample.num_tokens for sample in samples], device=model.device)
    longest = int(lengths_B.max())
    ids = [sample.token_ids + [0] * (longest - sample.num_tokens) for sample in samples]
    made = _made(
        tokenizer, [prompt.token_ids for prompt in prompts], torch.tensor(ids, device=model.device),
        torch.zeros(len(ids), longest, device=model.device), lengths_B,
        torch.tensor([not sample.finished for sample in samples], device=model.device),
        ends=engine.ends(None), stop=stop, group_size=group_size,
    )  # fmt: skip
    with eval_mode(model), torch.no_grad():
        made.log_probs = response_log_probs(model, made, temperature=temperature or 1.0)
    return made


def response_log_probs(model: "PreTrainedModel", rollouts: Rollouts, *, temperature: float) -> Tensor:
    """float32 [B, Lr]: log-probability of each response token by a whole forward pass, 0 on padding."""
    batch = rollouts.rows()
    length = rollouts.response_ids.shape[1]
    hidden_BLD = hidden_states(model, batch)[:, -length - 1 : -1]
    is_token_BL = rollouts.response_mask.bool()
    logits_NV = project(model, hidden_BLD[is_token_BL]) / temperature
    chosen_N1 = rollouts.response_ids[is_token_BL][:, None]
    log_probs_N = logits_NV.gather(1, chosen_N1).squeeze(1) - logits_NV.logsumexp(dim=-1)
    return torch.zeros_like(rollouts.log_probs).masked_scatter(is_token_BL, log_probs_N)
