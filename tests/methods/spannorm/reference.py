"""Naive twin: each placement as a loop over blocks, written from its equation; sub-layers are functions of the stream.

`attention[l]` and `ffn[l]` are functions, `gains[l]` vectors by role: `attention_input` stands before the attention,
`attention_output` behind it, `attention_sum` behind its sum, `attention_merge` on a second stream; so for the FFN.
"""

import math

import torch
from torch import Tensor


def rms(x: Tensor, gain: Tensor | float = 1.0, eps: float = 1e-5) -> Tensor:
    rows = [
        row / (sum(float(value) ** 2 for value in row) / len(row) + eps) ** 0.5 for row in x.reshape(-1, x.shape[-1])
    ]
    return torch.stack(rows).view_as(x) * gain


def stream(  # noqa: C901  one branch an equation is what makes it plain
    placement: str,
    x: Tensor,
    *,
    attention: list,
    ffn: list,
    gains: list[dict[str, Tensor]],
    out: Tensor | None,
    last: Tensor | None = None,
) -> Tensor:
    """What the output matrix reads; `out` is the gain of the norm before it (or of the second stream's last norm),
    where the placement has one, and `last` that of the norm on the sum of two streams."""
    depth = len(attention)
    x = rms(x, eps=1e-10)
    u = d = None
    opening = None
    for index in range(depth):
        a, f, g = attention[index], ffn[index], gains[index]
        if placement == "spannorm":
            y = rms(x + a(rms(x, g["attention_input"]) if index == 0 else x), g["attention_sum"])
            x = rms(x + f(y), g["ffn_sum"])
        elif placement in ("prenorm", "scaled_prenorm"):
            x = x + a(rms(x, g["attention_input"]))
            x = x + f(rms(x, g["ffn_input"]))
        elif placement == "layernorm_scaling":
            x = x + a(rms(x, g["attention_input"]) / math.sqrt(index + 1))
            x = x + f(rms(x, g["ffn_input"]) / math.sqrt(index + 1))
        elif placement in ("postnorm", "deepnorm"):
            alpha = (2 * depth) ** 0.25 if placement == "deepnorm" else 1
            x = rms(alpha * x + a(x), g["attention_sum"])
            x = rms(alpha * x + f(x), g["ffn_sum"])
        elif placement == "mixln":
            if index < depth / 4:
                x = rms(x + a(x), g["attention_sum"])
                x = rms(x + f(x), g["ffn_sum"])
            else:
                x = x + a(rms(x, g["attention_input"]))
                x = x + f(rms(x, g["ffn_input"]))
        elif placement in ("sandwich", "peri_ln"):
            if placement == "peri_ln" and index == 0:
                x = rms(x, g["embedding"])
            x = x + rms(a(rms(x, g["attention_input"])), g["attention_output"])
            x = x + rms(f(rms(x, g["ffn_input"])), g["ffn_output"])
        elif placement == "hybridnorm_star" and index == 0:
            x = x + a(rms(x, g["attention_input"]))
            x = x + f(rms(x, g["ffn_input"]))
        elif placement in ("hybridnorm", "hybridnorm_star"):
            z = rms(x + a(x), g["ffn_input"])
            x = z + f(z)
        elif placement == "residual":
            d = x if index == 0 else d
            branch = a(x)
            x, d = rms(x + branch, g["attention_sum"]), d + branch
            branch = f(x)
            x, d = rms(x + branch, g["ffn_sum"]), d + branch
        elif placement == "siamesenorm":
            # The official block norms its first stream before each sub-layer, and what stands behind the last block
            # norms it once more: our gain of that norm is named by the sum before it.
            if index == 0:
                u, opening = x, g["embedding"]
            c = math.sqrt(2 * (index + 1))
            x = rms(x, opening)
            branch = a(rms(x + rms(u, g["attention_merge"]), g["attention_input"]))
            u, x = u + branch, x + branch / c
            x = rms(x, g["attention_sum"])
            branch = f(rms(x + rms(u, g["ffn_merge"]), g["ffn_input"]))
            u, x, opening = u + branch, x + branch / c, g["ffn_sum"]
        elif placement == "keel":
            x = rms(2 * depth * x + a(rms(x, g["attention_input"])), g["attention_sum"])
            x = rms(2 * depth * x + f(rms(x, g["ffn_input"])), g["ffn_sum"])
        elif placement == "rezero":
            x = x + g["attention_gate"] * a(rms(x, g["attention_input"]))
            x = x + g["ffn_gate"] * f(rms(x, g["ffn_input"]))
        else:
            raise ValueError(placement)
    if placement == "residual":
        return x + rms(d, out)
    if placement == "siamesenorm":
        return rms(rms(x, opening) + rms(u, out), last)
    return x if out is None else rms(x, out)


def mixture(x_ND: Tensor, *, router: Tensor, experts: list, top_k: int) -> Tensor:
    """Token by token: the top_k experts by probability, weights scaled to sum to 1."""
    rows = []
    for x in x_ND:
        scores = [math.exp(float(row @ x)) for row in router]
        best = sorted(range(len(scores)), key=lambda index: -scores[index])[:top_k]
        total = sum(scores[index] for index in best)
        rows.append(sum(scores[index] / total * experts[index](x[None])[0] for index in best))
    return torch.stack(rows)


def balance(probs: list[list[float]], chosen: list[list[int]]) -> float:
    """E * sum over experts of (its share of the assignments) * (its mean probability)."""
    num_experts, num_tokens = len(probs[0]), len(probs)
    assigned = [expert for row in chosen for expert in row]
    return num_experts * sum(
        assigned.count(expert) / len(assigned) * sum(row[expert] for row in probs) / num_tokens
        for expert in range(num_experts)
    )


def effective_rank(values: list[float]) -> float:
    """exp of the entropy of singular values over their sum."""
    total = sum(values)
    return math.exp(-sum(value / total * math.log(value / total) for value in values if value > 0))
