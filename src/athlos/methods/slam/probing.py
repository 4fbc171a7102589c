"""The two stages before training: which neurons fire on which language, and which layers stand out.

L layers, X languages, J neurons of a layer, B texts, T positions.
"""

import itertools
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from hydra.utils import get_class
from torch import Tensor

from athlos.config.compose import plain, run_config
from athlos.data.encoding import prefix_token
from athlos.data.parallel_texts import parallel_texts
from athlos.data.source import Source
from athlos.errors import ConfigError, DataError
from athlos.methods.slam.config import SCORING, Fallback, Position, Selector, SlamConfig, Statistic
from athlos.models import layer_selectors as choose
from athlos.models.config import NoSurgeryConfig
from athlos.models.neuron_counts import NeuronCounts, load_blocks, merge, save_blocks
from athlos.models.probe import ActivationProbe
from athlos.models.tokenizers import tokenizer_hash
from athlos.parts import PartContext
from athlos.stages import Product, Stage

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

PROBE_VERSION, SELECT_VERSION = 1, 1
COUNTS, LAYERS = "counts.npz", "layers.json"


@dataclass(kw_only=True)
class Choice:
    """The chosen layers and what they were chosen by."""

    layers: list[int]
    scores: list[float] = field(default_factory=list)
    """By layer; empty where nothing was measured."""
    by_language: dict[str, list[float]] = field(default_factory=dict)
    """Language -> the same by layer."""
    used_fallback: bool = False
    jaccard: float | None = None
    """Mean over resamples of the probe's texts of the overlap with these layers."""
    frequency: list[float] = field(default_factory=list)
    """By layer: share of the resamples that chose it."""
    low: list[float] = field(default_factory=list)
    """By layer: 2.5 % of the resampled scores."""
    high: list[float] = field(default_factory=list)
    num_dead: int = 0
    """Neurons that never fired, for `lape`."""

    @property
    def metrics(self) -> dict[str, float]:
        found = {f"diag/layer_gap/{index}": score for index, score in enumerate(self.scores)}
        found |= {f"diag/layer_chosen/{index}": 1.0 for index in self.layers}
        for language, scores in self.by_language.items():
            found |= {f"diag/layer_gap_{language}/{index}": score for index, score in enumerate(scores)}
        for name, values in (("low", self.low), ("high", self.high), ("frequency", self.frequency)):
            found |= {f"diag/layer_gap_{name}/{index}": value for index, value in enumerate(values)}
        if self.jaccard is not None:
            found["diag/selection_jaccard"] = self.jaccard
        return found


# Stage 1: probe


def probe_product(config: SlamConfig, model: "PreTrainedModel", *, context: PartContext) -> Product:
    """Counts of the probe's texts by block, as a stage product."""
    source, split = probe_source(config, context=context)
    probe = config.probe
    num_questions = probe.num_questions
    values = plain(context.config)
    # A surgery may draw new weights by the run's seed; the model as loaded is the same for every seed.
    is_changed = type(context.config.surgery) is not NoSurgeryConfig

    def build(folder: Path) -> None:
        texts = parallel_texts(source.records(split), languages=probe.languages, num_items=num_questions)
        if config.reference not in texts:
            raise DataError(f"selection.reference: no probe text in '{config.reference}'; there is {', '.join(texts)}")
        blocks = count_blocks(
            model,
            context.tokenizer,
            texts,
            num_blocks=min(probe.blocks, num_questions),
            batch_size=probe.batch_size,
            with_prefix=probe.tokens.value == "all",
        )
        save_blocks(folder / COUNTS, blocks)

    stage = Stage(
        name="probe",
        version=PROBE_VERSION,
        inputs={
            "model": context.model_fingerprint,
            "data": source.fingerprint(split),
            "tokenizer": tokenizer_hash(context.tokenizer),
        },
        config={
            "split": split,
            "num_questions": num_questions,
            "tokens": probe.tokens.value,
            "languages": list(probe.languages),
            "blocks": probe.blocks,
            "reference": config.reference,
            "surgery": values["surgery"] if is_changed else None,
            "seed": context.config.seed if is_changed else None,
        },
        build=build,
    )
    return context.stages.get(stage)


