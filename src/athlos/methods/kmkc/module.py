"""KMKC: know more, know clearer.

A round of `KmkcConfig.phases`:

1. `construct.py` asks every training question K times (`profile.py`), fits the decay law and sorts the questions into
   mastered, confused and missing (`regions.py`, `assign.py`);
2. CGKE: `augment.py` writes text that fits the region, and `CgkeModule` is tuned on it;
3. the weights that this left are profiled again, and CDKC: `KmkcModule` learns by GRPO on the questions themselves,
   from a reward that counts certainty (`rewards.py`), or with entropy in the loss (`objective.py`).
"""

import random
from collections.abc import Sequence

import torch
from torch import Tensor

from athlos.data.batches import Batch
from athlos.data.records import Record
from athlos.errors import TrainingError
from athlos.generation.rollouts import PolicyPrompt
from athlos.methods.kmkc.config import KmkcConfig
from athlos.parts import PartContext, Scores
from athlos.training.module import Measured, MethodModule
from athlos.training.rollout_module import RolloutModule


class CgkeModule(MethodModule[KmkcConfig]):
    """Plain tuning on what the construction wrote; loss is on completions alone."""

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        return self.step_loss(self.objective.loss(self.model, batch), batch)

    def after_training(self) -> Measured:
        return {"train/sft_rows": float(self.config.num_steps * self.config.train.batch_size)}, {}


class KmkcModule(RolloutModule[KmkcConfig, PolicyPrompt]):
    """The policy loop over all training questions, an epoch in a new order after the other."""

    def before_training(self, *, context: PartContext) -> None:
        super().before_training(context=context)
        assert context.data is not None
        split = context.config.data.train_split
        assert split is not None
        self.questions: list[Record] = list(context.data.records(split))
        self.texts = {record.identifier: context.data.text_of(record)[0] for record in self.questions}

    def prompts(self, step: int) -> list[PolicyPrompt]:
        """This device's prompts of an RL step: the next ones of the present epoch, or the first of a new one."""
        size = self.method.prompts_per_step
        slots = [question_at(self.questions, step * size + place, seed=self.config.seed) for place in range(size)]
        return [PolicyPrompt(record=record, text=self.texts[record.identifier]) for record in self.share(slots)]

    def after_rollouts(
        self, step: int, *, prompts: Sequence[PolicyPrompt], scores: Scores, advantages_PG: Tensor
    ) -> dict[str, float]:
        """`train/flat_group_share`: groups whose advantages are all 0, which teach nothing."""
        own = torch.tensor([float((advantages_PG == 0).all(dim=1).sum()), float(len(prompts))], dtype=torch.float64)
        flat, number = self.over_devices(own).tolist()
        return {"train/flat_group_share": flat / number}

    def after_training(self) -> Measured:
        """Raises `TrainingError` where fewer responses were made than the config says: arms would not compare."""
        metrics, figures = super().after_training()
        made = len(self.history) * self.method.prompts_per_step * self.policy.group_size
        planned = self.num_policy_steps * self.method.prompts_per_step * self.policy.group_size
        if made != planned:
            raise TrainingError(f"method=kmkc: {made} responses were made, the config says {planned}")
        return {**metrics, "train/rollouts": float(made)}, figures


def question_at(questions: Sequence[Record], place: int, *, seed: int) -> Record:
    """The question at a place in the endless sequence of epochs, each in an order of its own."""
    epoch, index = divmod(place, len(questions))
    order = list(range(len(questions)))
    random.Random(f"{seed}:epoch:{epoch}").shuffle(order)
    return questions[order[index]]
