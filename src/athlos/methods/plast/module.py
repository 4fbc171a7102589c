"""PLAST's recipe: next tokens of question translations in the chosen layers, and what they do before and after."""

from typing import Any

from torch import Tensor

from athlos.data.batches import Batch
from athlos.methods.plast.config import PlastMethodConfig, PlastSelectionConfig
from athlos.methods.plast.diagnose import Questions, image_attention, mask_study
from athlos.methods.plast.reading import parallel_questions, probe, source_of
from athlos.models.neuron_counts import merge
from athlos.models.probed_selection import blocks_of, specific_neurons
from athlos.parts import PartContext
from athlos.training.module import Measured, MethodModule


class PlastModule(MethodModule[PlastMethodConfig]):
    """Trains as `finetune` does; the paper's changes are which layers train and on what."""

    def prepare(self, *, context: PartContext) -> None:
        """Keep what the diagnoses read."""
        self._context, self._before = context, dict[str, float]()

    def before_training(self, *, context: PartContext) -> None:
        """Diagnoses of the model before it trains."""
        if self.method.attention_items:
            self._before |= self._attention(suffix="_base")
        if self.method.mask_items:
            self._before |= self._masks(context)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        return self.step_loss(self.objective.loss(self.model, batch), batch)

    def after_training(self) -> Measured:
        return self._before | self._looks(), {}

    def measurements(self) -> Measured:
        """Of a model that nothing trained here, what training would have measured at its end."""
        return ({} if self.config.num_steps else self._looks()), {}

    def _looks(self) -> dict[str, float]:
        return self._attention(suffix="") if self.method.attention_items else {}

    def _questions(self, items: int) -> Questions:
        languages = list(source_of(self._context).config.languages)
        return parallel_questions(self._context, split=self.method.diagnosis_split, languages=languages, items=items)

    def _attention(self, *, suffix: str) -> dict[str, float]:
        """`diag/image_attention/<layer>` over all languages, and beside it each language's."""
        metrics: dict[str, float] = {}
        questions = self._questions(self.method.attention_items)
        layers: list[list[float]] = []
        for language, records in questions.items():
            layers.append(image_attention(self.model, self.tokenizer, records))
            metrics |= {f"diag/image_attention{suffix}/{at}/{language}": value for at, value in enumerate(layers[-1])}
        means: Any = [sum(values) / len(values) for values in zip(*layers, strict=True)]
        return {**metrics, **{f"diag/image_attention{suffix}/{at}": value for at, value in enumerate(means)}}

    def _masks(self, context: PartContext) -> dict[str, float]:
        selection = self.config.selection
        assert isinstance(selection, PlastSelectionConfig)
        counts = merge(blocks_of(probe(selection, context.base_model, context=context)))
        drops = mask_study(
            self.model,
            self.tokenizer,
            self._questions(self.method.mask_items),
            specific_neurons(selection, counts).is_specific,
            languages=counts.languages,
            seed=self.config.seed,
        )
        return {f"diag/mask_drop/{name}": value for name, value in drops.items()}
