"""Profiles over depth as pictures."""

import io
from collections.abc import Mapping, Sequence


def depth_figure(title: str, curves: Mapping[str, Sequence[float]], *, is_log: bool = False) -> bytes:
    """A PNG with one line a curve over the layers, counted from 1."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    page = Figure(figsize=(5, 3.2), layout="constrained")
    FigureCanvasAgg(page)
    axes = page.subplots()
    for name, values in curves.items():
        axes.plot(range(1, len(values) + 1), values, marker=".", label=name)
    axes.set_xlabel("layer")
    axes.set_title(title)
    if is_log and any(value > 0 for values in curves.values() for value in values):
        axes.set_yscale("log")
    axes.legend()
    stored = io.BytesIO()
    page.savefig(stored, format="png", dpi=110)
    return stored.getvalue()