def probe_source(config: SlamConfig, *, context: PartContext) -> tuple[Source[Any], str]:
    """The data that is probed, and its split. Raises `ConfigError` for the data and split that the run is tested on."""
    assert context.data is not None
    if not config.probe.data:
        return context.data.source, config.probe.split
    other = run_config([*config.probe.data, "train.max_steps=0"]).data
    source = get_class(other._target_)(other)
    assert isinstance(source, Source)
    tested = context.data.test_split
    if source.fingerprint(config.probe.split) == context.data.source.fingerprint(tested):
        raise ConfigError(f"selection.probe.data: its split '{config.probe.split}' is what the run is tested on")
    return source, config.probe.split


def count_blocks(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    texts: dict[str, list[str]],
    *,
    num_blocks: int,
    batch_size: int,
    with_prefix: bool = False,
) -> list[NeuronCounts]:
    """Counts of consecutive blocks of the texts, each block the same items in all languages."""
    total = len(next(iter(texts.values())))
    edges = [round(total * part / num_blocks) for part in range(num_blocks + 1)]
    found = []
    device = next(model.parameters()).device
    with ActivationProbe(model, languages=list(texts)) as probe:
        for first, last in itertools.pairwise(edges):
            for language, all_texts in texts.items():
                for inputs, mask_BT in text_batches(tokenizer, all_texts[first:last], batch_size=batch_size):
                    if with_prefix:
                        mask_BT = inputs["attention_mask"].bool()
                    probe.add(language, {name: value.to(device) for name, value in inputs.items()}, mask_BT.to(device))
            found.append(probe.take())
    return found


def text_batches(
    tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], *, batch_size: int
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """Padded batches as a model reads them, and the mask [B, T] of the texts' own tokens: no BOS, no padding."""
    prefix = prefix_token(tokenizer)
    front = [] if prefix is None else [prefix]
    for first in range(0, len(texts), batch_size):
        rows = [tokenizer.encode(text, add_special_tokens=False) for text in texts[first : first + batch_size]]
        longest = max(len(row) for row in rows) + len(front)
        ids_BT = torch.zeros(len(rows), longest, dtype=torch.int64)
        real_BT = torch.zeros_like(ids_BT)
        for at, row in enumerate(rows):
            ids_BT[at, : len(front) + len(row)] = torch.tensor(front + row)
            real_BT[at, : len(front) + len(row)] = 1
        mask_BT = real_BT.bool()
        mask_BT[:, : len(front)] = False
        positions_BT = torch.arange(longest).expand_as(ids_BT).contiguous()
        yield {"input_ids": ids_BT, "attention_mask": real_BT, "position_ids": positions_BT}, mask_BT


# Stage 2: select


def chosen(config: SlamConfig, model: "PreTrainedModel", *, num_layers: int, context: PartContext) -> Choice:
    """The layers of a run; scores and stability where the selector measures something. A stage product then."""
    seed = context.config.seed if config.seed_random_layers is None else config.seed_random_layers
    if config.selector not in SCORING or context.data is None:
        return unmeasured(config, num_layers=num_layers, seed=seed)
    if config.selector is Selector.grad:
        from athlos.methods.slam.gradients import layer_gradients

        return from_scores(config, layer_gradients(config, model, context=context))
    counts = probe_product(config, model, context=context)
    own = asdict(config)
    kept = ("selector", "reference", "k", "k_max", "fallback", "position", "statistic", "lape")
    stage = Stage(
        name="select",
        version=SELECT_VERSION,
        inputs={"counts": counts.key},
        config={**{name: own[name] for name in kept}, "resamples": config.probe.resamples, "seed": context.config.seed},
        build=lambda folder: write_choice(
            folder / LAYERS, from_counts(config, load_blocks(counts.path / COUNTS), seed=context.config.seed)
        ),
    )
    return Choice(**json.loads((context.stages.get(stage).path / LAYERS).read_text(encoding="utf-8")))


def write_choice(path: Path, choice: Choice) -> None:
    path.write_text(json.dumps(vars(choice), indent=1), encoding="utf-8")


