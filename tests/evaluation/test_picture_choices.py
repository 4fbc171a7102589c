"""The suite of multiple-choice questions about pictures, against whole forward passes without a cache."""

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.assembled import suite_of
from tests.tolerances import FLOAT32, LOGITS_FLOAT32

from athlos.config.compose import run_config
from athlos.data.picture_prompts import asked
from athlos.data.records import ChoiceRecord
from athlos.errors import ConfigError, DataError
from athlos.evaluation.picture_answers import Prompt, Reply, prompt_ids, replies
from athlos.evaluation.suites.picture_choices import best_option, item_pixels
from athlos.models.architecture import build, hf_config
from athlos.models.tokenizers import word_tokenizer

WORDS = [
    "<image>",
    "\n",
    ":",
    *"ABCD",
    *(f" {one}" for one in "ABCD"),
    " red",
    " green",
    " blue",
    " big",
    " what",
    " quoi",
]


@pytest.fixture(scope="module")
def answerer() -> Any:
    tokenizer = word_tokenizer(WORDS)
    shape = {
        "model_type": "llava",
        "image_token_index": 260,
        "image_seq_length": 4,
        "vision_feature_layer": -1,
        "vision_feature_select_strategy": "full",
        "text_config": {
            "model_type": "llama",
            "vocab_size": len(tokenizer),
            "hidden_size": 24,
            "intermediate_size": 36,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "initializer_range": 0.3,
        },
        "vision_config": {
            "model_type": "athlos_vision",
            "encoder": "tiny_cnn",
            "image_size": 8,
            "num_tokens_a_side": 2,
            "hidden_size": 8,
        },
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build(hf_config(shape)).eval()
    return SimpleNamespace(model=model, tokenizer=tokenizer)


def features(number: int) -> torch.Tensor:
    return torch.randn(4, 8, generator=torch.Generator().manual_seed(number))


def whole_pass(answerer: Any, text: str, picture: torch.Tensor, answer: list[int]) -> torch.Tensor:
    """Log-probabilities [S] of an answer by one forward pass of transformers, nothing cached."""
    ids = prompt_ids(answerer.tokenizer, text, num_image_tokens=4)
    model = answerer.model
    embeddings = model.get_input_embeddings()(torch.tensor([ids + answer]))
    places = torch.tensor([ids + answer]) == 260
    embeddings[places] = model.model.multi_modal_projector(picture)
    log_probs = model(inputs_embeds=embeddings).logits.log_softmax(-1)[0]
    return torch.stack([log_probs[len(ids) - 1 + place, token] for place, token in enumerate(answer)])


def test_scores_and_answers_equal_those_of_whole_passes(answerer: Any):
    prompts = [
        Prompt(text=asked("what"), features=features(1), answers=("red", "big green", "blue big red")),
        Prompt(text=asked("what big"), features=features(2), answers=("big", "red", "green red")),
        Prompt(text=asked("what"), features=features(3), answers=("green", "green", "red blue")),
    ]
    found = replies(answerer.model, answerer.tokenizer, prompts, batch_size=2, max_new_tokens=5)
    with torch.no_grad():
        for prompt, reply in zip(prompts, found, strict=True):
            ids = [answerer.tokenizer.encode(answer, add_special_tokens=False) for answer in prompt.answers]
            wanted = [float(whole_pass(answerer, prompt.text, prompt.features, one).double().sum()) for one in ids]
            assert reply.log_probs == pytest.approx(wanted, abs=LOGITS_FLOAT32)
            assert reply.lengths == [len(one) for one in ids]
    one_by_one = [
        replies(answerer.model, answerer.tokenizer, [one], batch_size=1, max_new_tokens=5)[0] for one in prompts
    ]
    assert [reply.text for reply in one_by_one] == [reply.text for reply in found]
    backwards = replies(answerer.model, answerer.tokenizer, prompts[::-1], batch_size=3, max_new_tokens=0)
    for reply, other in zip(found, backwards[::-1], strict=True):
        assert reply.log_probs == pytest.approx(other.log_probs, abs=FLOAT32)


def test_the_mean_decides_and_not_the_sum():
    """Sums prefer the short answer; means the long one. Sabotage: without the division this fails."""
    assert best_option(Reply(log_probs=[-2.0, -3.0], lengths=[1, 3])) == 1
    assert best_option(Reply(log_probs=[-1.0, -1.0], lengths=[1, 1])) == 0


def choice(number: int, language: str, *, answer: int = 0, **changes: Any) -> ChoiceRecord:
    pixels = np.full((8, 8, 3), 20 * number, dtype=np.uint8)
    values = {
        "identifier": f"{language}-{number}",
        "language": language,
        "question": "what" if language == "en" else "quoi",
        "choices": ["red", "green", "blue"],
        "answer_index": answer,
        "pixels": pixels,
        **changes,
    }
    return ChoiceRecord(**values)


def suite(*overrides: str) -> Any:
    config = run_config(
        ["data=lab_pictures", "train.batching=bucket", "eval=picture_choices", "decoding.max_new_tokens=2", *overrides]
    )
    config.data.reference = "en"
    return suite_of(config)


def test_metrics_by_language_and_without_the_reference(answerer: Any):
    records = [choice(number, language, answer=number % 3) for language in ("en", "fr", "zh") for number in range(4)]
    result = suite().evaluate(answerer, records)
    values = result.metrics
    assert values["acc"] == pytest.approx((values["acc/en"] + values["acc/fr"] + values["acc/zh"]) / 3)
    assert values["acc_non_english"] == pytest.approx((values["acc/fr"] + values["acc/zh"]) / 2)
    assert result.details["acc_non_english"].n == 8
    assert result.details["acc"].low is not None
    own = [row for row in result.predictions if row["language"] == "en"]
    places = [["red", "green", "blue"].index(row["gold"]) for row in own]
    nll = -sum(row["log_probs"][place] for row, place in zip(own, places, strict=True))
    assert values["english_loss"] == pytest.approx(
        nll / sum(row["lengths"][place] for row, place in zip(own, places, strict=True))
    )


def test_circular_needs_every_rotation_right(answerer: Any, monkeypatch: pytest.MonkeyPatch):
    """A model that always says A is right once in three rotations, so circular evaluation gives it nothing."""
    from athlos.evaluation.suites import picture_choices

    def always_a(model: Any, tokenizer: Any, prompts: Any, **_: Any) -> list[Reply]:
        return [Reply(log_probs=[-1.0] * len(one.answers), lengths=[1] * len(one.answers), text="A") for one in prompts]

    monkeypatch.setattr(picture_choices, "replies", always_a)
    records = [choice(number, "en") for number in range(2)]
    assert suite().evaluate(answerer, records).metrics["acc_letter"] == 1.0
    assert suite("eval.suites.picture_choices.circular=true").evaluate(answerer, records).metrics["acc_letter"] == 0.0
    valid = suite("eval.suites.picture_choices.circular=true").evaluate(answerer, records).metrics["format_valid"]
    assert valid == 1.0


def test_the_likeliest_letter_counts_whatever_the_model_writes(answerer: Any, monkeypatch: pytest.MonkeyPatch):
    """`acc_listed` reads the likelihoods of the letters after the listed options, one of them for each option."""
    from athlos.evaluation.suites import picture_choices

    def second(model: Any, tokenizer: Any, prompts: Any, **_: Any) -> list[Reply]:
        liked = [0.0 if place == 1 else -3.0 for place in range(3)]
        assert {prompt.answers for prompt in prompts} <= {("red", "green", "blue"), ("A", "B", "C")}
        return [Reply(log_probs=liked, lengths=[1, 1, 1], text="no letter") for _ in prompts]

    monkeypatch.setattr(picture_choices, "replies", second)
    records = [choice(number, language, answer=number % 2) for number in range(4) for language in ("en", "fr")]
    values = suite().evaluate(answerer, records).metrics
    assert (values["acc_listed"], values["acc_listed_non_english"], values["acc_letter"]) == (0.5, 0.5, 0.0)
    circular = suite("eval.suites.picture_choices.circular=true").evaluate(answerer, records).metrics
    assert circular["acc_listed"] == 0.0


def test_encoded_pictures_and_missing_ones():
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("L", (5, 3), color=7).save(buffer, format="PNG")
    record = choice(0, "en", pixels=None, image=buffer.getvalue())
    assert item_pixels(record).shape == (3, 5, 3)
    with pytest.raises(DataError, match="item 'en-0' has no picture"):
        item_pixels(choice(0, "en", pixels=None))
    with pytest.raises(DataError, match="cannot be read"):
        item_pixels(choice(0, "en", pixels=None, image=b"no picture"))


def test_a_model_of_text_and_data_without_questions_are_refused(answerer: Any):
    text = build(
        hf_config(
            {
                "model_type": "llama",
                "vocab_size": 40,
                "hidden_size": 8,
                "intermediate_size": 8,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
            }
        )
    )
    with pytest.raises(ConfigError, match="sees no pictures"):
        suite().evaluate(SimpleNamespace(model=text, tokenizer=answerer.tokenizer), [choice(0, "en")])
    with pytest.raises(ConfigError, match="no such questions"):
        suite().evaluate(answerer, [])


def test_mmbench_files_are_read_and_asked_in_circles(answerer: Any, tmp_path):
    import base64

    from PIL import Image

    from athlos.data.source import build_source

    buffer = io.BytesIO()
    Image.new("RGB", (9, 5), color=(200, 10, 10)).save(buffer, format="PNG")
    picture = base64.b64encode(buffer.getvalue()).decode()
    head = "index\tquestion\thint\tA\tB\tC\tD\tanswer\tcategory\timage"
    rows = [
        f"1\twhat\tnan\tred\tgreen\tblue\tnan\tA\tcolour\t{picture}",
        "2\twhat big\tbig\tred\tgreen\tnan\tnan\tB\tcolour\t1",
    ]
    for name in ("EN", "CN"):
        (tmp_path / f"MMBench_DEV_{name}.tsv").write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    config = run_config(
        [
            "data=mmbench",
            f"data.dir={tmp_path}",
            "train.max_steps=0",
            "eval=picture_choices",
            "eval.suites.picture_choices.circular=true",
            "decoding.max_new_tokens=2",
        ]
    )
    records = list(build_source(config).read("dev"))
    result = suite_of(config).evaluate(answerer, records)
    assert {row["language"] for row in result.predictions} == {"en", "zh"}
    assert [len(row["log_probs"]) for row in result.predictions] == [3, 2, 3, 2]
    assert {"acc/en", "acc_letter/zh", "format_valid", "acc_non_english", "english_loss"} <= set(result.metrics)
