"""Training from scratch that is watched by depth. What the paper changes is the surgery; the loss is the objective's.

`diag/...` in metrics.json: profiles of the trained model (and, with `_init`, of the fresh one) on one batch of training
rows. During training a look every `probe_every` steps joins the curves.
"""

import math
from typing import Any

import torch
from torch import Tensor

from athlos.data.batches import Batch
from athlos.data.datamodule import DataModule
from athlos.methods.spannorm.config import SpanNormConfig
from athlos.methods.spannorm.diagnose import Profile, gradient_norms, profile, removal_deltas
from athlos.methods.spannorm.experts import expert_layers
from athlos.methods.spannorm.figures import depth_figure
from athlos.models.forward import causal_model
from athlos.models.sites import backbone
from athlos.parts import PartContext
from athlos.training.module import Measured, MethodModule


class SpanNormModule(MethodModule[SpanNormConfig]):
    """The baseline's step, and a record of what happens over depth."""

    def prepare(self, *, context: PartContext) -> None:
        """Keep the probe batch."""
        self._probe: dict[str, Tensor] = {}
        self._at_init: dict[str, list[float]] = {}
        split = context.config.data.train_split or context.config.data.test_split
        if context.data is not None and context.start is not None and split is not None:
            self._probe = probe_batch(context.data, split=split, num_rows=self.method.probe_rows)

    def before_training(self, *, context: PartContext) -> None:
        """Measure the fresh model on the probe batch."""
        self._at_init = self._depth()

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        loss = self.step_loss(self.objective.loss(self.model, batch), batch)
        self._note_looks(batch_index)
        return loss

    def _note_looks(self, batch_index: int) -> None:
        """Every `probe_every` steps, on the step's last micro batch: the stream's size and skip path, experts' load."""
        every, step = self.method.probe_every, self.global_step + 1
        if not every or step % every or (batch_index + 1) % self.config.num_accumulated:
            return
        model = causal_model(self.model)
        loads = {
            f"moe/load/{index}/{expert}": share
            for index, experts in expert_layers(backbone(model).layers)
            if experts.load_E is not None
            for expert, share in enumerate(experts.load_E.tolist())
        }
        seen = {**looks(profile(model, self._on_device())), **loads}
        # The curve adds up over processes, which all looked.
        self.step_log |= {name: value / self.trainer.world_size for name, value in seen.items()}

    def _on_device(self) -> dict[str, Tensor]:
        device = next(self.model.parameters()).device
        return {name: tensor.to(device) for name, tensor in self._probe.items()}

    def _loss(self) -> Tensor:
        """Mean next-token loss of the probe batch."""
        loss = self._next_token.loss(self.model, self._on_device())
        return loss.total / loss.count

    def _depth(self) -> dict[str, list[float]]:
        """Every profile of the model as it is, by name."""
        model = causal_model(self.model)
        shapes = vars(profile(model, self._on_device()))
        norms = gradient_norms(model, self._loss) if any(p.requires_grad for p in model.parameters()) else {}
        kinds = {"all": "grad_norm", "attention": "attention_grad_norm"}
        return {**shapes, **{kinds[name]: values for name, values in norms.items()}}

    def measurements(self) -> Measured:
        """Of a model that nothing trained here, what training would have measured at its end."""
        return self.after_training() if self._probe and not self.config.num_steps else ({}, {})

    def after_training(self) -> Measured:
        """Profiles of the trained model, of the fresh one, and, if wanted, the loss without each layer."""
        depth = self._depth()
        if self.method.layer_removal:
            depth["layer_removal_delta"] = removal_deltas(causal_model(self.model), self._loss)
        metrics = {**depth_metrics(depth), **depth_metrics(self._at_init, suffix="_init")}
        figures = {}
        for name, values in depth.items():
            if values:
                curves = {"trained": values, **({"start": self._at_init[name]} if name in self._at_init else {})}
                figures[name] = depth_figure(name.replace("_", " "), curves, is_log="rms" in name or "grad" in name)
        return metrics, figures


def probe_batch(data: DataModule, *, split: str, num_rows: int) -> dict[str, Tensor]:
    """The first rows of a split, cut to the shortest of them."""
    rows = data.rows(split)
    pairs = [rows.row(index) for index in range(min(num_rows, len(rows)))]
    length = min(len(ids) for ids, _ in pairs)
    ids_BT, labels_BT = (torch.stack([torch.from_numpy(pair[place][:length]) for pair in pairs]) for place in (0, 1))
    return {
        "input_ids": ids_BT,
        "labels": labels_BT,
        "attention_mask": torch.ones_like(ids_BT),
        "position_ids": torch.arange(length).expand_as(ids_BT).contiguous(),
    }


def looks(profile: Profile) -> dict[str, float]:
    """A profile in a few numbers, for curves."""
    return {
        "diag/act_rms_first": profile.act_rms[0],
        "diag/act_rms_last": profile.act_rms[-1],
        "diag/adjacent_cosine": mean(profile.adjacent_cosine[len(profile.adjacent_cosine) // 2 :]),
        "diag/skip_product": profile.skip_product,
    }


def depth_metrics(depth: dict[str, list[float]], *, suffix: str = "") -> dict[str, float]:
    """`diag/<name>/<layer>` of each value, and one number for the whole depth under `diag/<name>`.

    That is the mean over the upper half of the layers for cosine, rank and removal, the product for the skip
    coefficient, and the greatest value over the least for sizes and gradients.
    """
    metrics: dict[str, Any] = {}
    for name, values in depth.items():
        known = [value for value in values if not math.isnan(value)]
        if not known:
            continue
        metrics |= {f"diag/{name}{suffix}/{layer}": value for layer, value in enumerate(values)}
        if name == "skip_coefficient":
            whole = math.prod(known)
        elif name in ("act_rms", "grad_norm", "attention_grad_norm"):
            whole = max(known) / min(known) if min(known) > 0 else math.nan
        else:
            whole = mean(known[len(known) // 2 :])
        metrics[f"diag/{name}{suffix}"] = whole
    return metrics


def mean(values: list[float]) -> float:
    return sum(values) / len(values)