def unmeasured(config: SlamConfig, *, num_layers: int, seed: int) -> Choice:
    """Layers of the selectors that look at nothing. In a dry run the lowest k stand for those that would be chosen."""
    if config.selector is Selector.all:
        return Choice(layers=list(range(num_layers)))
    if config.selector is Selector.manual:
        return Choice(layers=choose.manual_layers(config.layers, num_layers=num_layers))
    k = config.k or min(config.k_max, choose.lower_half(num_layers))
    if config.selector is Selector.random:
        return Choice(layers=choose.random_layers(num_layers, k=k, seed=seed))
    if config.selector is Selector.top:
        return Choice(layers=choose.top_layers(num_layers, k=k))
    return Choice(layers=placed(list(range(k)), position=config.position, num_layers=num_layers))


def from_counts(config: SlamConfig, blocks: Sequence[NeuronCounts], *, seed: int) -> Choice:
    """Scores of all texts, the layers, and how firm the choice is under resampling."""
    num_dead = 0

    def once(counts: NeuronCounts) -> tuple[np.ndarray, list[int]]:
        scores_L = scores_of(config, counts)
        return scores_L, from_scores(config, scores_L).layers

    whole = merge(blocks)
    choice = from_scores(config, scores_of(config, whole))
    reference = whole.index(config.reference)
    others = [name for name in whole.languages if name != config.reference]
    if config.selector is Selector.lape:
        found = _lape(config, whole)
        by_language_LX, num_dead = found.counts, found.num_dead
        kept = [whole.index(name) for name in others]
        by_language_LX = by_language_LX[:, kept]
    else:
        by_language_LX = choose.deviation_by_language(statistic(config.statistic, whole), reference=reference)
    stability = choose.bootstrap_stability(blocks, once, resamples=config.probe.resamples, seed=seed)
    low, high = np.percentile(stability.scores, [2.5, 97.5], axis=0)
    choice.by_language = {name: by_language_LX[:, at].tolist() for at, name in enumerate(others)}
    choice.jaccard, choice.frequency, choice.num_dead = stability.jaccard, stability.frequency, num_dead
    choice.low, choice.high = low.tolist(), high.tolist()
    return choice


def statistic(kind: Statistic, counts: NeuronCounts) -> np.ndarray:
    """[L, X, J]: what is compared between languages."""
    if kind is Statistic.mean:
        return counts.mean()
    return counts.share_positive() if kind is Statistic.positive_share else counts.share_positive_by_text()


def scores_of(config: SlamConfig, counts: NeuronCounts) -> np.ndarray:
    """[L]: what the selector ranks layers by."""
    reference = counts.index(config.reference)
    if config.selector is Selector.lape:
        return choose.layer_scores(_lape(config, counts).counts, reference=reference)
    return choose.deviation(statistic(config.statistic, counts), reference=reference)


def _lape(config: SlamConfig, counts: NeuronCounts) -> choose.SpecificNeurons:
    return choose.lape(counts.share_positive(), **asdict(config.lape))


def from_scores(config: SlamConfig, scores_L: np.ndarray) -> Choice:
    """Layers of the lower half by their scores: the k highest, or with k = 0 the prefix that stands out.

    Raises `ConfigError` when none stands out and `fallback=none`, or when k is more than the lower half holds.
    """
    num_layers = len(scores_L)
    half = choose.lower_half(num_layers)
    used_fallback = False
    if config.k:
        layers = choose.highest(scores_L, k=config.k, region=half)
    else:
        layers = choose.gap_prefix(scores_L, k_max=config.k_max)
        if not layers:
            if config.fallback is Fallback["none"]:
                raise ConfigError(
                    "selection: no prefix of the lower layers stands out, and selection.fallback=none; "
                    "set selection.k, or fallback=top_k"
                )
            layers, used_fallback = choose.highest(scores_L, k=min(config.k_max, half), region=half), True
    layers = placed(layers, position=config.position, num_layers=num_layers)
    return Choice(layers=layers, scores=scores_L.tolist(), used_fallback=used_fallback)


def placed(layers: list[int], *, position: Position, num_layers: int) -> list[int]:
    """As many layers at the wanted place; with `auto` these themselves."""
    if position is Position.auto:
        return layers
    place = {
        Position.low: choose.bottom_layers,
        Position.mid: choose.middle_layers,
        Position.high: choose.top_layers,
    }[position]
    return place(num_layers, k=len(layers))
