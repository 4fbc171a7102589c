"""Which FFN neurons fire on which language: counts taken while the model reads, one pass, no activations kept.

B batch rows (texts), T positions, J neurons of a layer, L layers, X languages; N tokens, D width, E experts.
"""

from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor
from transformers.activations import ACT2FN

from athlos.errors import DataError, SurgeryError
from athlos.models.forward import causal_model
from athlos.models.neuron_counts import NeuronCounts
from athlos.models.sites import Backbone, Layer, Site, backbone

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle
    from transformers import PreTrainedModel


NO_SUMS = torch.zeros(1, dtype=torch.float64)
"""Adds nothing to any neuron."""


class ActivationProbe:
    """Counts the gates of every decoder layer while the block lasts; the hooks go with it, errors included.

        with ActivationProbe(model, languages=["en", "de"]) as probe:
            probe.add("en", batch, mask_BT)
        counts = probe.take()

    A neuron is read before its activation function: SiLU, GELU and ReLU are positive exactly where their input is, so
    one count serves all kinds. It is the gate where the FFN has one, else the row of `up`. In a mixture the neurons are
    those of all routed experts, expert after expert; one fires on a token that was sent to its expert and opens its
    gate. Of a vision-language model the text decoder is watched; its mask must leave the picture's positions out.
    `with_sums=False` leaves the mean activation out, which costs a second activation function.
    """

    def __init__(self, model: "PreTrainedModel", *, languages: Sequence[str], with_sums: bool = True) -> None:
        if len(set(languages)) != len(languages) or not languages:
            raise DataError(f"probe: languages {list(languages)}: expected at least one, each once")
        sites = backbone(causal_model(model))
        self.languages = tuple(languages)
        self._model = model
        self._layers = sites.layers
        self._activation = activation_function(sites)
        self._with_sums = with_sums
        self._handles: list[RemovableHandle] = []
        self._mask_BT: Tensor | None = None
        self._pending: dict[int, tuple[Tensor, Tensor]] = {}
        self._shape = (len(sites.layers), len(self.languages), sites.ffn_size)
        self._totals = self._empty()

    def __enter__(self) -> Self:
        try:
            for layer in self._layers:
                site = _neurons(layer, num_neurons=self._shape[-1])
                self._handles.append(site.module.register_forward_hook(self._hook(layer.index, site=site)))
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._mask_BT, self._pending = None, {}

    def add(self, language: str, inputs: Mapping[str, Tensor], mask_BT: Tensor) -> None:
        """Read a batch (keyword arguments of the decoder) and count the positions where `mask_BT` is true.

        The head is not run. When the pass fails, nothing of the batch is counted.
        """
        if not self._handles:
            raise SurgeryError("probe: add() outside of the `with` block")
        at = self._index(language)
        counted_BT = mask_BT.bool()
        per_text_B = counted_BT.sum(1).cpu().numpy()
        self._mask_BT, self._pending = counted_BT.float(), {}
        try:
            with torch.inference_mode():
                causal_model(self._model).base_model(**inputs, use_cache=False)
            missing = [layer.path for layer in self._layers if layer.index not in self._pending]
            if missing:
                raise SurgeryError(f"probe: {len(missing)} layers were not run; the first: {missing[0]}")
            counts_by_layer = {
                index: (fired_BJ.cpu().numpy().astype(np.float64), sums_J.cpu().numpy())
                for index, (fired_BJ, sums_J) in self._pending.items()
            }
        finally:
            self._mask_BT, self._pending = None, {}
        for index, (fired_BJ, sums_J) in counts_by_layer.items():
            self._totals["positive"][index, at] += fired_BJ.sum(0).astype(np.int64)
            self._totals["text_shares"][index, at] += (fired_BJ / np.maximum(per_text_B, 1)[:, None]).sum(0)
            self._totals["sums"][index, at] += sums_J
        self._totals["tokens"][at] += per_text_B.sum()
        self._totals["texts"][at] += (per_text_B > 0).sum()

    def take(self) -> NeuronCounts:
        """What was counted since the last `take`; counting starts again at zero."""
        counts = NeuronCounts(languages=self.languages, **self._totals)
        self._totals = self._empty()
        return counts

    def _index(self, language: str) -> int:
        if language not in self.languages:
            raise DataError(f"probe: language '{language}' is none of {', '.join(self.languages)}")
        return self.languages.index(language)

    def _empty(self) -> dict[str, np.ndarray]:
        _, num_languages, _ = self._shape
        return {
            "tokens": np.zeros(num_languages, dtype=np.int64),
            "positive": np.zeros(self._shape, dtype=np.int64),
            "sums": np.zeros(self._shape),
            "texts": np.zeros(num_languages, dtype=np.int64),
            "text_shares": np.zeros(self._shape),
        }

    def _hook(self, index: int, *, site: Site) -> Callable[..., None]:
        def after(module: Any, arguments: tuple[Tensor, ...], output: Tensor) -> None:
            if self._mask_BT is None:  # a forward pass that is not ours
                return
            gate_BTJ = routed_gates(site, *arguments[:2]) if site.is_of_experts else output[..., site.rows]
            if gate_BTJ.ndim == 2 and len(gate_BTJ) == self._mask_BT.numel():  # OPT and mixtures give a list of tokens
                gate_BTJ = gate_BTJ.unflatten(0, self._mask_BT.shape)
            if gate_BTJ.shape[:2] != self._mask_BT.shape:
                raise DataError(
                    f"probe: the mask is {list(self._mask_BT.shape)} and layer {index} saw {list(gate_BTJ.shape[:2])} "
                    "positions; was it made before picture placeholders were expanded?"
                )
            mask_BT = self._mask_BT.to(gate_BTJ.device)
            sums_J = masked_sum(self._activation(gate_BTJ), mask_BT) if self._with_sums else NO_SUMS
            self._pending[index] = (count_fired(gate_BTJ, mask_BT), sums_J)

        return after


