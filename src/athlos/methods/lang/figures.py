"""Figures of a run with hints: what a policy step measures, hint share and average by group, and layers by language."""

import io
import math
from collections.abc import Mapping, Sequence

PANELS = {
    "reward": "reward",
    "entropy": "entropy, nats a token",
    "response_len": "tokens a response",
    "repetition": "repeated 4-grams",
}
HINT_RATIO, SWITCH_AVERAGE = "train/hint_ratio/", "train/switch_ema/"


def trace_figure(history: Sequence[Mapping[str, float]]) -> bytes:
    """PNG of the RL steps of a run: four measures, the hint share by group, the switch's average by key."""
    page, axes = _page(2, 3)
    steps = [entry["step"] for entry in history]
    for place, (name, title) in zip(axes, PANELS.items(), strict=False):
        place.plot(steps, [entry[name] for entry in history])
        place.set_title(title)
    for place, prefix, title in (
        (axes[4], HINT_RATIO, "share of the hint shown"),
        (axes[5], SWITCH_AVERAGE, "average share with signal"),
    ):
        for name in [name for name in history[-1] if name.startswith(prefix)]:
            place.plot(steps, [entry[name] for entry in history], label=name.removeprefix(prefix))
        place.set_title(title)
        place.set_ylim(-0.05, 1.05)
        place.legend()
    for place in axes[3:]:
        place.set_xlabel("RL step")
    return _png(page)


def lens_figure(curves: Mapping[str, Sequence[float]], *, title: str) -> bytes:
    """PNG of shares by layer, counted from 1; one line a name. A layer without a share (nan) is left out."""
    page, [place] = _page(1, 1)
    for name, values in curves.items():
        points = [(layer, value) for layer, value in enumerate(values, start=1) if not math.isnan(value)]
        place.plot([layer for layer, _ in points], [value for _, value in points], marker=".", label=name)
    place.set_xlabel("layer")
    place.set_ylim(-0.02, 1.02)
    place.set_title(title)
    place.legend()
    return _png(page)


def _page(rows: int, columns: int):  # type: ignore[no-untyped-def]
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    page = Figure(figsize=(3.6 * columns + 1, 2.6 * rows + 0.4), layout="constrained")
    FigureCanvasAgg(page)
    return page, list(page.subplots(rows, columns, squeeze=False).flat)


def _png(page) -> bytes:  # type: ignore[no-untyped-def]
    stored = io.BytesIO()
    page.savefig(stored, format="png", dpi=110)
    return stored.getvalue()
