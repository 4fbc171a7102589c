"""What SLAM's probe reads: the same texts in every language.

B texts, T positions.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from hydra.utils import get_class
from torch import Tensor

from athlos.config.compose import run_config
from athlos.data.encoding import prefix_token
from athlos.data.parallel_texts import parallel_texts
from athlos.data.source import Source
from athlos.errors import ConfigError, DataError
from athlos.methods.slam.config import ProbeTokens, SlamConfig
from athlos.models.neuron_counts import NeuronCounts
from athlos.models.probed_selection import count_blocks, probe_product
from athlos.models.selection import OfRun
from athlos.stages import Product

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def probe(config: SlamConfig, model: "PreTrainedModel", *, context: OfRun) -> Product:
    """Counts of the probe's texts by block, as a stage product."""
    source, split = probe_source(config, context=context)
    wanted = config.probe

    def count() -> list[NeuronCounts]:
        texts = parallel_texts(source.records(split), languages=wanted.languages, num_items=wanted.num_questions)
        if config.reference not in texts:
            raise DataError(f"selection.reference: no probe text in '{config.reference}'; there is {', '.join(texts)}")
        return count_texts(
            model,
            context.tokenizer,
            texts,
            num_blocks=min(wanted.blocks, wanted.num_questions),
            batch_size=wanted.batch_size,
            tokens=wanted.tokens,
        )

    kept = {name: getattr(wanted, name) for name in ("num_questions", "languages", "blocks")}
    kept |= {"split": split, "tokens": wanted.tokens.value, "reference": config.reference}
    return probe_product(context, count, data=source.fingerprint(split), config=kept)


def probe_source(config: SlamConfig, *, context: OfRun) -> tuple[Source[Any], str]:
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


def count_texts(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    texts: dict[str, list[str]],
    *,
    num_blocks: int,
    batch_size: int,
    tokens: ProbeTokens = ProbeTokens.question,
) -> list[NeuronCounts]:
    """Counts of consecutive blocks of the texts, each block the same items in all languages."""
    total = len(next(iter(texts.values())))
    edges = [round(total * part / num_blocks) for part in range(num_blocks + 1)]
    blocks = (
        {
            language: (
                (inputs, inputs["attention_mask"].bool() if tokens is ProbeTokens.all else mask_BT)
                for inputs, mask_BT in text_batches(tokenizer, all_texts[first:last], batch_size=batch_size)
            )
            for language, all_texts in texts.items()
        }
        for first, last in itertools.pairwise(edges)
    )
    return count_blocks(model, blocks, languages=list(texts))


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
