"""Rewards of responses: is a worked answer in the question's language, well formed, right; does it match a gold one?

A response is judged on its own text, never on the prompt or a hint in it. P prompts, G responses a prompt.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from hydra.utils import get_class
from torch import Tensor

from athlos.config.schema import RewardConfig
from athlos.data.records import MathRecord, QuestionRecord, Record
from athlos.errors import DataError
from athlos.objectives.reward_config import FormatRule, ReasoningRewardConfig, RewardRule, SumConfig
from athlos.parts import PartContext, Reward, Scores
from athlos.text.consistency import CLOSING_THINK_TAG, OPENING_THINK_TAG, language_consistent, prose
from athlos.text.language import Detector, base_language, detector
from athlos.text.matching import exact_match
from athlos.text.maths import answers_equal, ascii_digits, extract_answer
from athlos.text.normalisation import default_normaliser
from athlos.text.prompt_styles import gold_answers

if TYPE_CHECKING:
    from athlos.generation.rollouts import PolicyPrompt, Rollouts

RecordT = TypeVar("RecordT", bound=Record)

ADAMAME_BONUS = 2.0
"""B of AdaMame. Source: its code."""
ADAMAME_FLOOR = 0.1
"""Least factor of the bonus, so that the question's language is favoured from the first step on."""
WEIGHT_OF_ACCURACY = 0.9
"""Of M-Thinker's soft variant; language consistency has the rest. Source: its code."""
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}")


@dataclass(frozen=True, kw_only=True)
class Judged:
    """What was found in a response. `language` is the detected one, None where it has too few letters to tell."""

    lc: bool
    format: bool
    acc: bool
    language: str | None
    agreement: float = 0.0
    """With the English trace, in [0, 1]; computed for `m_thinker` alone."""


def judge(
    response: str,
    *,
    language: str,
    answer: str,
    detector: Detector,
    config: ReasoningRewardConfig,
    truncated: bool = False,
    english: str = "",
) -> Judged:
    """The parts of the reward of one response. One that was cut by length is neither well formed nor right.

    Thought and answer are checked apart where there are thinking tags, and texts of at most 15 letters without LaTeX
    pass (`text.consistency.language_consistent`). Accuracy compares the last box, else the last number,
    behind the thought.
    """
    extracted = extract_answer(response.rsplit(CLOSING_THINK_TAG, 1)[-1])
    return Judged(
        lc=language_consistent(response, language, detector),
        format=not truncated and _well_formed(response, config, extracted),
        acc=not truncated and answers_equal(extracted, answer),
        language=detector.detect(prose(response)),
        agreement=trace_agreement(response, english) if config.rule is RewardRule.m_thinker else 0.0,
    )


def _well_formed(response: str, config: ReasoningRewardConfig, answer: str | None) -> bool:
    if len(response) < config.min_chars:
        return False
    if config.format_rule is FormatRule.think:
        before, _, after = response.partition(CLOSING_THINK_TAG)
        return response.count(CLOSING_THINK_TAG) == 1 and bool(after.strip()) and before.count(OPENING_THINK_TAG) <= 1
    if config.format_rule is FormatRule.boxed:
        return bool(_BOX.search(response.rsplit(CLOSING_THINK_TAG, 1)[-1]))
    return answer is not None


def trace_agreement(response: str, english: str) -> float:
    """F1 of the numbers of two traces, each as often as it stands there; 0 without an English trace.

    Numbers are what traces in two languages share; it stands for the model that judges M-Thinker's alignment.
    """
    ours, theirs = (Counter(_NUMBER.findall(ascii_digits(text))) for text in (response, english))
    total = ours.total() + theirs.total()
    return 2 * (ours & theirs).total() / total if total else 0.0


