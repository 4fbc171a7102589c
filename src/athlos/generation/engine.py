"""Batched generation on `transformers.generate`: prompts in, answers with their log-probability out.

Rows are padded on the left, sorted by length, and come back in the order of the prompts. Prompts that begin alike (the
worked examples of a task, many samples of one prompt) share the work: a common beginning is computed once and its keys
and values are copied into each batch.

B batch, T prompt width, C cached columns, P shared prefix, V vocabulary, S generated tokens.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GenerationConfig, LogitsProcessorList, StoppingCriteriaList
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer
from transformers.generation import LogitsProcessor, StoppingCriteria

from athlos.models.forward import causal_model
from athlos.models.quiet import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Progress = Callable[[int, int, int], Any]
"""(prompts done, all prompts, tokens generated so far)"""
Chooser = Callable[[Tensor, Sequence[torch.Generator]], Tensor]
"""(logits [B, V] float32, one generator a row) -> next token [B]. Leaves the logits as they are."""

MIN_SHARED_TOKENS = 32
"""Shorter common beginnings are computed anew: copying would cost as much."""
SAME_PREFIX_SHARE = 0.5
"""A prompt joins its neighbour's group if that keeps at least this share of the beginning common to the group."""
LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")
"""Rotary embeddings whose angles depend on the length of the whole sequence: keys of a prefix alone would differ."""
ATTENTION_LAYERS = (DynamicLayer, DynamicSlidingWindowLayer)
"""Layers that keep keys and values by column and nothing else; others (convolutions, states) cannot be copied so."""


@dataclass(kw_only=True)
class Prompt:
    """Token ids, the seed of its sampling, and the largest number of tokens it may still generate (>= 1)."""

    token_ids: list[int]
    max_new_tokens: int
    seed: int = 0


@dataclass(kw_only=True)
class Answer:
    """What was generated for one prompt.

    `token_ids` and `log_prob` (nats, of the plain model: before temperature and truncation) end with the end token or
    with the token that completes a stop string. `text` is without both.
    """

    text: str
    token_ids: list[int]
    log_prob: float
    finished: bool
    """False when it was cut by length."""


def greedy(logits_BV: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """The most probable token of each row, [B]."""
    return logits_BV.argmax(dim=-1)


@torch.inference_mode()
def generate(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Prompt],
    *,
    choose: Chooser = greedy,
    stop: Sequence[str] = (),
    end_token_ids: Sequence[int] | None = None,
    batch_size: int,
    share_prefixes: bool = True,
    progress: Progress | None = None,
) -> list[Answer]:
    """One answer a prompt, in order. The model is left in the mode it came in.

    `end_token_ids` is what ends an answer; None = what model and tokenizer name, empty = nothing.
    """
    inner = causal_model(model)
    ends = end_tokens(inner, tokenizer) if end_token_ids is None else tuple(end_token_ids)
    shared = shared_prefixes([prompt.token_ids for prompt in prompts]) if share_prefixes else [None] * len(prompts)
    answers: dict[int, Answer] = {}
    num_tokens = 0
    prefixes = _PrefixStore(inner)
    with _eval_mode(inner), _own_rules(inner), quiet_transformers():
        for rows in _batches([len(prompt.token_ids) for prompt in prompts], shared, batch_size=batch_size):
            batch = [prompts[index] for index in rows]
            cache = prefixes.cache([prompt.token_ids for prompt in batch], [shared[index] for index in rows])
            found = _generate_batch(inner, tokenizer, batch, cache, choose=choose, stop=stop, ends=ends)
            answers.update(zip(rows, found, strict=True))
            num_tokens += sum(len(answer.token_ids) for answer in found)
            if progress:
                progress(len(answers), len(prompts), num_tokens)
    return [answers[index] for index in range(len(prompts))]


