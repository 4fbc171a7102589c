"""LISA's recipe as a module: a teacher with the same weights, and the loss of each of the two stages.

The stages are phases of a run (`LisaConfig.phases`). In `local` each shared layer gets the teacher's hidden states and
the teacher's scores of the layer below, and learns the teacher's attention; no layer sees what another one did. In
`end2end` the student runs on its own states and learns the objective's loss and, weighted, the teacher's attention and
attention outputs.

B batch, T positions, H heads, N keys.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from athlos.data.batches import Batch
from athlos.errors import ConfigError
from athlos.generation.interface import Engine
from athlos.methods.lisa.attention import ARGUMENT, LayerScores, SharedAttention, probabilities
from athlos.methods.lisa.config import LisaConfig, LisaSelectionConfig, LisaSurgeryConfig, Stage
from athlos.methods.lisa.diagnoses import (
    agreement,
    finite,
    given_to_layers,
    likeness,
    likeness_figure,
    noise_by_layer,
    other_text,
    test_text,
)
from athlos.methods.lisa.similarity import handing_on, similarity
from athlos.methods.lisa.surgery import aligned_only, directly_shared, reads_text, shared_attentions
from athlos.models.forward import causal_model, evaluation_precision
from athlos.models.sites import backbone
from athlos.objectives.distillation import DistillObjective
from athlos.objectives.next_token import gather_targets
from athlos.parts import Loss, PartContext
from athlos.training.module import Measured, MethodModule

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(kw_only=True)
class Watched:
    """What attention modules took and gave in one forward pass, by layer."""

    inputs: dict[int, dict[str, Any]] = field(default_factory=dict)
    outputs: dict[int, Tensor] = field(default_factory=dict)
    scores: LayerScores = field(default_factory=lambda: LayerScores(is_kept=True, probabilities={}))

    @property
    def weights(self) -> dict[int, Tensor]:
        assert self.scores.probabilities is not None
        return self.scores.probabilities


class LisaModule(MethodModule[LisaConfig]):
    """Trains aligners and low-rank parts to follow the model they were cut out of."""

    def prepare(self, *, context: PartContext) -> None:
        """Keep the untouched model as teacher; its attention modules hand their scores on, in a copy of the modules."""
        self._context = context
        # Kept in tuples, so that Lightning neither trains, moves nor saves it: its parameters may be the student's.
        self._untouched: tuple[PreTrainedModel, ...] = ()
        self._teacher: tuple[PreTrainedModel, ...] = ()

    @property
    def base(self) -> "PreTrainedModel":
        """The model that LISA was cut out of."""
        if not self._untouched:
            self._untouched = (self._context.base_model.to(self.device),)  # type: ignore[arg-type]  # transformers wraps it without types
        return self._untouched[0]

    @property
    def teacher(self) -> "PreTrainedModel":
        """The untouched model, handing on the scores of every layer."""
        if not self._teacher:
            self._teacher = (handing_on(self.base).eval(),)
        return self._teacher[0]

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        if self.method.stages == [Stage.local]:
            return self.step_loss(self.local_loss(batch), batch)
        return self.step_loss(self.end2end_loss(batch), batch)

    def local_loss(self, batch: Batch) -> Loss:
        """Mean KL of attention rows, teacher || student, over shared layers, heads and rows with two keys or more.

        Its total is that mean times the number of targets, so that micro batches weigh by their targets.
        """
        attentions = shared_attentions(causal_model(self.model))
        with torch.no_grad():
            watched = Watched()
            top = attentions[-1].layer_idx
            with watching(self.teacher, watched, layers={attention.layer_idx for attention in attentions}):
                run_decoder(self.teacher, batch, watched, last_layer=top)
        rows_BT = counted_rows(batch)
        total = torch.zeros((), device=rows_BT.device)
        for attention in attentions:
            scores, mask = own_scores(attention, watched)
            total = total + rows_divergence(
                watched.scores.by_layer[attention.layer_idx], scores, mask=mask, rows_BT=rows_BT
            )
        mean = total / len(attentions)
        count = int(batch["num_targets"])
        return Loss(total=self.method.loss.attn * mean * count, count=count, logs={"attn": mean.detach()})

    def end2end_loss(self, batch: Batch) -> Loss:
        """The objective's loss, plus weighted attention and hidden terms; these are means times the targets."""
        weights = self.method.loss
        student = causal_model(self.model)
        if not weights.attn and not weights.hidden:
            return self.objective.loss(self.model, batch)
        layers = {attention.layer_idx for attention in shared_attentions(student)}
        seen, wanted = Watched(), Watched()
        with torch.no_grad(), watching(self.teacher, wanted, layers=layers):
            teacher_BTD = run_decoder(self.teacher, batch, wanted)
        if isinstance(self.objective, DistillObjective) and self.objective.config.teacher == "base":
            # One pass of each model serves all terms.
            with watching(student, seen, layers=layers):
                student_BTD = run_decoder(student, batch, seen)
            hidden_ND, targets_N = gather_targets(student_BTD, batch["labels"])
            wanted_ND, _ = gather_targets(teacher_BTD, batch["labels"])
            loss = self.objective.loss_of(self.model, hidden_ND, wanted_ND, targets_N)
        else:
            with watching(student, seen, layers=layers), given_to_layers(student, seen.scores):
                loss = self.objective.loss(self.model, batch)
        rows_BT = counted_rows(batch)
        attn = sum_of(rows_kl(wanted.weights[index], seen.weights[index], rows_BT=rows_BT) for index in sorted(layers))
        hidden = sum_of(
            squared_difference(wanted.outputs[index], seen.outputs[index], rows_BT=rows_BT) for index in sorted(layers)
        )
        extra = (weights.attn * attn + weights.hidden * hidden) / len(layers)
        logs = {"attn": attn.detach() / len(layers), "hidden": hidden.detach() / len(layers)}
        return Loss(total=loss.total + extra * loss.count, count=loss.count, logs={**loss.logs, **logs})

    def variants(self) -> Iterator[tuple[str, MethodModule[LisaConfig]]]:
        """`_direct`: scores copied head for head. `_align`: M alone, as calibrated, before any training."""
        if not self.method.variants:
            return
        student = causal_model(self.model)
        layers = [attention.layer_idx for attention in shared_attentions(student)]
        yield "_direct", self._around(directly_shared(self.base, layers))
        surgery = self.config.surgery
        assert isinstance(surgery, LisaSurgeryConfig)
        # What is left beside M must be as loaded, so only where nothing but LISA's own parts trained.
        is_only_lisa = not self.config.num_steps or isinstance(self.config.selection, LisaSelectionConfig)
        if surgery.align.enabled and surgery.align.residual and is_only_lisa:
            yield "_align", self._around(aligned_only(student))

    def measurements(self) -> Measured:
        """Agreement with the base on the test text, and what the config asks for beside it."""
        context, recipe, size = self._context, self.method, self.config.eval.batch_size
        assert context.data is not None
        figures: dict[str, bytes] = {}
        metrics: dict[str, float] = {}
        surgery = self.config.surgery
        assert isinstance(surgery, LisaSurgeryConfig)
        if reads_text(surgery):
            similarities = similarity(self.base, context=context, config=surgery)
            metrics |= likeness(similarities)
            figures["adjacent_similarity"] = likeness_figure(similarities)
        text = test_text(self.config, context.data, self.tokenizer)
        student = causal_model(self.model)
        with torch.inference_mode(), evaluation_precision(self.config.hardware):
            if len(text[0]):
                metrics |= agreement(self.base, student, text=text, batch_size=size)[0]
            if recipe.other_text:
                metrics |= other_text(
                    self.base, student, path=Path(recipe.other_text), tokenizer=self.tokenizer, config=self.config
                )
            if recipe.noise_sigma and len(text[0]):
                metrics |= noise_by_layer(
                    self.teacher, text=text, sigma=recipe.noise_sigma, batch_size=size, seed=self.config.seed
                )
        return finite(metrics), figures

    def _around(self, model: "PreTrainedModel") -> MethodModule[LisaConfig]:
        make_engine: Callable[..., Engine] = type(self.engine)
        return MethodModule(
            self.config,
            model=model.eval(),
            tokenizer=self.tokenizer,
            objective=self.objective,
            decoding=self.decoding,
            engine=make_engine(self.config.engine, model=model, tokenizer=self.tokenizer),
        )


