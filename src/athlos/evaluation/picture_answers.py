"""What a vision-language model says about pictures: log-likelihoods of given answers, and answers of its own.

Prompts of one length are read together, so that no row is padded on the left; each is read once, and its cache serves
all answers to it.

B prompts, T positions, O answers a prompt, S tokens of the longest answer, V vocabulary.
"""

import copy
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from athlos.data.encoding import continued_ids, prefix_token
from athlos.data.picture_prompts import IMAGE_TOKEN
from athlos.errors import DataError
from athlos.models.forward import causal_model, project
from athlos.models.vision_language import FEATURES, decoder_inputs, num_image_tokens

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Progress = Callable[[int], Any]


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One question to ask. `features` [K, V] of its picture; `answers` are scored, where there are any."""

    text: str
    features: Tensor
    answers: tuple[str, ...] = ()


@dataclass(kw_only=True)
class Reply:
    log_probs: list[float]
    """Sum over the tokens of each given answer, in nats."""
    lengths: list[int]
    """Tokens of each given answer."""
    text: str = ""
    """What the model wrote itself, greedily."""


def replies(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Prompt],
    *,
    batch_size: int,
    max_new_tokens: int,
    progress: Progress | None = None,
) -> list[Reply]:
    """One reply a prompt, in order; with `max_new_tokens=0` the model writes nothing itself."""
    inner = causal_model(model)
    ids = [prompt_ids(tokenizer, prompt.text, num_image_tokens=num_image_tokens(inner)) for prompt in prompts]
    replies_of_prompts: list[Reply | None] = [None] * len(prompts)
    was_training = model.training
    model.eval()
    done = 0
    with torch.inference_mode():
        for places in _equal_lengths(ids, batch_size=batch_size):
            for place, reply in zip(
                places,
                _replies_of_batch(
                    inner,
                    tokenizer,
                    [ids[place] for place in places],
                    [prompts[place] for place in places],
                    max_new_tokens=max_new_tokens,
                ),
                strict=True,
            ):
                replies_of_prompts[place] = reply
            done += len(places)
            if progress:
                progress(done)
    model.train(was_training)
    return [reply for reply in replies_of_prompts if reply is not None]


def prompt_ids(tokenizer: "PreTrainedTokenizerBase", text: str, *, num_image_tokens: int) -> list[int]:
    """Token ids as in training: begin-of-sequence where the model expects one, the image token once a place."""
    bos = prefix_token(tokenizer)
    expanded = text.replace(IMAGE_TOKEN, IMAGE_TOKEN * num_image_tokens)
    ids: list[int] = tokenizer.encode(expanded, add_special_tokens=False)
    return ids if bos is None else [bos, *ids]


def _equal_lengths(ids: Sequence[list[int]], *, batch_size: int) -> Iterator[list[int]]:
    """Places of prompts with one length, `batch_size` at a time."""
    of_length: dict[int, list[int]] = defaultdict(list)
    for place, tokens in enumerate(ids):
        of_length[len(tokens)].append(place)
    for _, places in sorted(of_length.items()):
        for start in range(0, len(places), batch_size):
            yield places[start : start + batch_size]


def _replies_of_batch(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    ids: Sequence[list[int]],
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
) -> list[Reply]:
    from transformers import DynamicCache

    device = next(model.parameters()).device
    batch = {
        "input_ids": torch.tensor(list(ids), device=device),
        FEATURES: torch.stack([prompt.features for prompt in prompts]).to(device),
    }
    cache = DynamicCache()
    output = model.base_model(inputs_embeds=decoder_inputs(model, batch), past_key_values=cache, use_cache=True)
    logits_BV = project(model, output.last_hidden_state[:, -1])
    answers = [[continued_ids(tokenizer, prompt.text, text) for text in prompt.answers] for prompt in prompts]
    batch_replies = [Reply(log_probs=[], lengths=[]) for _ in prompts]
    if any(answers):
        batch_replies = _scored(model, logits_BV, cache, answers)
    if max_new_tokens:
        for reply, text in zip(
            batch_replies, _written(model, tokenizer, logits_BV, cache, max_new_tokens=max_new_tokens), strict=True
        ):
            reply.text = text
    return batch_replies


def _scored(model: "PreTrainedModel", logits_BV: Tensor, cache: Any, answers: list[list[list[int]]]) -> list[Reply]:
    """Log-probabilities of the answers; all prompts of a batch have equally many."""
    counts = {len(options) for options in answers}
    if len(counts) != 1 or any(not tokens for options in answers for tokens in options):
        raise DataError("multiple choice: every item needs as many options as the others, none empty")
    num_answers = counts.pop()
    flat = [tokens for options in answers for tokens in options]
    longest = max(map(len, flat))
    tokens_NS = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens in flat], device=logits_BV.device)
    log_probs_NV = logits_BV.log_softmax(-1).repeat_interleave(num_answers, dim=0)
    picked = [log_probs_NV.gather(1, tokens_NS[:, :1])]
    if longest > 1:
        repeated = copy.deepcopy(cache)
        repeated.batch_repeat_interleave(num_answers)
        states = model.base_model(input_ids=tokens_NS[:, :-1], past_key_values=repeated, use_cache=True)
        log_probs_NSV = project(model, states.last_hidden_state).log_softmax(-1)
        picked.append(log_probs_NSV.gather(2, tokens_NS[:, 1:, None])[..., 0])
    picked_NS = torch.cat(picked, dim=1).double()
    sums = [float(row[: len(tokens)].sum()) for row, tokens in zip(picked_NS, flat, strict=True)]
    lengths = [len(tokens) for tokens in flat]
    spans = [slice(start, start + num_answers) for start in range(0, len(flat), num_answers)]
    return [Reply(log_probs=sums[span], lengths=lengths[span]) for span in spans]


def _written(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    logits_BV: Tensor,
    cache: Any,
    *,
    max_new_tokens: int,
) -> list[str]:
    """Greedy answers up to a line end, the end token or `max_new_tokens`."""
    written: list[list[int]] = [[] for _ in logits_BV]
    is_open = [True] * len(written)
    for _ in range(max_new_tokens):
        next_B = logits_BV.argmax(-1)
        for row, token in enumerate(next_B.tolist()):
            if is_open[row]:
                written[row].append(token)
                is_open[row] = token != tokenizer.eos_token_id and "\n" not in tokenizer.decode([token])
        if not any(is_open):
            break
        states = model.base_model(input_ids=next_B[:, None], past_key_values=cache, use_cache=True)
        logits_BV = project(model, states.last_hidden_state[:, -1])
    return [str(tokenizer.decode(tokens, skip_special_tokens=True)).partition("\n")[0] for tokens in written]
