"""The logit lens: which language a model is thinking in, layer by layer, while it writes its own answers.

Each layer's states go through the final norm and the unembedding; the most probable token is mapped to a language.

N positions, D width.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from athlos.generation.local import eval_mode
from athlos.generation.rollouts import Rollouts, sample_group
from athlos.models.forward import causal_model, hidden_states, project
from athlos.models.sites import backbone
from athlos.text.scripts import script_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

OTHER = "other"
"""A token in a script that none of the languages is written in."""
BATCH_PROMPTS = 16


class TokenLanguages:
    """Token -> language: by script where one language is written in it, else by how often each language has the token.

    Frequencies come from one text a language. Tokens without letters, such as digits, are in no language (None), and so
    are pieces of a letter.
    """

    def __init__(self, tokenizer: "PreTrainedTokenizerBase", texts: Mapping[str, str]) -> None:
        self._tokenizer = tokenizer
        self._counts: dict[str, Counter[int]] = {}
        self._of_script: dict[str, list[str]] = {}
        for language, text in texts.items():
            scripts = Counter(script for script in map(script_of, text) if script is not None)
            # Japanese mixes scripts, Latin names stand everywhere: what makes up a tenth is the language's own.
            for script, count in scripts.items():
                if count >= scripts.total() / 10:
                    self._of_script.setdefault(script, []).append(language)
            self._counts[language] = Counter(tokenizer.encode(text, add_special_tokens=False, verbose=False))
        self._known: dict[int, str | None] = {}

    def language(self, token: int) -> str | None:
        if token not in self._known:
            self._known[token] = self._found(token)
        return self._known[token]

    def _found(self, token: int) -> str | None:
        text = self._tokenizer.decode([token])
        scripts = Counter(script for script in map(script_of, text) if script is not None)
        if not scripts:
            return None
        candidates = self._of_script.get(scripts.most_common(1)[0][0], [])
        if len(candidates) == 1:
            return candidates[0]
        shares = {
            language: self._counts[language][token] / max(1, self._counts[language].total()) for language in candidates
        }
        best = max(shares, key=lambda language: shares[language], default=OTHER)
        return best if shares.get(best) else OTHER


@torch.no_grad()
def layer_tokens(model: "PreTrainedModel", rollouts: Rollouts) -> Tensor:
    """Most probable token at each generated position of each layer, int64 [layers, N]; the last row is the model's own.

    Positions are those that predict a generated token, row by row.
    """
    inner = causal_model(model)
    parts = backbone(inner)
    batch = rollouts.rows()
    length = rollouts.response_ids.shape[1]
    is_token_BL = rollouts.response_mask.bool()
    states: list[Tensor] = []

    def keep(module: nn.Module, arguments: object, output: Tensor) -> None:
        states.append(output[:, -length - 1 : -1][is_token_BL])

    handles = [layer.module.register_forward_hook(keep) for layer in parts.layers]
    try:
        with eval_mode(inner):
            hidden_states(inner, batch)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack([project(inner, parts.final_norm(state_ND)).argmax(dim=-1) for state_ND in states])


def target_shares(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[tuple[str, str]],
    *,
    languages: TokenLanguages,
    max_new_tokens: int,
    stop: Sequence[str],
) -> dict[str, list[float]]:
    """For each language of the (prompt, language) pairs, and for `all`: the share of its tokens by layer.

    Counted are positions of the model's own greedy answers whose most probable token is in some language; a layer
    without any is not a number.
    """
    num_layers = len(backbone(causal_model(model)).layers)
    keys = [*dict.fromkeys(language for _, language in prompts), "all"]
    hits, counted = ({key: [0] * num_layers for key in keys} for _ in range(2))
    for start in range(0, len(prompts), BATCH_PROMPTS):
        part = prompts[start : start + BATCH_PROMPTS]
        rollouts = sample_group(
            model,
            tokenizer,
            [text for text, _ in part],
            group_size=1,
            max_new_tokens=max_new_tokens,
            temperature=0,
            generator=None,
            stop=stop,
        )
        lengths = rollouts.response_mask.sum(dim=1).tolist()
        wanted = [language for (_, language), length in zip(part, lengths, strict=True) for _ in range(length)]
        for layer, tokens in enumerate(layer_tokens(model, rollouts).tolist()):
            for token, target in zip(tokens, wanted, strict=True):
                token_language = languages.language(token)
                for key in (target, "all") if token_language is not None else ():
                    hits[key][layer] += token_language == target
                    counted[key][layer] += 1
    return {
        key: [hit / number if number else float("nan") for hit, number in zip(hits[key], counted[key], strict=True)]
        for key in keys
    }