def _neurons(layer: Layer, *, num_neurons: int) -> Site:
    """The matrix whose outputs are the neurons of a layer; raises `SurgeryError` where there is none of that size."""
    site = layer.neuron_site
    if site is None:
        raise SurgeryError(f"probe: {layer.path} has no gate matrix; found {', '.join(layer.sites)}")
    if layer.num_neurons != num_neurons:
        raise SurgeryError(f"probe: {layer.path} has {layer.num_neurons} neurons, the first layer {num_neurons}")
    return site


def routed_gates(site: Site, hidden_ND: Tensor, experts_NK: Tensor) -> Tensor:
    """[N, E J]: gates of the experts that a token was sent to, zero for the others.

    They are computed again, since transformers keeps no gates: what the experts are called with are the tokens and the
    indices of the K experts of each.
    """
    gates = []
    for expert, weight_JD in enumerate(site.own_weight):
        is_sent_N = (experts_NK == expert).any(-1)
        gates.append(torch.where(is_sent_N[:, None], hidden_ND @ weight_JD.T, 0))
    return torch.cat(gates, dim=-1)


def count_fired(gate_BTJ: Tensor, mask_BT: Tensor) -> Tensor:
    """[B, J]: positions of the mask with a gate above zero, whole numbers in float32 (exact below 2^24 a text)."""
    fired_BTJ = torch.empty(gate_BTJ.shape, dtype=torch.float32, device=gate_BTJ.device)
    torch.gt(gate_BTJ, 0, out=fired_BTJ)  # straight into float32: a boolean tensor and its conversion cost ten times it
    return torch.bmm(mask_BT[:, None], fired_BTJ)[:, 0]


def masked_sum(values_BTJ: Tensor, mask_BT: Tensor) -> Tensor:
    """float64 [J]: sum over the positions of the mask; float32 within a text."""
    sums_J = torch.bmm(mask_BT[:, None], values_BTJ.float())[:, 0].double().sum(0)
    if not torch.isfinite(sums_J).all():  # a padded query that sees no key may be no number, and 0 * NaN is NaN
        sums_J = values_BTJ[mask_BT.bool()].double().sum(0)
    return sums_J


def activation_function(sites: Backbone) -> Callable[[Tensor], Tensor]:
    """The function behind the gate, as the model's config names it."""
    values: dict[str, Any] = sites.config.to_dict()
    names = ("hidden_activation", "hidden_act", "activation_function")
    function: Callable[[Tensor], Tensor] = ACT2FN[next(values[name] for name in names if values.get(name))]
    return function