def sum_of(terms: Iterator[Tensor]) -> Tensor:
    """Their sum; raises `ConfigError` when there is none."""
    losses = list(terms)
    if not losses:
        raise ConfigError("method=lisa: the model has no shared layer")
    return torch.stack(losses).sum()


@contextmanager
def watching(model: "PreTrainedModel", watched: Watched, *, layers: set[int]) -> Iterator[None]:
    """Note what the attention modules of `layers` take and give inside the block; the first pass counts."""

    def hook(index: int) -> Any:
        def after(module: Any, arguments: Any, keywords: dict[str, Any], output: Any) -> None:
            watched.inputs.setdefault(index, {"hidden_states": arguments[0] if arguments else None, **keywords})
            watched.outputs.setdefault(index, output[0])

        return after

    handles = [
        layer.attention.register_forward_hook(hook(layer.index), with_kwargs=True)
        for layer in backbone(model).layers
        if layer.index in layers
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _EnoughError(Exception):
    """Ends a forward pass above the last layer that is needed."""


def run_decoder(model: "PreTrainedModel", batch: Batch, watched: Watched, *, last_layer: int | None = None) -> Tensor:
    """Last hidden states [B, T, D]; with `last_layer` the pass ends behind that attention, and they are empty."""
    sites = backbone(model)
    handle = None
    if last_layer is not None:
        handle = sites.layers[last_layer].attention.register_forward_hook(_enough)
    try:
        output = sites.decoder(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            position_ids=batch["position_ids"],
            use_cache=False,
            **{ARGUMENT: watched.scores},
        )
    except _EnoughError:
        return torch.empty(0)
    finally:
        if handle is not None:
            handle.remove()
    hidden_BTD: Tensor = output.last_hidden_state
    return hidden_BTD


def _enough(*_: Any) -> None:
    raise _EnoughError


def own_scores(attention: SharedAttention, watched: Watched) -> tuple[Tensor, Tensor | None]:
    """Scores of a shared layer from the teacher's states and the teacher's scores below, and the mask of that layer."""
    inputs = watched.inputs[attention.layer_idx]
    hidden_BTD, mask = inputs["hidden_states"], inputs["attention_mask"]
    query = key = None
    if attention.low_rank is not None:
        query, key = attention.low_rank.queries_and_keys(hidden_BTD, *inputs["position_embeddings"])
    below = watched.scores.below(attention.layer_idx)
    return attention.scores(below, query, key, mask=mask, num_columns=hidden_BTD.shape[1]), mask


def counted_rows(batch: Batch) -> Tensor:
    """bool [B, T]: query rows that are no padding and see two keys or more."""
    return batch["attention_mask"].bool() & (batch["position_ids"] > 0)


def rows_divergence(wanted_BHTN: Tensor, scores_BHTN: Tensor, *, mask: Tensor | None, rows_BT: Tensor) -> Tensor:
    """Mean KL of the rows of two score tensors under one mask; the first is the teacher's."""
    return rows_kl(probabilities(wanted_BHTN, mask), probabilities(scores_BHTN, mask), rows_BT=rows_BT)


def rows_kl(wanted_BHTN: Tensor, weights_BHTN: Tensor, *, rows_BT: Tensor) -> Tensor:
    """Mean over heads and counted rows of KL(wanted || weights), in nats; masked keys have no weight in either."""
    tiny = torch.finfo(weights_BHTN.dtype).tiny
    kl_BHT = functional.kl_div(weights_BHTN.clamp_min(tiny).log(), wanted_BHTN, reduction="none").sum(-1)
    counted_BHT = rows_BT[:, None].expand_as(kl_BHT)
    return (kl_BHT * counted_BHT).sum() / counted_BHT.sum().clamp_min(1)


def squared_difference(wanted_BTD: Tensor, given_BTD: Tensor, *, rows_BT: Tensor) -> Tensor:
    """Mean over counted rows of ||wanted - given||^2."""
    squares_BT = (wanted_BTD.float() - given_BTD.float()).square().sum(-1)
    return (squares_BT * rows_BT).sum() / rows_BT.sum().clamp_min(1)