def group_rewards(
    judged: Sequence[Judged], *, language: str, config: ReasoningRewardConfig, progress: float
) -> list[float]:
    """The rewards of the responses to one prompt in `language`; `progress` is t/T, in [0, 1].

    `conjunction`: 1 if every part that counts holds, else 0. `lc_penalty`: (0 or -1 for language) + (1 if in language
    and right). `m_thinker`: that + agreement with the English trace. `weighted`: .9 accuracy + .1 language. `adamame`:
    accuracy x (1 + (n / n_lang - 1) c) x (1 + B max(1 - c, .1) [in language]), c = (1 + cos(pi t/T)) / 2, n_lang the
    responses of the group in this one's language. Parts that are switched off hold always.
    """
    if config.rule is RewardRule.adamame:
        return _adamame(judged, language=language, config=config, progress=progress)
    return [_reward(response, config) for response in judged]


def _parts(response: Judged, config: ReasoningRewardConfig) -> tuple[bool, bool, bool]:
    return response.lc or not config.lc, response.format or not config.format, response.acc or not config.accuracy


def is_right(response: Judged, config: ReasoningRewardConfig) -> bool:
    """Whether every part that counts holds: what the conjunction rewards."""
    return all(_parts(response, config))


def _reward(response: Judged, config: ReasoningRewardConfig) -> float:
    lc, well_formed, right = _parts(response, config)
    if config.rule is RewardRule.conjunction:
        return float(is_right(response, config))
    solved = right and well_formed
    if config.rule is RewardRule.weighted:
        return WEIGHT_OF_ACCURACY * solved + (1 - WEIGHT_OF_ACCURACY) * lc
    penalised = (0.0 if lc else -1.0) + float(lc and solved)
    return penalised + response.agreement if config.rule is RewardRule.m_thinker else penalised


def _adamame(judged: Sequence[Judged], *, language: str, config: ReasoningRewardConfig, progress: float) -> list[float]:
    rarity = 0.5 * (1 + math.cos(math.pi * progress))
    counts = Counter(response.language for response in judged)
    rewards = []
    for response in judged:
        _, well_formed, right = _parts(response, config)
        share = 1 + (len(judged) / counts[response.language] - 1) * rarity
        is_native = response.language is not None and base_language(response.language) == base_language(language)
        bonus = 1 + ADAMAME_BONUS * max(1 - rarity, ADAMAME_FLOOR) * is_native
        rewards.append(float(well_formed and right) * share * bonus)
    return rewards


def responses_by_prompt(rollouts: "Rollouts") -> list[list[tuple[str, bool]]]:
    """(text, whether it was cut by length) of each response, one list a prompt."""
    responses = list(zip(rollouts.texts, rollouts.truncated.tolist(), strict=True))
    size = rollouts.group_size
    return [responses[start : start + size] for start in range(0, len(responses), size)]


def training_records(context: PartContext, *, kind: type[RecordT], reward: str) -> list[RecordT]:
    """The records that are asked in training; raises `DataError` unless all are of the kind that a reward can judge."""
    assert context.data is not None
    split = context.config.data.train_split
    assert split is not None
    records = list(context.data.records(split))
    judged = [record for record in records if isinstance(record, kind)]
    if len(judged) < len(records) or not judged:
        raise DataError(
            f"reward={reward} judges {kind.__name__}s; split '{split}' of data={context.config.data.name} has "
            f"{len(judged)} of them among {len(records)} records"
        )
    return judged


def build_reward(config: RewardConfig) -> Reward:
    """The reward of a config, from its `_target_` (the allow-list was checked at compose time)."""
    reward: Reward = get_class(config._target_)(config)
    return reward


class TextReward:
    """Base of the rewards that read nothing but texts and learn nothing from one RL step to the next."""

    reads_entropies = False

    def state(self) -> dict[str, Any]:
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        pass


class NoReward(TextReward):
    """Every response alike, so that nothing can be learned; compose refuses to train on it."""

    def __init__(self, config: RewardConfig) -> None:
        self.config = config

    def prepare(self, *, context: PartContext) -> None:
        pass

    def scores(self, prompts: Sequence["PolicyPrompt"], rollouts: "Rollouts", *, progress: float) -> Scores:
        zeros_PG = torch.zeros(len(prompts), rollouts.group_size, dtype=torch.float64)
        return Scores(rewards_PG=zeros_PG, is_right_PG=zeros_PG.bool())


