"""The exploration of one question: three ways to reason, a clue, and whether the clue alone is enough.

    internal  from memory                 external  from the passages        extract  the clue
    clue      from passages and clue      verify    from the clue alone

The first three are asked together, then the last two. Text that was written with the gold answer in view is marked:
nothing of it may stand in a prompt of a test.
"""

import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from athlos.data.records import QuestionRecord
from athlos.data.regions import Assigned, may_know
from athlos.errors import DataError
from athlos.generation.pipeline import Ask, Solver, Steps, together
from athlos.methods.clueanchor.config import PATHS, ClueSource, ExploreConfig, ReplyConfig
from athlos.methods.clueanchor.prompts import (
    CLOSE_ANSWER,
    CLOSE_CLUE,
    CLOSE_THINK,
    OPEN_ANSWER,
    OPEN_THINK,
    SAW_GOLD,
    Layout,
    parse,
    thought,
    written,
)
from athlos.methods.clueanchor.selection import Explored
from athlos.text.matching import clue_acc
from athlos.text.normalisation import normalise

CLUE_STOPS = (CLOSE_CLUE,)
ANSWER_STOPS = (CLOSE_ANSWER,)


def gold_of(record: QuestionRecord) -> str:
    """The one gold answer that replies are scored by: the first. Raises `DataError` where it is nothing to look for."""
    gold = record.answers[0] if record.answers else ""
    if not normalise(gold, normaliser="clue", language=record.language):
        raise DataError(f"question '{record.identifier}': its gold answer {gold!r} is nothing without punctuation")
    return gold


def explored(
    record: QuestionRecord,
    config: ExploreConfig,
    reply: ReplyConfig,
    *,
    layout: Layout,
    seed: int,
    regions: Mapping[str, Assigned] | None = None,
) -> Solver:
    """Replies on every path as JSON: `draws` by path, `clue`, `clue_acc`, `verify`, `v`, and `saw_gold`.

    The clue path is not taken where the clue is empty; the internal one not where `regions` calls the question missing.
    """
    gold = gold_of(record)
    asker = _Asker(record, config, reply, seed=seed)
    knows = regions is None or may_know(regions, record.identifier)
    paths = [path for path in PATHS if path in config.paths and (knows or path != "internal")]
    first = [path for path in paths if path != "clue"]
    prompts = {"internal": layout.internal(record), "external": layout.external(record)}
    rounds: list[Steps[list[str]]] = [asker.draws(path, prompts[path]) for path in first]
    if "clue" in paths:
        shown = gold if config.clue_source is ClueSource.gold else ""
        rounds.append(asker.clue(layout.extract(record, shown)))
    replies = yield from together(rounds)
    texts = dict(zip(first, replies[: len(first)], strict=True))
    clue = replies[-1][0] if "clue" in paths else ""
    verified = ""
    if clue:
        second = [asker.draws("clue", layout.clue(record, clue)), asker.verified(layout.verify(record, clue))]
        texts["clue"], (verified,) = yield from together(second)
    draws = {path: [asdict(_read(path, text, gold)) for text in texts[path]] for path in texts}
    return json.dumps(
        {
            "draws": draws,
            "clue": clue,
            "clue_acc": clue_acc(clue, gold),
            "verify": verified,
            "v": clue_acc(verified, gold) == 1,
            SAW_GOLD: config.clue_source is ClueSource.gold,
        },
        ensure_ascii=False,
    )


class _Asker:
    """Asks about one question with the draws of its exploration."""

    def __init__(self, record: QuestionRecord, config: ExploreConfig, reply: ReplyConfig, *, seed: int) -> None:
        self.record, self.config, self.reply, self.seed = record, config, reply, seed

    def _ask(self, purpose: str, prompt: str, *, number: int = 0, **values: Any) -> Ask:
        """A call that is drawn by the exploration's rule, from a seed of its own."""
        config = self.config
        return Ask(
            purpose=purpose,
            prompt=prompt,
            temperature=config.temperature,
            top_p=config.top_p if config.temperature else 1.0,
            presence_penalty=config.presence_penalty,
            seed=zlib.crc32(f"{self.seed}/{self.record.identifier}/{purpose}/{number}".encode()),
            question=self.record.question,
            **values,
        )

    def draws(self, path: str, prompt: str) -> Steps[list[str]]:
        """The replies on a path, in tags where they are forced."""
        numbers = range(self.config.num_draws)
        if not self.reply.force_tags:
            start = OPEN_THINK if self.reply.prime_think else ""
            texts = yield [
                self._ask(path, prompt, number=number, max_new_tokens=self.config.max_new_tokens, reply_start=start)
                for number in numbers
            ]
            return [f"{start} {text}".strip() for text in texts]
        texts = yield [
            self._ask(
                path,
                prompt,
                number=number,
                max_new_tokens=self.reply.think_tokens,
                reply_start=OPEN_THINK,
                stop=(OPEN_ANSWER,),
            )
            for number in numbers
        ]
        thinks = list(map(thought, texts))
        answers = yield [
            self._ask(
                path,
                prompt,
                number=number,
                max_new_tokens=self.reply.answer_tokens,
                reply_start=f"{OPEN_THINK} {think} {CLOSE_THINK} {OPEN_ANSWER}",
                stop=ANSWER_STOPS,
            )
            for number, think in zip(numbers, thinks, strict=True)
        ]
        return [written(think, answer) for think, answer in zip(thinks, answers, strict=True)]

    def clue(self, prompt: str) -> Steps[list[str]]:
        return (yield [self._ask("extract", prompt, max_new_tokens=self.config.clue_tokens, stop=CLUE_STOPS)])

    def verified(self, prompt: str) -> Steps[list[str]]:
        return (yield [self._ask("verify", prompt, max_new_tokens=self.config.clue_tokens, stop=ANSWER_STOPS)])


def _read(path: str, text: str, gold: str) -> Explored:
    reply = parse(text)
    return Explored(
        path=path,
        text=text,
        think=reply.think,
        answer=reply.answer,
        is_right=clue_acc(reply.answer, gold) == 1,
        is_formatted=reply.is_formatted,
    )
