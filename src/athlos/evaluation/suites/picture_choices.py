"""Multiple-choice questions about pictures: by the likelihood of options' words, by that of letters, and as written.

`acc`: the option with the highest mean log-probability a token, after the question alone. `acc_listed`: the likeliest
letter after the question with its options, whatever the model would rather write there. `acc_letter`: the letter in the
answer it writes; `format_valid`: answers that name one. With `circular` letters are asked for once a rotation of the
options and all must be right. Each is a macro mean over languages with `/<language>` beside it; `<name>_non_english`
leaves out the reference language. `english_loss`: nats a token of the right words there.
"""

import io
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch

from athlos.config.schema import RunConfig
from athlos.data.picture_prompts import LETTERS, asked, read_letter, templates
from athlos.data.picture_questions import PictureQuestionsConfig
from athlos.data.records import ChoiceRecord, Record
from athlos.errors import ConfigError, DataError
from athlos.evaluation.config import PictureChoicesConfig
from athlos.evaluation.metrics import MacroMean, total
from athlos.evaluation.picture_answers import Prompt, Reply, replies
from athlos.evaluation.sharding import in_shares
from athlos.evaluation.suite import Answerer, MetricDetail, SuiteResult
from athlos.models.forward import causal_model
from athlos.models.vision_language import encode_pictures, is_vision_language

ENGLISH = "en"
"""The language beside which others are weak, where the data name no reference."""


class PictureChoiceSuite:
    is_seeded = False

    def __init__(self, config: PictureChoicesConfig, run: RunConfig) -> None:
        self.config, self.run = config, run

    @property
    def reference(self) -> str:
        data = self.run.data
        return data.reference if isinstance(data, PictureQuestionsConfig) else ENGLISH

    def evaluate(
        self, answerer: Answerer, records: Sequence[Record], *, shots_pool: Sequence[Record] = (), progress: Any = None
    ) -> SuiteResult:
        items = [record for record in records if isinstance(record, ChoiceRecord)]
        if not items or not is_vision_language(causal_model(answerer.model)):
            got = "no such questions" if not items else f"{self.run.model.name}, which sees no pictures"
            raise ConfigError(
                f"eval.suites: picture_choices needs questions about pictures and a model that sees, got {got}"
            )
        answers: dict[int, tuple[Reply, list[Reply]]] = {}
        for of_picture in in_shares(_by_picture(items), partial(self._answers, answerer, items, progress=progress)):
            answers |= of_picture
        words, letters = zip(*(answers[place] for place in range(len(items))), strict=True)
        return self._result(items, words, letters)

    def _answers(
        self, answerer: Answerer, all_items: Sequence[ChoiceRecord], share: Sequence[list[int]], *, progress: Any
    ) -> list[dict[int, tuple[Reply, list[Reply]]]]:
        """For each picture of a share, by place of its items: how likely the options are, and one reply a rotation."""
        places = sorted(place for of_picture in share for place in of_picture)
        items = [all_items[place] for place in places]
        features = item_features(answerer.model, items)
        flat = [(number, options) for number, item in enumerate(items) for options, _ in self._turns(item)]
        total = len(items) + len(flat)
        words = self._ask(
            answerer,
            [
                Prompt(text=asked(_question(item)), features=features[number], answers=tuple(item.choices))
                for number, item in enumerate(items)
            ],
            max_new_tokens=0,
            progress=lambda done: progress and progress(done, total, done),
        )
        letters = self._ask(
            answerer,
            [
                Prompt(
                    text=asked(_question(items[number]), options),
                    features=features[number],
                    answers=tuple(LETTERS[: len(options)]),
                )
                for number, options in flat
            ],
            max_new_tokens=self.run.decoding.max_new_tokens,
            progress=lambda done: progress and progress(len(items) + done, total, done),
        )
        of_item: list[list[Reply]] = [[] for _ in items]
        for (number, _), reply in zip(flat, letters, strict=True):
            of_item[number].append(reply)
        answers = dict(zip(places, zip(words, of_item, strict=True), strict=True))
        return [{place: answers[place] for place in of_picture} for of_picture in share]

    def _turns(self, item: ChoiceRecord) -> list[tuple[list[str], int]]:
        """(options, place of the right one), as often as an item is asked for a letter."""
        return _rotations(item) if self.config.circular else [(item.choices, item.answer_index)]

    def _ask(self, answerer: Answerer, prompts: list[Prompt], *, max_new_tokens: int, progress: Any) -> list[Reply]:
        """Prompts with equally many answers go together."""
        groups: dict[int, list[int]] = {}
        for place, prompt in enumerate(prompts):
            groups.setdefault(len(prompt.answers), []).append(place)
        replies_by_place: dict[int, Reply] = {}
        for places in groups.values():
            start = len(replies_by_place)
            answered = replies(
                answerer.model,
                answerer.tokenizer,
                [prompts[place] for place in places],
                batch_size=self.run.eval.batch_size,
                max_new_tokens=max_new_tokens,
                progress=partial(_onwards, progress, start),
            )
            replies_by_place |= dict(zip(places, answered, strict=True))
        return [replies_by_place[place] for place in range(len(prompts))]

    def _result(
        self, items: Sequence[ChoiceRecord], words: Sequence[Reply], letters: Sequence[list[Reply]]
    ) -> SuiteResult:
        languages = [item.language for item in items]
        picks = [best_option(reply) for reply in words]
        right = [float(pick == item.answer_index) for pick, item in zip(picks, items, strict=True)]
        listed, by_letter, valid, said = [], [], [], []
        for item, answers in zip(items, letters, strict=True):
            turns = self._turns(item)
            read = [
                read_letter(reply.text, num_options=len(options))
                for reply, (options, _) in zip(answers, turns, strict=True)
            ]
            golds = [gold for _, gold in turns]
            listed.append(float([best_option(reply) for reply in answers] == golds))
            by_letter.append(float(read == [LETTERS[gold] for gold in golds]))
            valid.append(sum(letter is not None for letter in read) / len(read))
            said.append(answers[0].text)
        result = SuiteResult(
            predictions=[
                {
                    "id": item.identifier,
                    "language": item.language,
                    "prompt": asked(_question(item)),
                    "prediction": item.choices[pick],
                    "gold": item.choices[item.answer_index],
                    "acc": score,
                    "acc_listed": likeliest,
                    "letter": text,
                    "acc_letter": letter,
                    "category": item.category,
                    "log_probs": reply.log_probs,
                    "lengths": reply.lengths,
                }
                for item, pick, score, likeliest, text, letter, reply in zip(
                    items, picks, right, listed, said, by_letter, words, strict=True
                )
            ],
            signatures={
                "picture_choices": f"templates:{templates()['version']['number']}|length-normalised"
                f"|circular:{self.config.circular}|tokens:{self.run.decoding.max_new_tokens}"
            },
        )
        by_name = {"acc": right, "acc_listed": listed, "acc_letter": by_letter}
        for name, values in {**by_name, "format_valid": valid}.items():
            mean = MacroMean(name, evaluation=self.run.eval)
            mean.update(values, languages)
            result.add(*mean.compute())
        others = [place for place, language in enumerate(languages) if language != self.reference]
        for name, values in by_name.items():
            whole = f"{name}_non_english"
            mean = MacroMean(whole, evaluation=self.run.eval)
            mean.update([values[place] for place in others], [languages[place] for place in others])
            metrics, details = mean.compute()
            result.metrics[whole], result.details[whole] = metrics[whole], details[whole]
        own = [place for place, language in enumerate(languages) if language == self.reference]
        nll, tokens = total(), total()
        for place in own:
            nll.update(-words[place].log_probs[items[place].answer_index])
            tokens.update(words[place].lengths[items[place].answer_index])
        result.metrics["english_loss"] = nll.compute().item() / tokens.compute().item() if own else float("nan")
        result.details["english_loss"] = MetricDetail(n=len(own))
        return result


