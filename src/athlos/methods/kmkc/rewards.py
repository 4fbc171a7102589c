"""`reward=calibration`: a right answer, and certainty in right answers, doubt in wrong ones.

    h = clip(mean_t H(p_t) / H_ref, 0, 1)          g = (1 - h) - 1/2 if right else h - 1/2
    r = 1[right] + lambda g + .1 * 1[well formed]  lambda by region and by right or wrong

H is the entropy of the plain model over the whole vocabulary, in nats, without a gradient. H_ref is the 95th percentile
of the mean entropies of the newest responses, beginning with those of the profile: against a constant, a model whose
entropy collapses would have h = 0 everywhere. P prompts, G responses a prompt.
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from athlos.data.records import MathRecord, QuestionRecord
from athlos.errors import DataError
from athlos.methods.kmkc.answers import is_right, is_well_formed
from athlos.methods.kmkc.config import CalibrationRewardConfig, EntropyDirection, EntropyTerm, LambdaMode
from athlos.methods.kmkc.construct import Known
from athlos.methods.kmkc.profile import mean_entropies
from athlos.objectives.rewards import responses_by_prompt
from athlos.parts import PartContext, Scores
from athlos.text.prompts import read_answer

if TYPE_CHECKING:
    from athlos.generation.rollouts import PolicyPrompt, Rollouts

REFERENCE_PERCENTILE = 95.0
EQUAL = "equal"
"""Key of the weights that hang on no region."""


def normalised_entropy(entropies: Tensor, reference: float) -> Tensor:
    """h in [0, 1]; 0 where the reference itself is 0, for then every response is certain."""
    return (entropies / reference).clamp(0, 1) if reference > 0 else torch.zeros_like(entropies)


def certainty_gain(h: Tensor, right: Tensor, direction: EntropyDirection) -> Tensor:
    """g in [-1/2, 1/2]: what certainty is worth where right, and doubt where wrong; 0 where the direction is not."""
    gain = torch.where(right, (1 - h) - 0.5, h - 0.5)
    if direction is EntropyDirection.right_only:
        return gain * right
    return gain * ~right if direction is EntropyDirection.wrong_only else gain


def calibrated_rewards(
    right: Tensor, formed: Tensor, gain: Tensor, *, weights: tuple[float, float], format_weight: float
) -> Tensor:
    """r of each response; `weights` are lambda of a right and of a wrong answer."""
    of_right, of_wrong = torch.tensor(weights, dtype=torch.float64)
    lam = torch.where(right, of_right, of_wrong)
    return right.double() + lam * gain + format_weight * formed.double()


class CalibrationReward:
    """Of questions, and of word problems whose last number is the answer."""

    def __init__(self, config: CalibrationRewardConfig) -> None:
        self.config = config
        self.window: deque[float] = deque(maxlen=config.window)
        self.weights: dict[str, tuple[float, float]] = {}

    @property
    def reads_entropies(self) -> bool:
        """Also where they do not count: the curves tell how sure the arms without the term become."""
        return True

    def prepare(self, *, context: PartContext) -> None:
        """Take the regions of the questions and the entropies of their profile."""
        assert context.data is not None
        split = context.config.data.train_split
        assert split is not None
        records = list(context.data.records(split))
        if wrong := [record for record in records if not isinstance(record, QuestionRecord | MathRecord)]:
            raise DataError(
                f"reward=calibration judges questions and word problems; '{wrong[0].identifier}' of "
                f"data={context.config.data.name} is a {type(wrong[0]).__name__}"
            )
        self.style = context.config.prompt_style
        known = context.made.product if context.made is not None else None
        lambdas = {name: (right, wrong) for name, (right, wrong) in self.config.lambdas.items()}
        self.weights = {record.identifier: lambdas[EQUAL] for record in records}
        if isinstance(known, Known):
            self.window.extend(known.entropies)
            if self.config.lambda_mode is LambdaMode.by_region:
                self.weights = {name: lambdas[seed.region.value] for name, seed in known.regions.items()}
        if unknown := [record.identifier for record in records if record.identifier not in self.weights]:
            raise DataError(f"reward=calibration: question '{unknown[0]}' has no region")

    def scores(self, prompts: Sequence["PolicyPrompt"], rollouts: "Rollouts", *, progress: float) -> Scores:
        assert rollouts.entropies is not None
        config, shape = self.config, (len(prompts), rollouts.group_size)
        entropies_PG = mean_entropies(rollouts.entropies, rollouts.response_mask).cpu().view(shape)
        reference = self._reference(entropies_PG)
        h_PG = normalised_entropy(entropies_PG, reference)
        right_PG, formed_PG = self._judged(prompts, rollouts)
        gain_PG = certainty_gain(h_PG, right_PG, config.direction)
        counted_PG = gain_PG if config.entropy_term is EntropyTerm.reward else torch.zeros_like(gain_PG)
        rewards = [
            calibrated_rewards(
                right_PG[row],
                formed_PG[row],
                counted_PG[row],
                weights=self.weights[prompt.record.identifier],
                format_weight=config.format_weight,
            )
            for row, prompt in enumerate(prompts)
        ]
        right_share = right_PG.double()
        return Scores(
            rewards_PG=torch.stack(rewards),
            is_right_PG=right_PG,
            parts={
                "train/reward/right": right_share,
                "train/reward/gain": counted_PG,
                "train/reward/format": formed_PG.double(),
                "train/entropy_right": torch.where(right_PG, entropies_PG, 0.0),
                "train/entropy_wrong": torch.where(right_PG, 0.0, entropies_PG),
                "train/h_ref": torch.full(shape, reference, dtype=torch.float64),
                "train/h_clipped": (entropies_PG > reference).double(),
                # What the answers to a question differ by: all that advantages within a group can see of certainty.
                "train/h_spread": (h_PG - h_PG.mean(dim=1, keepdim=True)).abs(),
            },
        )

    def _reference(self, entropies_PG: Tensor) -> float:
        """H_ref with these responses among the newest."""
        self.window.extend(entropies_PG.flatten().tolist())
        return float(np.percentile(np.array(self.window), REFERENCE_PERCENTILE))

    def _judged(self, prompts: Sequence["PolicyPrompt"], rollouts: "Rollouts") -> tuple[Tensor, Tensor]:
        """(right, well formed), bool [P, G]; what was cut by length is neither."""
        tables: list[list[list[bool]]] = [[], []]
        for prompt, responses in zip(prompts, responses_by_prompt(rollouts), strict=True):
            record = prompt.record
            answers = ["" if is_cut else read_answer(text, record, style=self.style) for text, is_cut in responses]
            for table, holds in zip(tables, (is_right, is_well_formed), strict=True):
                table.append([holds(answer, record, max_tokens=self.config.max_answer_tokens) for answer in answers])
        return torch.tensor(tables[0]), torch.tensor(tables[1])

    def state(self) -> dict[str, Any]:
        return {"window": list(self.window)}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.window = deque(state["window"], maxlen=self.config.window)