def end_tokens(model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> tuple[int, ...]:
    """Tokens that end an answer: those of the model's generation config, and the tokenizer's end of sequence."""
    named = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids = [named] if isinstance(named, int) else list(named or [])
    if tokenizer.eos_token_id is not None:
        ids.append(tokenizer.eos_token_id)
    return tuple(dict.fromkeys(ids))


@dataclass(frozen=True, kw_only=True)
class SharedPrefix:
    """The beginning of a prompt that others have too: its group's number and its length in tokens."""

    group: int
    length: int


def shared_prefixes(prompts: Sequence[Sequence[int]]) -> list[SharedPrefix | None]:
    """For each prompt the beginning it shares with its group, or nothing.

    Prompts in lexicographic order fall into groups at the places where the common beginning breaks off. A prompt keeps
    at least its last token for itself, since the model must read something.
    """
    order = sorted(range(len(prompts)), key=lambda index: list(prompts[index]))
    found: list[SharedPrefix | None] = [None] * len(prompts)
    members: list[int] = []
    common = 0

    def close(number: int) -> None:
        if len(members) > 1:
            for member in members:
                length = min(common, len(prompts[member]) - 1)
                if length >= MIN_SHARED_TOKENS:
                    found[member] = SharedPrefix(group=number, length=length)

    for position, index in enumerate(order):
        overlap = _common_length(prompts[members[-1]], prompts[index]) if members else 0
        joined = min(common, overlap) if len(members) > 1 else overlap
        if members and joined >= max(MIN_SHARED_TOKENS, SAME_PREFIX_SHARE * (common if len(members) > 1 else 0)):
            members.append(index)
            common = joined
        else:
            close(position)
            members, common = [index], 0
    close(len(order))
    return found


def _common_length(first: Sequence[int], second: Sequence[int]) -> int:
    for position, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return position
    return min(len(first), len(second))


def _batches(lengths: Sequence[int], shared: Sequence[SharedPrefix | None], *, batch_size: int) -> Iterator[list[int]]:
    """Indices of each batch: like groups and like lengths together, the longest first so that memory fails early."""
    alone = [index for index, prefix in enumerate(shared) if prefix is None]
    grouped = [(prefix.group, index) for index, prefix in enumerate(shared) if prefix is not None]
    alone.sort(key=lambda index: -lengths[index])
    grouped.sort(key=lambda pair: (pair[0], -lengths[pair[1]]))
    for order in ([index for _, index in grouped], alone):
        for first in range(0, len(order), batch_size):
            yield order[first : first + batch_size]


class _PrefixStore:
    """Keys and values of shared prefixes, computed when a batch first needs them and dropped with the last one."""

    def __init__(self, model: "PreTrainedModel") -> None:
        self.model = model
        config = model.config.get_text_config()
        rope = config.to_dict().get("rope_parameters") or {}
        by_layer_type = [rope, *(value for value in rope.values() if isinstance(value, dict))]
        has_fixed_rope = not any(kind.get("rope_type") in LENGTH_DEPENDENT_ROPE for kind in by_layer_type)
        is_attention = all(type(layer) in ATTENTION_LAYERS for layer in DynamicCache(config=config).layers)
        self.is_possible = has_fixed_rope and is_attention
        self._layers: dict[int, list[tuple[Tensor, Tensor]]] = {}

    def cache(self, prompts: Sequence[Sequence[int]], shared: Sequence[SharedPrefix | None]) -> DynamicCache | None:
        """A cache with the first C columns of a left-padded batch, or nothing when the rows share too little.

        All rows must leave the same number of columns to compute. A row shorter than the longest one is padded on
        the left *before* its cached prefix, so it takes fewer tokens from the cache and computes the last few of its
        prefix again. This keeps padding out of the middle, where it would shift the window of local attention.
        """
        if not self.is_possible or all(prefix is None for prefix in shared):
            return None
        lengths = [len(prompt) for prompt in prompts]
        computed = max(
            length - (prefix.length if prefix else 0) for length, prefix in zip(lengths, shared, strict=True)
        )
        columns = max(lengths) - computed
        if columns == 0:
            return None
        needed = {prefix.group for prefix in shared if prefix}
        self._layers = {group: layers for group, layers in self._layers.items() if group in needed}
        for prompt, prefix in zip(prompts, shared, strict=True):
            if prefix and prefix.group not in self._layers:
                self._read(prompt, prefix, shared)
        cache = DynamicCache(config=self.model.config.get_text_config())
        [*layers] = self._layers.values()
        for index in range(len(layers[0])):
            keys, values = (
                self._columns([layer[index][part] for layer in layers], lengths, shared, computed, columns)
                for part in (0, 1)
            )
            cache.update(keys, values, index)
        return cache

    def _read(self, prompt: Sequence[int], prefix: SharedPrefix, shared: Sequence[SharedPrefix | None]) -> None:
        # The first batch of a group holds its longest prompts, so no later batch needs a longer prefix.
        length = max(other.length for other in shared if other and other.group == prefix.group)
        # A cache without a config keeps all columns, of layers with a sliding window too.
        cache = DynamicCache()
        ids = torch.tensor([list(prompt[:length])], device=self.model.device)
        self.model.base_model(input_ids=ids, past_key_values=cache, use_cache=True)
        self._layers[prefix.group] = [(layer.keys[0], layer.values[0]) for layer in cache.layers]

    def _columns(
        self,
        states: Sequence[Tensor],
        lengths: Sequence[int],
        shared: Sequence[SharedPrefix | None],
        computed: int,
        columns: int,
    ) -> Tensor:
        """[B, heads, C, width] of one layer: each row's prefix at the right end, zeros (masked out) before it."""
        heads, _, width = states[0].shape
        batch = states[0].new_zeros(len(lengths), heads, columns, width)
        by_group = dict(zip(self._layers, states, strict=True))
        for row, (length, prefix) in enumerate(zip(lengths, shared, strict=True)):
            num_cached = length - computed
            if prefix and num_cached > 0:
                batch[row, :, columns - num_cached :] = by_group[prefix.group][:, :num_cached]
        return batch


@dataclass(kw_only=True)
class _ChooseTokens(LogitsProcessor):
    """Chooses the next tokens itself and notes their log-probability; what `generate` sees is the choice alone."""

    choose: Chooser
    generators: Sequence[torch.Generator]
    log_probs: list[Tensor] = field(default_factory=list)
    """[B] a step."""

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        log_total_B = scores.logsumexp(dim=-1)
        chosen_B = self.choose(scores, self.generators)
        self.log_probs.append(scores.gather(1, chosen_B[:, None]).squeeze(1) - log_total_B)
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen_B[:, None], 0.0)


