"""Naive twin: each placement as a loop over blocks, written from its equation; sub-layers are functions of the stream.

`attention[l]` and `ffn[l]` are functions, `gains[name]` vectors by the name below, `rms` the norm by hand.
"""

import torch
from torch import Tensor


def rms(x: Tensor, gain: Tensor, eps: float = 1e-5) -> Tensor:
    rows = [
        row / (sum(float(value) ** 2 for value in row) / len(row) + eps) ** 0.5 for row in x.reshape(-1, x.shape[-1])
    ]
    return torch.stack(rows).view_as(x) * gain


def stream(  # noqa: C901  one branch an equation is what makes it plain
    placement: str, x: Tensor, *, attention: list, ffn: list, gains: list[dict[str, Tensor]]
) -> Tensor:
    """The stream behind all blocks, before a final norm."""
    depth = len(attention)
    u = d = None
    for index in range(depth):
        a, f, g = attention[index], ffn[index], gains[index]
        first, second = g["first"], g["second"]
        if placement == "spannorm":
            if index == 0:
                x = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
            skip = x
            y = rms(skip + a(rms(x, g["initial"]) if index == 0 else x), first)
            x = rms(skip + f(y), second)
        elif placement in ("prenorm", "scaled_prenorm"):
            x = x + a(rms(x, first))
            x = x + f(rms(x, second))
        elif placement == "layernorm_scaling":
            x = x + a(rms(x, first) / (index + 1) ** 0.5)
            x = x + f(rms(x, second) / (index + 1) ** 0.5)
        elif placement in ("postnorm", "deepnorm"):
            alpha = (2 * depth) ** 0.25 if placement == "deepnorm" else 1
            x = rms(alpha * x + a(x), first)
            x = rms(alpha * x + f(x), second)
        elif placement == "mixln":
            if index < depth // 4:
                x = rms(x + a(x), first)
                x = rms(x + f(x), second)
            else:
                x = x + a(rms(x, first))
                x = x + f(rms(x, second))
        elif placement in ("sandwich", "peri_ln"):
            if placement == "peri_ln" and index == 0:
                x = rms(x, g["embedding"])
            x = x + rms(a(rms(x, first)), g["after_attention"])
            x = x + rms(f(rms(x, second)), g["after_ffn"])
        elif placement == "hybridnorm":
            z = rms(x + a(x), first)
            x = z + f(z)
        elif placement == "residual":
            d = torch.zeros_like(x) if index == 0 else d
            branch = a(x)
            x, d = rms(x + branch, first), d + branch
            branch = f(x)
            x, d = rms(x + branch, second), d + branch
        elif placement == "siamesenorm":
            u = x if index == 0 else u
            branch = a(rms(x + rms(u, g["u_attention"]), first))
            u, x = u + branch, rms(x + branch / (index + 1) ** 0.5, g["p_attention"])
            branch = f(rms(x + rms(u, g["u_ffn"]), second))
            u, x = u + branch, rms(x + branch / (index + 1) ** 0.5, g["p_ffn"])
        elif placement == "keel":
            x = rms(2 * depth * x + a(rms(x, first)), g["post_attention"])
            x = rms(2 * depth * x + f(rms(x, second)), g["post_ffn"])
        elif placement == "rezero":
            x = x + g["gates"][0] * a(rms(x, first))
            x = x + g["gates"][1] * f(rms(x, second))
    if placement == "residual":
        return x + rms(d, gains[-1]["out"])
    return x + rms(u, gains[-1]["out"]) if placement == "siamesenorm" else x
