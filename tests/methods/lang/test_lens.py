"""The logit lens: its last layer is the model's own choice, its tokens have languages."""

from typing import Any

import torch
from tests.objectives.test_policy import model_of

from athlos.generation.rollouts import Rollouts
from athlos.methods.lang.lens import OTHER, TokenLanguages, layer_tokens


class Letters:
    """One token a character, as far as the lens needs a tokenizer."""

    alphabet = "abcdefxyzжшก12 +"

    def encode(self, text: str, **_: Any) -> list[int]:
        return [self.alphabet.index(character) for character in text if character in self.alphabet]

    def decode(self, ids: list[int]) -> str:
        return "".join(self.alphabet[index] for index in ids)


def test_tokens_have_the_language_of_their_script_or_of_their_frequency() -> None:
    letters = Letters()
    languages = TokenLanguages(letters, {"de": "abab ax", "en": "bxxx yy", "ru": "жж a жжжжжжжж"})  # type: ignore[arg-type]
    found = {one: languages.language(letters.alphabet.index(one)) for one in letters.alphabet}
    assert (found["ж"], found["ш"]) == ("ru", "ru")  # one language alone is written in that script
    assert (found["a"], found["b"], found["x"], found["y"]) == ("de", "de", "en", "en")
    assert found["c"] == OTHER  # no text has it
    assert found["ก"] == OTHER  # no text has its script
    assert found["1"] is found["+"] is found[" "] is None


def test_the_last_layer_is_the_models_choice_at_every_generated_position() -> None:
    model = model_of()
    prompts, responses = [[3, 4, 5], [6, 7]], [[8, 9, 10, 11], [12, 13]]
    rollouts = Rollouts(
        prompt_ids=torch.tensor([[3, 4, 5], [0, 6, 7]]),
        prompt_mask=torch.tensor([[1, 1, 1], [0, 1, 1]]),
        response_ids=torch.tensor([[8, 9, 10, 11], [12, 13, 0, 0]]),
        response_mask=torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
        log_probs=torch.zeros(2, 4),
        texts=["", ""],
        truncated=torch.zeros(2, dtype=torch.bool),
        group_size=1,
    )
    found = layer_tokens(model, rollouts)
    assert found.shape == (2, 6)
    expected, middle = [], []
    for prompt, response in zip(prompts, responses, strict=True):
        with torch.no_grad():
            output = model(torch.tensor([prompt + response]), output_hidden_states=True)
            states = model.lm_head(model.model.norm(output.hidden_states[1]))
        span = slice(len(prompt) - 1, len(prompt) + len(response) - 1)
        expected += output.logits[0, span].argmax(-1).tolist()
        middle += states[0, span].argmax(-1).tolist()
    assert found[1].tolist() == expected
    assert found[0].tolist() == middle
