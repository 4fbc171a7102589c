"""What a surgery makes of the cache and the number of parameters: the same figures for LISA and its baselines."""

from typing import TYPE_CHECKING

from athlos.models.sites import Backbone, backbone

if TYPE_CHECKING:
    from transformers import PreTrainedModel

CARD_GIB, USABLE, NUMBER_BYTES = 80, 0.9, 2
SEQUENCE_TOKENS = 2048
"""Prompt and answer of a sequence of the throughput count."""


def cache_metrics(model: "PreTrainedModel", *, base: "PreTrainedModel") -> dict[str, float]:
    """Bytes cached a token, cache and parameters over those of the base, and sequences of 2,048 tokens on a card."""
    sites = backbone(model)
    rows = {name: rows_on_a_card(backbone(each)) for name, each in (("", model), ("_base", base))}
    count, count_before = (sum(parameter.numel() for parameter in each.parameters()) for each in (model, base))
    return {
        "lisa/kv_bytes_per_token": float(cached_numbers(sites) * sites.head.weight.element_size()),
        "lisa/kv_ratio": cached_numbers(sites) / cached_numbers(backbone(base)),
        "lisa/total_params_ratio": count / count_before,
        **{f"lisa/best_batch_80gb{name}": float(fitting) for name, fitting in rows.items()},
    }


def rows_on_a_card(sites: Backbone) -> int:
    """Sequences whose cache fits an 80 GB card beside the weights, both in 16 bits: the best batch of a full card."""
    weights = sum(parameter.numel() for parameter in sites.decoder.parameters()) + (
        0 if sites.head.weight is sites.embedding.weight else sites.head.weight.numel()
    )
    free = USABLE * CARD_GIB * 2**30 - NUMBER_BYTES * weights
    return max(0, int(free // (NUMBER_BYTES * cached_numbers(sites) * SEQUENCE_TOKENS)))


def cached_numbers(sites: Backbone) -> int:
    """Numbers that all layers cache a token; an attention that keeps less says so by `cache_numbers`."""
    whole = 2 * sites.num_kv_heads * sites.head_size
    return sum(int(getattr(layer.attention, "cache_numbers", whole)) for layer in sites.layers)
