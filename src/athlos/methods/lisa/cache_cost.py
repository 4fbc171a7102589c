"""What a surgery makes of the cache and the number of parameters: the same figures for LISA and its baselines."""

from typing import TYPE_CHECKING

from athlos.models.sites import Backbone, backbone

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def cache_metrics(model: "PreTrainedModel", *, base: "PreTrainedModel") -> dict[str, float]:
    """Bytes cached a token, and cache and parameters over those of the base."""
    found = backbone(model)
    count, count_before = (sum(one.numel() for one in each.parameters()) for each in (model, base))
    return {
        "lisa/kv_bytes_per_token": float(cached_numbers(found) * found.head.weight.element_size()),
        "lisa/kv_ratio": cached_numbers(found) / cached_numbers(backbone(base)),
        "lisa/total_params_ratio": count / count_before,
    }


def cached_numbers(found: Backbone) -> int:
    """Numbers that all layers cache a token; an attention that keeps less says so by `cache_numbers`."""
    whole = 2 * found.num_kv_heads * found.head_size
    return sum(int(getattr(layer.attention, "cache_numbers", whole)) for layer in found.layers)
