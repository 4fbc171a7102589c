"""Do the dials of the lab world work? What a model of `data=lab` knows, reads, adds up and combines, by setting.

`acc_<kind>_<setting>` is the share of right answers to one kind of probe at one setting (`acc_fact_rare`,
`acc_document_3`, `acc_sum_2`, `acc_chain_2`), a macro mean over languages, with `/<language>` beside it; `acc_<kind>`
is over all settings. A sum counts by its last number, everything else by the whole answer. One figure shows them all.
"""

import io
import re
from collections.abc import Sequence
from typing import Any

from athlos.config.schema import RunConfig
from athlos.data.records import ParallelRecord, QuestionRecord, Record
from athlos.errors import ConfigError
from athlos.evaluation.asking import ask
from athlos.evaluation.config import PremisesConfig
from athlos.evaluation.metrics import MacroMean
from athlos.evaluation.suite import Answerer, SuiteResult

KINDS = ("fact", "document", "sum", "chain")
SETTINGS = {"fact": ("none", "rare", "background", "frequent")}
"""Order of the settings of facts; those of the other kinds are numbers."""
PANELS = {
    "fact": "Facts, by how often they are told",
    "chain": "Unseen chains, by relations (1: their facts)",
    "document": "Reading, by sentences of the document",
    "sum": "Sums, by number of steps",
}
_NUMBER = re.compile(r"[0-9]+")
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
"""Okabe and Ito's, told apart by colour-blind readers."""
MARKERS = "osv^D"


class PremisesSuite:
    is_seeded = False

    def __init__(self, config: PremisesConfig, run: RunConfig) -> None:
        self.config, self.run = config, run

    def evaluate(
        self, answerer: Answerer, records: Sequence[Record], *, shots_pool: Sequence[Record] = (), progress: Any = None
    ) -> SuiteResult:
        """Raises `ConfigError` for records that are no probes of the lab world."""
        probes = [record for record in records if not isinstance(record, ParallelRecord)]  # those are another suite's
        if any(record.meta.get("kind") not in KINDS for record in probes):
            got = f"data={self.run.data.name} data.test_split={self.run.data.test_split}"
            raise ConfigError(f"eval.suites: premises needs the probes of data=lab, splits val and test; got {got}")
        asked = ask(
            self.run,
            answerer,
            records,
            record_type=QuestionRecord,
            suite="premises",
            shots_pool=shots_pool,
            progress=progress,
        )
        golds = [record.answers[0] for record in asked.records]
        kinds = [record.meta["kind"] for record in asked.records]
        dials = [record.meta["dial"] for record in asked.records]
        acc = [
            float(is_right(answer, gold, kind=kind))
            for answer, gold, kind in zip(asked.answers, golds, kinds, strict=True)
        ]
        result = SuiteResult(
            predictions=asked.rows(golds, acc=acc, kind=kinds, dial=dials), signatures=dict(asked.signatures)
        )
        groups = {f"acc_{kind}": [kind == other for other in kinds] for kind in sorted(set(kinds))}
        groups |= {
            f"acc_{kind}_{dial}": [(kind, dial) == pair for pair in zip(kinds, dials, strict=True)]
            for kind, dial in sorted(set(zip(kinds, dials, strict=True)))
        }
        for name, chosen in groups.items():
            mean = MacroMean(name, evaluation=self.run.eval)
            mean.update(
                [value for value, keep in zip(acc, chosen, strict=True) if keep],
                [language for language, keep in zip(asked.languages, chosen, strict=True) if keep],
            )
            result.add(*mean.compute())
        languages = list(dict.fromkeys(asked.languages))
        result.figures["premises"] = figure(result.metrics, languages=languages, details=result.details)
        return result


def is_right(answer: str, gold: str, *, kind: str) -> bool:
    """Whether an answer is right: of a sum the last number, of all else the text without outer spaces."""
    if kind == "sum":
        numbers, wanted = _NUMBER.findall(answer), _NUMBER.findall(gold)
        return bool(numbers) and numbers[-1] == wanted[-1]
    return answer.strip() == gold.strip()


def figure(metrics: dict[str, float], *, languages: Sequence[str], details: dict[str, Any]) -> bytes:
    """One page of panels, a line a language, as PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    page = Figure(figsize=(10, 7), layout="constrained")
    FigureCanvasAgg(page)
    for axes, (kind, title) in zip(page.subplots(2, 2).flat, PANELS.items(), strict=True):
        settings = _settings(metrics, kind)
        for index, language in enumerate(languages):
            names = [f"acc_{kind}_{setting}/{language}" for setting in settings]
            if kind == "chain":
                if index:  # asked in the first language alone, so the plain name holds its value
                    continue
                names = [f"acc_{kind}_{setting}" for setting in settings]
                if (single := f"acc_fact_background/{language}") in metrics:  # chains are made of these facts
                    names, settings = [single, *names], ["1", *settings]
            if not names or not all(name in metrics for name in names):
                continue
            values = [metrics[name] for name in names]
            colour, marker = COLOURS[index % len(COLOURS)], MARKERS[index % len(MARKERS)]
            axes.plot(settings, values, color=colour, marker=marker, label=language, linewidth=1.6)
            ends = [(details[name].low, details[name].high) for name in names]
            if all(low is not None for low, _ in ends):
                axes.fill_between(
                    settings,
                    [low for low, _ in ends],
                    [high for _, high in ends],
                    color=colour,
                    alpha=0.12,
                    linewidth=0,
                )
        axes.set_title(title, fontsize=10)
        axes.set_ylim(-0.03, 1.03)
        axes.set_ylabel("share right")
        axes.grid(axis="y", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    if page.axes[0].get_lines():
        page.axes[0].legend(title="language, most text first", fontsize=8, title_fontsize=8, frameon=False)
    page.suptitle("What the model knows, combines, reads and adds up (95 % bootstrap intervals over probes)")
    stored = io.BytesIO()
    page.savefig(stored, format="png", dpi=110)
    return stored.getvalue()


def _settings(metrics: dict[str, float], kind: str) -> list[str]:
    prefix = f"acc_{kind}_"
    settings = {name.removeprefix(prefix).split("/")[0] for name in metrics if name.startswith(prefix)}
    order = SETTINGS.get(kind, ())
    return sorted(settings, key=lambda setting: order.index(setting) if setting in order else int(setting))