def _onwards(progress: Any, start: int, done: int) -> None:
    progress(start + done)


def best_option(reply: Reply) -> int:
    """The option with the highest log-probability a token; the first of equals."""
    means = [total / length for total, length in zip(reply.log_probs, reply.lengths, strict=True)]
    return means.index(max(means))


def _question(item: ChoiceRecord) -> str:
    return f"{item.hint}\n{item.question}" if item.hint else item.question


def _rotations(item: ChoiceRecord) -> list[tuple[list[str], int]]:
    """(options, place of the right one) for each circular shift."""
    number = len(item.choices)
    shifted = [item.choices[shift:] + item.choices[:shift] for shift in range(number)]
    return [(options, (item.answer_index - shift) % number) for shift, options in enumerate(shifted)]


def _by_picture(items: Sequence[ChoiceRecord]) -> list[list[int]]:
    """Places of the items of each picture: they go to one process, so that no other encodes it."""
    places: dict[bytes | None, list[int]] = {}
    for place, item in enumerate(items):
        stored = item.image if item.pixels is None else np.asarray(item.pixels).tobytes()
        places.setdefault(stored, []).append(place)
    return list(places.values())


def item_features(model: Any, items: Sequence[ChoiceRecord]) -> list[torch.Tensor]:
    """Features [K, V] of each item's picture; one that several items show is encoded once."""
    places: dict[bytes, int] = {}
    pictures: list[np.ndarray] = []
    shown = []
    for item in items:
        pixels = item_pixels(item)
        key = pixels.tobytes() + str(pixels.shape).encode()
        if key not in places:
            places[key] = len(pictures)
            pictures.append(pixels)
        shown.append(places[key])
    features_NKV = encode_pictures(causal_model(model), pictures)
    return [features_NKV[place] for place in shown]


def item_pixels(item: ChoiceRecord) -> np.ndarray:
    """uint8 [height, width, 3]; raises `DataError` for an item without a picture or with an unreadable one."""
    if item.pixels is not None:
        return np.asarray(item.pixels, dtype=np.uint8)
    if item.image is None:
        raise DataError(f"item '{item.identifier}' has no picture")
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(item.image)) as picture:
            return np.asarray(picture.convert("RGB"), dtype=np.uint8)
    except (UnidentifiedImageError, OSError) as error:
        raise DataError(f"item '{item.identifier}': its picture cannot be read: {error}") from error
