"""What a run of LISA tells beside its losses: likeness of neighbours, noise by layer, agreement with the base."""

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from athlos.config.schema import RunConfig
from athlos.data.datamodule import DataModule
from athlos.data.records import TextRecord
from athlos.errors import DataError
from athlos.methods.lisa.agreement import Reading, encoded, read, right_words, same_choices
from athlos.methods.lisa.attention import ARGUMENT, LayerScores, NoisyScores
from athlos.methods.lisa.similarity import Similarity
from athlos.models.sites import backbone

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def test_text(
    config: RunConfig, data: DataModule, tokenizer: "PreTrainedTokenizerBase"
) -> tuple[Tensor, list[list[int]], int]:
    """Tokens of the test split, tokens of its lines' last words, and the window to read it in.

    Running text is cut as the perplexity is; rows that stand for themselves are one window each, and have no words.
    """
    records = [record for record in data.eval_records(data.test_split) if isinstance(record, TextRecord)]
    text = "".join(record.text for record in records)
    if windows := config.eval.running_text:
        return *encoded(tokenizer, text, limit=windows.limit_tokens), windows.max_length
    rows = [tokenizer(record.text, add_special_tokens=False)["input_ids"] for record in records]
    if not rows or len({len(row) for row in rows}) != 1:
        return torch.empty(0, dtype=torch.int64), [], 0
    return torch.tensor(rows).flatten(), [], len(rows[0])


def agreement(
    base: "PreTrainedModel", student: "PreTrainedModel", *, text: tuple[Tensor, list[list[int]], int], batch_size: int
) -> tuple[dict[str, float], tuple[Reading, Reading]]:
    """`top1_agreement` with the base, and `last_word_acc` of both where the text has lines."""
    tokens, words, length = text
    before, after = (read(model, tokens, length=length, batch_size=batch_size) for model in (base, student))
    metrics = {"test/top1_agreement": same_choices(before, after)}
    if words:
        for suffix, reading in (("_base", before), ("", after)):
            metrics[f"test/last_word_acc{suffix}"], count = right_words(reading, tokens, words)
            metrics["test/last_words"] = float(count)
    return metrics, (before, after)


def other_text(
    base: "PreTrainedModel",
    student: "PreTrainedModel",
    *,
    path: Path,
    tokenizer: "PreTrainedTokenizerBase",
    config: RunConfig,
) -> dict[str, float]:
    """Perplexity and agreement on a text that is not of the test's kind."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"method.other_text: cannot read {path}: {error.strerror or error}") from error
    if not text.strip():
        raise DataError(f"method.other_text: {path} is empty")
    windows = config.eval.running_text
    assert windows is not None  # the config's check has seen to it
    whole = encoded(tokenizer, text, limit=windows.limit_tokens)
    metrics, (before, after) = agreement(
        base, student, text=(*whole, windows.max_length), batch_size=config.eval.batch_size
    )
    named = {f"{name}_other": value for name, value in metrics.items()}
    return {**named, "test/ppl_base_other": before.ppl, "test/ppl_other": after.ppl}


def noise_by_layer(
    teacher: "PreTrainedModel", *, text: tuple[Tensor, list[list[int]], int], sigma: float, batch_size: int, seed: int
) -> dict[str, float]:
    """`diag/noise_ppl/<layer>`: perplexity with Gaussian noise on the scores of one layer, the same draw for each.

    `_shallow` and `_deep` are geometric means over the lower and the upper half of the layers, `_none` has no noise.

    `teacher` hands its scores on (`attention.hand_on`).
    """
    tokens, _, length = text
    layers = {f"/{layer.index:02d}": layer.index for layer in backbone(teacher).layers}
    metrics = {}
    for name, layer in {"_none": -1, **layers}.items():
        noise = NoisyScores(
            is_kept=False, noisy_layer=layer, sigma=sigma, generator=torch.Generator().manual_seed(seed)
        )
        with given_to_layers(teacher, noise):
            metrics[f"diag/noise_ppl{name}"] = read(teacher, tokens, length=length, batch_size=batch_size).ppl
    values = [metrics[f"diag/noise_ppl{name}"] for name in layers]
    half = len(values) // 2
    halves = {"shallow": values[:half], "deep": values[half:]}
    return metrics | {f"diag/noise_ppl_{name}": math.exp(np.log(half).mean()) for name, half in halves.items()}


@contextmanager
def given_to_layers(model: "PreTrainedModel", scores: LayerScores) -> Iterator[None]:
    """Inside the block the decoder's forward passes write their scores into `scores`."""

    def before(module: Any, arguments: Any, keywords: dict[str, Any]) -> Any:
        return arguments, {ARGUMENT: scores, **keywords}

    handle = backbone(model).decoder.register_forward_pre_hook(before, with_kwargs=True, prepend=True)
    try:
        yield
    finally:
        handle.remove()


def likeness(similarities: Similarity) -> dict[str, float]:
    """1 - JSD and cosine of each layer with the one below, head for head and with matched heads, and their means."""
    metrics: dict[str, float] = {}
    for name, values_L in curves(similarities).items():
        metrics[f"diag/adjacent_{name}"] = float(np.nanmean(values_L))
        metrics |= {f"diag/adjacent_{name}/{layer:02d}": float(values_L[layer]) for layer in range(1, len(values_L))}
    return metrics


def curves(similarities: Similarity) -> dict[str, np.ndarray]:
    """Means over heads, [L]; entry 0 is NaN."""
    return {
        "similarity": similarities.adjacent(with_matching=False),
        "similarity_matched": similarities.adjacent(with_matching=True),
        "cosine": by_head(similarities, "cosine", is_matched=False).mean(axis=1),
        "cosine_matched": by_head(similarities, "cosine", is_matched=True).mean(axis=1),
    }


def by_head(similarities: Similarity, measure: str, *, is_matched: bool) -> np.ndarray:
    """[L, H]: each head beside the same head of the layer below, or beside the one it is matched with; row 0 NaN."""
    table_LHH = similarities.cosine_LHH if measure == "cosine" else 1 - similarities.divergence_LHH
    heads = np.arange(table_LHH.shape[1])
    partners = [heads, *(similarities.matched(layer) if is_matched else heads for layer in range(1, len(table_LHH)))]
    return np.stack([table[heads, partner] for table, partner in zip(table_LHH, partners, strict=True)])


def likeness_figure(similarities: Similarity) -> bytes:
    """A PNG: 1 - JSD and cosine by layer and head, without and with matching."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    page = Figure(figsize=(7, 6), layout="constrained")
    FigureCanvasAgg(page)
    axes = page.subplots(2, 2, sharex=True, sharey=True)
    for row, measure in enumerate(("1 - JSD", "cosine")):
        for column, is_matched in enumerate((False, True)):
            place = axes[row, column]
            image = place.imshow(
                by_head(similarities, measure, is_matched=is_matched), vmin=0, vmax=1, aspect="auto", cmap="viridis"
            )
            place.set_title(f"{measure}, {'matched heads' if is_matched else 'head for head'}")
    for place in axes[1]:
        place.set_xlabel("head")
    for place in axes[:, 0]:
        place.set_ylabel("layer, beside the one below")
    page.colorbar(image, ax=axes, shrink=0.8)
    stored = io.BytesIO()
    page.savefig(stored, format="png", dpi=110)
    return stored.getvalue()


def finite(metrics: dict[str, float]) -> dict[str, float]:
    """Metrics that are numbers: a text without a last word has no accuracy."""
    return {name: value for name, value in metrics.items() if not math.isnan(value)}
