"""How the next token is chosen: rules on logits, and a draw that only its own seed decides.

A draw is the largest of logit plus Gumbel noise (Gumbel-max), the noise from a generator of the row's own, of (seed,
sample). So an answer depends on the rows of its batch through rounding alone: another batch shape sums float32 products
in another order, moves a logit by about 1e-5, and changes a draw with about that probability. Drawing one number and
walking up the cumulated probabilities would add up the rounding of all tokens: far more changed draws.

B batch, T columns, V vocabulary.
"""

import hashlib
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from athlos.errors import ConfigErrors
from athlos.generation.interface import SamplingRule

LogitsRule = Callable[[Tensor, Tensor], Tensor]
"""(logits [B, V] float32, token ids of prompt and answer [B, T], padded on the left with PAD) -> logits [B, V]."""

PAD = -1
FIRST_LOOK = 256
"""Tokens looked at first for top-p; only a flatter distribution has all its tokens sorted."""


def check_rule(rule: SamplingRule) -> None:
    """Raises `ConfigErrors` for values out of range."""
    accepted = {
        "temperature": (rule.temperature, 0 <= rule.temperature < math.inf, "a number >= 0"),
        "top_k": (rule.top_k, rule.top_k >= 0, "an integer >= 0"),
        "top_p": (rule.top_p, 0 < rule.top_p <= 1, "a number in (0, 1]"),
        "min_p": (rule.min_p, 0 <= rule.min_p < 1, "a number in [0, 1)"),
        "repetition_penalty": (rule.repetition_penalty, 0 < rule.repetition_penalty < math.inf, "a number > 0"),
        "presence_penalty": (rule.presence_penalty, -2 <= rule.presence_penalty <= 2, "a number in [-2, 2]"),
    }
    errors = [
        f"{name}: got {value}, expected {what}" for name, (value, is_good, what) in accepted.items() if not is_good
    ]
    if errors:
        raise ConfigErrors(errors)


def generator(seed: int, sample: int, *, device: torch.device) -> torch.Generator:
    """The random stream of one sample; neighbouring seeds and samples have nothing to do with each other."""
    digest = hashlib.blake2b(f"{seed}/{sample}".encode(), digest_size=8).digest()
    return torch.Generator(device=device).manual_seed(int.from_bytes(digest) >> 1)


def next_tokens(
    logits_BV: Tensor,
    *,
    rule: SamplingRule,
    ids_BT: Tensor | None = None,
    first_B: Sequence[int] = (),
    generators: torch.Generator | Sequence[torch.Generator | None] = (),
    extra_rules: Sequence[LogitsRule] = (),
) -> Tensor:
    """The next token of each row, [B]: penalties, then further rules, then temperature and truncation, then the draw.

    `ids_BT` is read by the penalties and by further rules, `first_B`, the column where each row's answer begins, by the
    presence penalty; `generators`, above temperature 0 (see `draw`). Leaves the logits as they are.
    """
    if rule.repetition_penalty != 1:
        assert ids_BT is not None
        logits_BV = penalised(logits_BV, ids_BT, penalty=rule.repetition_penalty)
    if rule.presence_penalty:
        assert ids_BT is not None
        logits_BV = logits_BV - rule.presence_penalty * seen_tokens(logits_BV, answers_only(ids_BT, first_B))
    for extra_rule in extra_rules:
        assert ids_BT is not None
        logits_BV = extra_rule(logits_BV, ids_BT)
    if rule.temperature == 0:
        return logits_BV.argmax(dim=-1)
    return draw(truncated(tempered(logits_BV, rule.temperature), rule), generators)


def needs_ids(rule: SamplingRule, extra_rules: Sequence[LogitsRule]) -> bool:
    return rule.repetition_penalty != 1 or rule.presence_penalty != 0 or bool(extra_rules)


def penalised(logits_BV: Tensor, ids_BT: Tensor, *, penalty: float) -> Tensor:
    """Logits of seen tokens divided (if positive) or multiplied by the penalty. Source: arXiv 1909.05858, 4.1."""
    return torch.where(
        seen_tokens(logits_BV, ids_BT), torch.where(logits_BV > 0, logits_BV / penalty, logits_BV * penalty), logits_BV
    )


