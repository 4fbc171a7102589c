"""A vocabulary cut to what some texts can use, with the same tokens for those texts.

A BPE merge that applies to a text makes a piece of that text. So dropping every entry that is no piece of any text, and
the merges that make one, changes nothing for these texts; other text still works, by bytes or smaller pieces.
"""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from athlos.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

NUM_CHECKED = 2000
"""Texts whose tokens are compared after the cut."""


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    tokenizer: "PreTrainedTokenizerBase"
    kept: list[int]
    """Old id of each new id; entries that were added at the end have none."""


def trimmed(tokenizer: "PreTrainedTokenizerBase", texts: Sequence[str], *, added: Sequence[str] = ()) -> Vocabulary:
    """A copy of a BPE tokenizer that keeps the entries inside `texts`, its control tokens and the bytes.

    `added` are further special tokens, put at the end. Raises `ModelError` for another kind of tokenizer, and if
    a text is cut otherwise than before.
    """
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

    texts = _between(texts, added)
    state: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
    if state["model"]["type"] != "BPE":
        raise ModelError(f"model.tokenizer.kind: trimmed needs a BPE tokenizer, got {state['model']['type']}")
    ids: dict[str, int] = {
        **state["model"]["vocab"],
        **{token["content"]: token["id"] for token in state["added_tokens"]},
    }
    wanted = {*_always(tokenizer, ids), *_pieces(tokenizer, texts, ids)}
    order = sorted(wanted, key=lambda token: ids[token])
    new = {token: index for index, token in enumerate(order)}
    model = state["model"]
    model["vocab"] = {token: new[token] for token in order}
    pairs = (tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in model["merges"])
    model["merges"] = [[a, b] for a, b in pairs if a in new and b in new and a + b in new]
    state["added_tokens"] = [
        {**token, "id": new[token["content"]]} for token in state["added_tokens"] if token["content"] in new
    ]
    for special in ((state["post_processor"] or {}).get("special_tokens") or {}).values():
        special["ids"] = [new[token] for token in special["tokens"]]
    backend = Tokenizer.from_str(json.dumps(state, ensure_ascii=False))
    backend.add_special_tokens(list(added))
    cut = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=False,
        **{name: value for name, value in tokenizer.special_tokens_map.items() if isinstance(value, str)},
    )
    kept = [ids[token] for token in order]
    _check(tokenizer, cut, kept, texts)
    return Vocabulary(tokenizer=cut, kept=kept)


def cut_rows(model: "PreTrainedModel", vocabulary: Vocabulary) -> None:
    """Keep the rows of embedding and output layer that a vocabulary without added tokens has, in place.

    What else ended a text, such as the end of a turn of a chat, does so no more.
    """
    import torch

    ids_V = torch.tensor(vocabulary.kept)
    layers = {"in": model.get_input_embeddings(), "out": model.get_output_embeddings()}
    weights = {name: layer.weight.detach()[ids_V].clone() for name, layer in layers.items()}
    is_tied = layers["out"].weight is layers["in"].weight
    embedding: Any = model.resize_token_embeddings(len(ids_V), mean_resizing=False)
    with torch.no_grad():
        embedding.weight.copy_(weights["in"])
        if not is_tied:
            model.get_output_embeddings().weight.copy_(weights["out"])
    embedding.padding_idx = None
    cut = vocabulary.tokenizer
    for config in (model.config, model.config.get_text_config(), model.generation_config):
        if config is not None:
            config.pad_token_id, config.bos_token_id, config.eos_token_id = (
                cut.pad_token_id,
                cut.bos_token_id,
                cut.eos_token_id,
            )


def _between(texts: Sequence[str], added: Sequence[str]) -> list[str]:
    """The texts, cut where an added token stands: it is taken out before anything else happens to a text."""
    if not added:
        return list(texts)
    border = re.compile("|".join(map(re.escape, added)))
    return [part for text in texts for part in border.split(text) if part]


def _always(tokenizer: "PreTrainedTokenizerBase", ids: dict[str, int]) -> Iterable[str]:
    """Control tokens, and whatever stands for a single byte or character of the byte alphabet."""
    from tokenizers import pre_tokenizers

    yield from (value for value in tokenizer.special_tokens_map.values() if isinstance(value, str) and value in ids)
    yield from (token for value in range(256) if (token := f"<0x{value:02X}>") in ids)
    yield from (token for token in pre_tokenizers.ByteLevel.alphabet() if token in ids)


def _pieces(tokenizer: "PreTrainedTokenizerBase", texts: Iterable[str], ids: dict[str, int]) -> set[str]:
    """Every entry that is a piece of a text, as it is written and as the tokenizer sees it."""
    backend = tokenizer.backend_tokenizer
    beginnings = {token[:length] for token in ids for length in range(1, len(token) + 1)}
    seen, pieces = set(), set()
    for text in texts:
        normal = backend.normalizer.normalize_str(text) if backend.normalizer else text
        words = [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normal)] if backend.pre_tokenizer else []
        for word in (text, normal, *words):
            if word in seen:
                continue
            seen.add(word)
            for start in range(len(word)):
                for end in range(start + 1, len(word) + 1):
                    piece = word[start:end]
                    if piece not in beginnings:
                        break
                    if piece in ids:
                        pieces.add(piece)
    return pieces


def _check(
    old: "PreTrainedTokenizerBase", new: "PreTrainedTokenizerBase", kept: list[int], texts: Sequence[str]
) -> None:
    for text in texts[:: max(1, len(texts) // NUM_CHECKED)]:
        before = old.encode(text, add_special_tokens=False)
        after = new.encode(text, add_special_tokens=False)
        if [kept[token] for token in after if token < len(kept)] != before:
            raise ModelError(f"model.tokenizer.kind: trimmed cuts '{text[:60]}' otherwise than the whole vocabulary")