class ReasoningReward(TextReward):
    """Language, format and accuracy of worked answers to `MathRecord`s, by one of the rules of `group_rewards`."""

    def __init__(self, config: ReasoningRewardConfig) -> None:
        self.config = config

    def prepare(self, *, context: PartContext) -> None:
        """Build the detector for the languages of the training questions."""
        records = training_records(context, kind=MathRecord, reward="reasoning")
        self.detector = detector(self.config.language_detector, sorted({record.language for record in records}))

    def scores(self, prompts: Sequence["PolicyPrompt"], rollouts: "Rollouts", *, progress: float) -> Scores:
        judged: list[list[Judged]] = []
        rewards: list[list[float]] = []
        for prompt, responses in zip(prompts, responses_by_prompt(rollouts), strict=True):
            record = prompt.record
            assert isinstance(record, MathRecord)  # `prepare` looked at all of them
            group = [
                judge(
                    text,
                    language=record.language,
                    answer=record.answer,
                    detector=self.detector,
                    config=self.config,
                    truncated=is_cut,
                    english=record.english_solution,
                )
                for text, is_cut in responses
            ]
            judged.append(group)
            rewards.append(group_rewards(group, language=record.language, config=self.config, progress=progress))
        return Scores(
            rewards_PG=torch.tensor(rewards, dtype=torch.float64),
            is_right_PG=_table(judged, lambda response: is_right(response, self.config)),
            parts={
                "lc": _table(judged, lambda response: response.lc).double(),
                "format": _table(judged, lambda response: response.format).double(),
                "acc": _table(judged, lambda response: response.acc).double(),
            },
        )


def _table(judged: Sequence[Sequence[Judged]], holds: Callable[[Judged], bool]) -> Tensor:
    """bool [P, G]."""
    return torch.tensor([[holds(response) for response in group] for group in judged])


class ExactMatchReward(TextReward):
    """1 for a response that equals a gold answer once both are normalised, else 0; what was cut by length has 0."""

    def __init__(self, config: RewardConfig) -> None:
        self.config = config

    def prepare(self, *, context: PartContext) -> None:
        training_records(context, kind=QuestionRecord, reward="exact_match")

    def scores(self, prompts: Sequence["PolicyPrompt"], rollouts: "Rollouts", *, progress: float) -> Scores:
        matches = [
            [0.0 if is_cut else self._match(text, prompt) for text, is_cut in responses]
            for prompt, responses in zip(prompts, responses_by_prompt(rollouts), strict=True)
        ]
        em_PG = torch.tensor(matches, dtype=torch.float64)
        return Scores(rewards_PG=em_PG, is_right_PG=em_PG.bool(), parts={"em": em_PG})

    def _match(self, text: str, prompt: "PolicyPrompt") -> float:
        record = prompt.record
        assert isinstance(record, QuestionRecord)
        normaliser = default_normaliser(record.language)
        return exact_match(text, gold_answers(record), language=record.language, normaliser=normaliser)


class SumReward:
    """A weighted sum of rewards; a response is right if it is right for each. A part's own reward has its curve."""

    def __init__(self, config: SumConfig) -> None:
        self.config = config
        self.parts = {name: build_reward(part) for name, part in config.parts.items()}

    @property
    def reads_entropies(self) -> bool:
        return any(part.reads_entropies for part in self.parts.values())

    def state(self) -> dict[str, Any]:
        return {name: part.state() for name, part in self.parts.items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        for name, part in self.parts.items():
            part.restore(state[name])

    def prepare(self, *, context: PartContext) -> None:
        for part in self.parts.values():
            part.prepare(context=context)

    def scores(self, prompts: Sequence["PolicyPrompt"], rollouts: "Rollouts", *, progress: float) -> Scores:
        scores = {name: part.scores(prompts, rollouts, progress=progress) for name, part in self.parts.items()}
        weighted = [self.config.weights.get(name, 1.0) * part.rewards_PG for name, part in scores.items()]
        return Scores(
            rewards_PG=torch.stack(weighted).sum(dim=0),
            is_right_PG=torch.stack([part.is_right_PG for part in scores.values()]).all(dim=0),
            parts={f"train/reward/{name}": part.rewards_PG for name, part in scores.items()},
        )