def seen_tokens(logits_BV: Tensor, ids_BT: Tensor) -> Tensor:
    """Which tokens stand in a row, bool [B, V]; PAD is none."""
    num_tokens = logits_BV.shape[1]
    seen_BV = logits_BV.new_zeros(len(logits_BV), num_tokens + 1, dtype=torch.bool)
    seen_BV.scatter_(1, ids_BT.masked_fill(ids_BT == PAD, num_tokens), True)
    return seen_BV[:, :num_tokens]


def answers_only(ids_BT: Tensor, first_B: Sequence[int]) -> Tensor:
    """The ids with PAD before the column where each row's answer begins."""
    columns_T = torch.arange(ids_BT.shape[1], device=ids_BT.device)
    first_B1 = torch.tensor(first_B, device=ids_BT.device)[:, None]
    return ids_BT.masked_fill(columns_T < first_B1, PAD)


def tempered(logits_BV: Tensor, temperature: float) -> Tensor:
    return logits_BV if temperature == 1 else logits_BV / temperature


def truncated(logits_BV: Tensor, rule: SamplingRule) -> Tensor:
    """Logits with -inf for all that top-k, then top-p, then min-p leave out.

    Each rule is a least logit, so tokens that tie with the last one kept are kept too, whatever order a sort gives.
    """
    if rule.top_k == 0 and rule.top_p == 1 and rule.min_p == 0:
        return logits_BV
    least_B1 = torch.full_like(logits_BV[:, :1], -torch.inf)
    sorted_BK = None
    if 0 < rule.top_k < logits_BV.shape[1]:
        sorted_BK = logits_BV.topk(rule.top_k, dim=-1).values
        least_B1 = sorted_BK[:, -1:]
    if rule.top_p < 1:
        least_B1 = torch.maximum(least_B1, _nucleus(logits_BV, sorted_BK, top_p=rule.top_p))
    if rule.min_p > 0:
        least_B1 = torch.maximum(least_B1, logits_BV.amax(dim=-1, keepdim=True) + math.log(rule.min_p))
    return logits_BV.masked_fill(logits_BV < least_B1, -torch.inf)


def _nucleus(logits_BV: Tensor, sorted_BK: Tensor | None, *, top_p: float) -> Tensor:
    """The least logit [B, 1] of the smallest set with at least the probability `top_p`; `sorted_BK` is all of it."""
    if sorted_BK is None:
        total_B1 = logits_BV.logsumexp(dim=-1, keepdim=True)
        sorted_BK = logits_BV.topk(min(FIRST_LOOK, logits_BV.shape[1]), dim=-1).values
        if not bool(((sorted_BK - total_B1).exp().sum(dim=-1) >= top_p).all()):
            sorted_BK = logits_BV.sort(dim=-1, descending=True).values
    else:
        total_B1 = sorted_BK.logsumexp(dim=-1, keepdim=True)
    probs_BK = (sorted_BK - total_B1).double().exp()
    before_BK = probs_BK.cumsum(dim=-1) - probs_BK
    num_kept_B1 = (before_BK < top_p).sum(dim=-1, keepdim=True)
    return sorted_BK.gather(1, num_kept_B1 - 1)


def draw(logits_BV: Tensor, generators: torch.Generator | Sequence[torch.Generator | None]) -> Tensor:
    """A token of each row, [B], with noise from one generator for all rows at once, or from one a row (None: no noise).

    With u uniform in [0, 1), -log(-log(u)) is Gumbel noise. Made of u, for torch's own exponential noise takes seven
    times as long. A probability is off by 2^-24 at most.
    """
    if isinstance(generators, torch.Generator):
        noise_BV = torch.empty_like(logits_BV).uniform_(generator=generators)
    else:
        noise_BV = torch.full_like(logits_BV, 0.5)
        for row_V, source in zip(noise_BV, generators, strict=True):
            if source is not None:
                row_V.uniform_(generator=source)
    return (logits_BV - noise_BV.log_().neg_().log_()).argmax(dim=-1)


def token_log_probs(logits_BV: Tensor, tokens_B: Tensor) -> Tensor:
    """Log-probability of a token of each row, [B], in nats."""
    return logits_BV.gather(1, tokens_B[:, None]).squeeze(1) - logits_BV.logsumexp(dim=-1)
