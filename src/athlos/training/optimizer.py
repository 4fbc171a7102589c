"""AdamW whose steps are not lost on weights of 16 bits."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW
from torch.optim.adamw import adamw

MASTER = "master"
"""Key of the float32 copy in the state of a weight."""
SHORT_FORMATS = (torch.bfloat16, torch.float16)


class MasterAdamW(AdamW):
    """AdamW that keeps a float32 copy of each weight of 16 bits, steps on the copy, and rounds it into the weight.

    A step of 1e-6 is below what bfloat16 holds beside a weight of 0.01, so without a copy most weights would never
    move. The moments of such a weight are float32 too. Weights in float32 are left to AdamW itself, in one pass over
    each of them where all are whole: a quarter of the time on a processor.
    """

    def __init__(self, weights: Sequence[Tensor] | Sequence[dict[str, Any]], **options: Any) -> None:
        """`weights` may be in groups with options of their own, as in AdamW."""
        single = [weight for part in weights for weight in (part["params"] if isinstance(part, dict) else [part])]
        is_fused = all(type(weight) is nn.Parameter and weight.dtype is torch.float32 for weight in single)
        super().__init__(weights, fused=is_fused or None, **options)
        # Lightning would not clip what a scaled step still has to unscale; here gradients come unscaled.
        self._step_supports_amp_scaling = False

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        hidden = []
        for group in self.param_groups:
            short = [weight for weight in group["params"] if weight.grad is not None and weight.dtype in SHORT_FORMATS]
            self._step_on_copies(short, group)
            hidden += [(weight, weight.grad) for weight in short]
        for weight, _ in hidden:
            weight.grad = None  # so that AdamW passes it by
        super().step()
        for weight, gradient in hidden:
            weight.grad = gradient
        return loss

    def _step_on_copies(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        states = [self._state_of(weight) for weight in weights]
        adamw(
            [state[MASTER] for state in states],
            [weight.grad.float() for weight in weights if weight.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
        for weight, state in zip(weights, states, strict=True):
            weight.copy_(state[MASTER])

    def _state_of(self, weight: Tensor) -> dict[str, Any]:
        state: dict[str, Any] = self.state[weight]
        if not state:
            master = weight.detach().float()
            state |= {"step": torch.tensor(0.0), MASTER: master}
            state |= {"exp_avg": torch.zeros_like(master), "exp_avg_sq": torch.zeros_like(master)}
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As AdamW does, but what was kept in float32 stays so; torch casts it to the format of the weight."""
        super().load_state_dict(state_dict)
        weights = [weight for group in self.param_groups for weight in group["params"]]
        for index, state in state_dict["state"].items():
            weight = weights[index]
            if weight.dtype in SHORT_FORMATS:
                for name in (MASTER, "exp_avg", "exp_avg_sq"):
                    self.state[weight][name] = state[name].to(weight.device).clone()
