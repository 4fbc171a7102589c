"""What suites accumulate their numbers in: torchmetrics' sums, and metrics of ours where torchmetrics has not the same.

Its AUROC is float32, its calibration error puts a confidence of 1 in a bin of its own, its perplexity wants all logits
of a text at once, its BLEU is not sacrebleu's, and none has an interval over items. The `compute` of our metrics gives
values by name and what stands beside them, as `SuiteResult.add` takes them.

A metric is updated with the results of all items, which `evaluation.sharding` has joined in every process: rows of
predictions and intervals need them all, in order. So no metric gathers, which would count an item once a process.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor
from torchmetrics import Metric, SumMetric
from torchmetrics.utilities import dim_zero_cat

from athlos.config.schema import EvalConfig
from athlos.evaluation import calibration
from athlos.evaluation.bootstrap import Array, interval_of, ratio_of_sums, resampled
from athlos.evaluation.suite import MetricDetail

Computed = tuple[dict[str, float], dict[str, MetricDetail]]


def total() -> SumMetric:
    """A sum in float64, in the order of the updates; nan stays nan, where torchmetrics by itself leaves it out."""
    metric = SumMetric(nan_strategy="disable", sync_on_compute=False)
    metric.set_dtype(torch.float64)
    return metric


class MacroMean(Metric):
    """Mean of each group as `name/<group>` and their mean as `name`; the groups of most suites are languages.

    A value of nan is undefined: it is left out of the mean of its group and counted. A group without a defined item is
    nan, and then so is the macro mean: over fewer groups it would be another metric under the same name. The interval
    of the macro mean resamples items within each group. The draws of a group depend on its name and the seed alone.
    """

    values: list[Tensor]
    groups: list[str]

    def __init__(self, name: str, *, evaluation: EvalConfig) -> None:
        super().__init__(sync_on_compute=False)
        self.name, self.evaluation = name, evaluation
        self.add_state("values", default=[])
        self.add_state("groups", default=[])

    def update(self, values: Sequence[float], groups: Sequence[str]) -> None:
        """One value and one group an item; raises ValueError for unequal lengths."""
        if len(values) != len(groups):
            raise ValueError(f"expected one group a value, got {len(groups)} and {len(values)}")
        self.values.append(torch.tensor(values, dtype=torch.float64))
        self.groups.extend(groups)

    def compute(self) -> Computed:
        values, groups = dim_zero_cat(self.values).numpy(), np.asarray(self.groups, dtype=object)
        metrics = {self.name: math.nan}
        details = {self.name: MetricDetail(n=len(values), undefined=int(np.isnan(values).sum()))}
        means, draws = [], []
        for group in dict.fromkeys(self.groups):
            of_group = values[groups == group]
            defined = of_group[~np.isnan(of_group)]
            means.append(float(defined.mean()) if len(defined) else math.nan)
            detail = MetricDetail(n=len(of_group), undefined=len(of_group) - len(defined))
            metrics[f"{self.name}/{group}"], details[f"{self.name}/{group}"] = means[-1], detail
            if self.evaluation.bootstrap and len(defined):
                generator = np.random.default_rng([self.evaluation.bootstrap_seed, zlib.crc32(group.encode())])
                drawn = resampled(np.mean, defined, resamples=self.evaluation.bootstrap, generator=generator)
                draws.append(drawn)
                detail.low, detail.high = interval_of(drawn)
        if means:
            metrics[self.name] = float(np.mean(means))
        if draws and len(draws) == len(means):
            details[self.name].low, details[self.name].high = interval_of(np.mean(draws, axis=0))
        return metrics, details


class TokenMean(Metric):
    """Mean over tokens. Its interval, where there is an `evaluation`, resamples items, each with all of its tokens."""

    values: list[Tensor]
    item_indices: list[Tensor]

    def __init__(self, name: str, *, num_items: int, evaluation: EvalConfig | None = None) -> None:
        super().__init__(sync_on_compute=False)
        self.name, self.num_items, self.evaluation = name, num_items, evaluation
        self.add_state("values", default=[])
        self.add_state("item_indices", default=[])

    def update(self, values_N: Array, item_N: np.ndarray) -> None:
        """The value of each token, and the item that it belongs to."""
        self.values.append(torch.from_numpy(values_N))
        self.item_indices.append(torch.from_numpy(item_N))

    def sums(self) -> tuple[Array, Array]:
        """Of each item: the sum of its tokens' values, and their number."""
        values, items = dim_zero_cat(self.values).numpy(), dim_zero_cat(self.item_indices).numpy()
        sums: Any = np.bincount(items, weights=values, minlength=self.num_items)
        return sums, np.bincount(items, minlength=self.num_items).astype(np.float64)

    def compute(self) -> Computed:
        values = dim_zero_cat(self.values).numpy()
        detail = MetricDetail(n=len(values))
        if self.evaluation and self.evaluation.bootstrap:
            drawn = resampled(
                ratio_of_sums,
                *self.sums(),
                resamples=self.evaluation.bootstrap,
                generator=np.random.default_rng(self.evaluation.bootstrap_seed),
            )
            detail.low, detail.high = interval_of(drawn)
        return {self.name: float(values.mean())}, {self.name: detail}


class Confidence(Metric):
    """Measures of confidence against correctness, by name; an item without a confidence (nan) is left out and counted.

    Source: `athlos.evaluation.calibration`.
    """

    conf: list[Tensor]
    correct: list[Tensor]

    def __init__(self, measures: Mapping[str, calibration.Measure]) -> None:
        super().__init__(sync_on_compute=False)
        self.measures = measures
        self.add_state("conf", default=[])
        self.add_state("correct", default=[])

    def update(self, conf: ArrayLike, correct: ArrayLike) -> None:
        """Confidences in [0, 1] or nan and correctness 0 or 1, both of shape (items,)."""
        self.conf.append(torch.as_tensor(conf, dtype=torch.float64))
        self.correct.append(torch.as_tensor(correct, dtype=torch.float64))

    def compute(self) -> Computed:
        """Raises ValueError for unequal lengths and for values out of range."""
        columns = dim_zero_cat(self.conf).numpy(), dim_zero_cat(self.correct).numpy()
        conf, correct, undefined = calibration.defined(*columns)
        return (
            {name: measure(conf, correct) for name, measure in self.measures.items()},
            {name: MetricDetail(n=len(columns[0]), undefined=undefined) for name in self.measures},
        )