class _StopRows(StoppingCriteria):
    """Ends each row at an end token, at a stop string, or at its own limit of tokens; keeps where it ended."""

    def __init__(
        self,
        tokenizer: "PreTrainedTokenizerBase",
        *,
        width: int,
        limits: Sequence[int],
        stop: Sequence[str],
        ends: Sequence[int],
    ) -> None:
        self.tokenizer, self.width, self.limits, self.stop, self.ends = tokenizer, width, limits, stop, set(ends)
        self.num_tokens = [0] * len(limits)
        self.finished = [False] * len(limits)
        self._is_running = [True] * len(limits)
        # A token is at least one byte of text; the rest is room for a character cut at the left edge of the tail.
        self._tail = max((len(text.encode()) for text in stop), default=0) + 4

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        step = input_ids.shape[1] - self.width
        tails = input_ids[:, -min(step, self._tail) :].tolist()
        for row, tail in enumerate(tails):
            if not self._is_running[row]:
                continue
            self.finished[row] = tail[-1] in self.ends or self._has_stop(tail)
            self._is_running[row] = not self.finished[row] and step < self.limits[row]
            self.num_tokens[row] = step
        return torch.tensor([not running for running in self._is_running], device=input_ids.device)

    def _has_stop(self, tail: list[int]) -> bool:
        if not self.stop:
            return False
        text = _decode(self.tokenizer, tail)
        return any(stop in text for stop in self.stop)


def _decode(tokenizer: "PreTrainedTokenizerBase", token_ids: Sequence[int]) -> str:
    text = tokenizer.decode(list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert isinstance(text, str)
    return text


def cut(text: str, stop: Sequence[str]) -> str:
    """The text up to the first stop string."""
    places = [place for place in (text.find(string) for string in stop) if place >= 0]
    return text[: min(places)] if places else text


def _generate_batch(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Prompt],
    cache: DynamicCache | None,
    *,
    choose: Chooser,
    stop: Sequence[str],
    ends: Sequence[int],
) -> list[Answer]:
    lengths = [len(prompt.token_ids) for prompt in prompts]
    width, limits = max(lengths), [prompt.max_new_tokens for prompt in prompts]
    pad = next(token for token in (tokenizer.pad_token_id, *ends, 0) if token is not None)  # any id: it is masked out
    rows = [[pad] * (width - length) + prompt.token_ids for prompt, length in zip(prompts, lengths, strict=True)]
    mask = [[0] * (width - length) + [1] * length for length in lengths]
    chooser = _ChooseTokens(choose=choose, generators=[_generator(model, prompt.seed) for prompt in prompts])
    stopper = _StopRows(tokenizer, width=width, limits=limits, stop=stop, ends=ends)
    sequences = model.generate(
        input_ids=torch.tensor(rows, device=model.device),
        attention_mask=torch.tensor(mask, device=model.device),
        logits_processor=LogitsProcessorList([chooser]),
        stopping_criteria=StoppingCriteriaList([stopper]),
        generation_config=GenerationConfig(max_new_tokens=max(limits), do_sample=False, use_cache=True),
        **({} if cache is None else {"past_key_values": cache}),
    )
    assert isinstance(sequences, Tensor)
    generated = sequences[:, width:].tolist()
    log_probs_BS = torch.stack(chooser.log_probs, dim=1).double().cpu()
    answers = []
    for row, num_tokens in enumerate(stopper.num_tokens):
        token_ids = generated[row][:num_tokens]
        text_ids = token_ids[:-1] if token_ids[-1] in stopper.ends else token_ids
        answers.append(
            Answer(
                text=cut(_decode(tokenizer, text_ids), stop),
                token_ids=token_ids,
                log_prob=float(log_probs_BS[row, :num_tokens].sum()),
                finished=stopper.finished[row],
            )
        )
    return answers


def _generator(model: "PreTrainedModel", seed: int) -> torch.Generator:
    return torch.Generator(device=model.device).manual_seed(seed)


@contextmanager
def _own_rules(model: "PreTrainedModel") -> Iterator[None]:
    """`generate` fills what it is not told from the model's generation config (penalties, end tokens): empty it."""
    before = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = before


@contextmanager
def _eval_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; afterwards every module is in the mode it had."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
