"""The ledger: claims of papers joined with runs. Every number of ours is computed here, from records."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from athlos.config.claims import NEUTRAL, Claim, Compare, Comparison, Direction
from athlos.report.claim_arms import Arm, arm_of, differing, matches, selecting, value_of
from athlos.report.comparison import canonical
from athlos.report.estimate import Estimate, estimate
from athlos.report.reading import CONFIG, METRICS, STATUS, collect
from athlos.runs.records import RunRecord

COMMIT_DIGITS = 9


class Verdict(StrEnum):
    """Of a comparison, and of the claim that its comparisons come to.

    `inconclusive`: the interval holds the bar, or there is none, or a seed is missing: the runs cannot tell. `partly`
    is said of claims alone: some comparisons are reproduced, and none is clear on the other side. `by construction`:
    the configuration makes it true, so no run could have said otherwise.
    """

    REPRODUCED = "reproduced"
    PARTLY = "partly"
    INCONCLUSIVE = "inconclusive"
    NOT_REPRODUCED = "not reproduced"
    BY_CONSTRUCTION = "by construction"
    NOT_MEASURED = "not measured"


@dataclass(kw_only=True)
class Row:
    """One comparison in one stratum, joined with its runs."""

    label: str
    verdict: Verdict
    reason: str = ""
    """Why it was not measured."""
    quantity: str = ""
    expected: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    method: str = ""
    num_seeds: int = 0
    arms: dict[str, float] = field(default_factory=dict)
    """Arm -> mean of its metric over the seeds that count."""
    notes: list[str] = field(default_factory=list)
    setting: str = ""
    hardware: list[str] = field(default_factory=list)
    commits: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)
    command: str | None = None
    """Command of our first run."""


@dataclass(kw_only=True)
class Entry:
    """A claim with its rows and what they come to."""

    method: str
    claim: Claim
    verdict: Verdict
    rows: list[Row] = field(default_factory=list)


@dataclass(kw_only=True)
class Records:
    """The runs that were read, and one line for each that was not."""

    usable: list[RunRecord] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def read_records(places: Sequence[Path]) -> Records:
    """All runs in folders and records files, each once. Damaged ones are named and left out, never guessed at.

    Raises `DataError` for a place that does not exist or holds no run.
    """
    records, seen = Records(), set()
    for place in places:
        folder = place if place.is_dir() else place.parent
        for record in collect(place, num_predictions=0, with_curves=False):
            if (path := record.path.resolve()) in seen:
                continue
            seen.add(path)
            record.name = str(folder / record.name) if record.path != folder else str(folder)
            if damage := damage_of(record):
                records.skipped.append(f"{record.name}: {damage}")
            else:
                records.usable.append(record)
    return records


def damage_of(record: RunRecord) -> str | None:
    """Why a run says nothing on any claim, or None."""
    return next((problem for problem in record.problems if problem.startswith((CONFIG, STATUS, METRICS))), None)


def ledger(claims: Mapping[str, Sequence[Claim]], records: Sequence[RunRecord]) -> list[Entry]:
    """One entry a claim, in order."""
    return [_entry(method, claim, records) for method, listed in claims.items() for claim in listed]


def _entry(method: str, claim: Claim, records: Sequence[RunRecord]) -> Entry:
    if not claim.comparisons:
        row = Row(label="", verdict=Verdict.NOT_MEASURED, reason=claim.needs)
        return Entry(method=method, claim=claim, verdict=row.verdict, rows=[row])
    rows = [row for comparison in claim.comparisons for row in _rows(comparison, records)]
    verdict = together([row.verdict for row in rows])
    if claim.is_by_construction and verdict is Verdict.REPRODUCED:
        verdict = Verdict.BY_CONSTRUCTION
    return Entry(method=method, claim=claim, verdict=verdict, rows=rows)


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """One comparison that clearly fails is a claim that fails; else some clear ones among others are `partly`."""
    kinds = set(verdicts)
    if len(kinds) == 1:
        return verdicts[0]
    if Verdict.NOT_REPRODUCED in kinds:
        return Verdict.NOT_REPRODUCED
    return Verdict.PARTLY if Verdict.REPRODUCED in kinds else Verdict.INCONCLUSIVE


def _rows(comparison: Comparison, records: Sequence[RunRecord]) -> list[Row]:
    """A row for each stratum that all arms have; one that is not measured, with the reason, where there is none."""
    chosen = {
        name: [
            record
            for record in records
            if matches(record, {**comparison.where, **measure.where})
            # A benchmark that was asked for other cases did not fail to measure this one.
            and not (record.seed is None and record.state == "finished" and value_of(record, measure) is None)
        ]
        for name, measure in comparison.arms.items()
    }
    for name, arm_records in chosen.items():
        if not arm_records:
            where = {**comparison.where, **comparison.arms[name].where}
            return [_unmeasured(comparison, f"no run with {_shown(where)}")]
    strata = {
        name: {stratum: list(group) for stratum, group in _grouped(arm_records, comparison.by).items()}
        for name, arm_records in chosen.items()
    }
    shared = [stratum for stratum in strata["ours"] if all(stratum in groups for groups in strata.values())]
    if not shared:
        return [_unmeasured(comparison, f"no two arms have the same {', '.join(comparison.by)}")]
    rows = []
    for stratum in shared:
        groups = {name: strata[name][stratum] for name in strata}
        values = {key: groups["ours"][0].config.get(key) for key in comparison.by}
        rows.append((tuple(_sortable(value) for value in values.values()), _row(comparison, groups, values)))
    return [row for _, row in sorted(rows, key=lambda item: item[0])]


def _grouped(records: Iterable[RunRecord], by: Sequence[str]) -> dict[tuple[str, ...], list[RunRecord]]:
    groups: dict[tuple[str, ...], list[RunRecord]] = {}
    for record in records:
        groups.setdefault(tuple(canonical(record.config.get(key)) for key in by), []).append(record)
    return groups


def _sortable(value: Any) -> tuple[float, str]:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return (float(value), "") if is_number else (math.inf, str(value))


def _row(comparison: Comparison, groups: Mapping[str, list[RunRecord]], stratum: Mapping[str, Any]) -> Row:
    arms = {name: arm_of(groups[name], measure) for name, measure in comparison.arms.items()}
    label = " ".join([comparison.name, *(f"{key.rpartition('.')[2]}={value}" for key, value in stratum.items())])
    row = _described(comparison, arms, label)
    conflicts = [conflict for arm in arms.values() for conflict in arm.conflicts]
    if conflicts:
        row.reason = f"an arm is not one arm: {conflicts[0]}"
        return row
    if unequal := _unequal(comparison, arms):
        row.reason = f"nothing is compared: {unequal}"
        return row
    estimated = _estimate(comparison, arms)
    if estimated is None:
        empty = [reason for arm in arms.values() if not arm.values for reason in arm.left_out.values()]
        row.reason = empty[0] if empty else f"{comparison.compare} is undefined, or no seed is shared"
        return row
    row.value, row.low, row.high = estimated.value, estimated.low, estimated.high
    is_certain = all(measure.is_fixed for measure in comparison.arms.values())
    row.method, row.num_seeds = "no seed moves it" if is_certain else estimated.method, len(estimated.seeds)
    row.arms = {name: _mean(arm, estimated) for name, arm in arms.items()}
    missing = [reason for arm in arms.values() for reason in arm.left_out.values()]
    missing += [f"seed {seed} has no partner" for seed in estimated.unpaired]
    missing += _confounds(comparison, arms)
    row.notes += missing
    row.verdict = judged(estimated, comparison, is_whole=not missing, is_certain=is_certain)
    return row


def _estimate(comparison: Comparison, arms: Mapping[str, Arm]) -> Estimate | None:
    values = {name: dict(arm.values) for name, arm in arms.items()}
    seeds = {seed for name, by_seed in values.items() if not comparison.arms[name].is_fixed for seed in by_seed}
    for name, measure in comparison.arms.items():
        if not measure.is_fixed or not values[name]:
            continue
        value, *rest = values[name].values()
        if any(not math.isclose(value, other, rel_tol=1e-6) for other in rest):
            return None  # it was said not to depend on the seed
        values[name] = dict.fromkeys(seeds or list(values[name])[:1], value)
    estimated = estimate(comparison.compare, values["ours"], values.get("against"), values.get("origin"))
    if (
        estimated is None
        or estimated.low != estimated.high
        or all(measure.is_fixed for measure in comparison.arms.values())
    ):
        return estimated
    return _over_items(comparison, arms, estimated)


def _over_items(comparison: Comparison, arms: Mapping[str, Arm], estimated: Estimate) -> Estimate:
    """The estimate with the interval over test items, or rounds: one seed shows no spread, nor do seeds that are alike.

    Those of two arms are added as if they had different items, which is wider than a paired interval. There is none for
    a ratio, where an arm has none, and for two arms of one seed: what a seed moves is not in it.
    """
    is_one = len(estimated.seeds) == 1
    runs = "one run" if is_one else f"{len(estimated.seeds)} seeds, all alike,"
    details = [
        record.details.get(comparison.arms[name].metric)
        for name, arm in arms.items()
        if (record := arm.records.get(estimated.seeds[0])) is not None
    ]
    spans = [
        (detail.low, detail.high) for detail in details if detail and detail.low is not None and detail.high is not None
    ]
    if len(spans) == len(arms) == 1:
        low, high = spans[0]
    elif len(spans) == len(arms) and comparison.compare is Compare.DIFFERENCE and not is_one:
        half = math.hypot(*((high - low) / 2 for low, high in spans))
        low, high = estimated.value - half, estimated.value + half
    else:
        return replace(
            estimated, low=None, high=None, method=estimated.method if is_one else f"{estimated.method}, all alike"
        )
    num_items = max(detail.n or 0 for detail in details if detail)
    return replace(estimated, low=low, high=high, method=f"interval of {runs} over its {num_items} items or rounds")


def _mean(arm: Arm, estimated: Estimate) -> float:
    values = [value for seed, value in arm.values.items() if seed in estimated.seeds] or list(arm.values.values())
    return math.fsum(values) / len(values)


def _confounds(comparison: Comparison, arms: Mapping[str, Arm]) -> list[str]:
    """Config keys in which arms differ without having been asked to: then the method is not all that was changed."""
    allowed = [*comparison.varies, *selecting(measure.where for measure in comparison.arms.values())]
    first = arms["ours"].config
    keys = {key for name, arm in arms.items() if name != "ours" for key in differing(first, arm.config, varies=allowed)}
    return [f"the arms also differ in {', '.join(sorted(keys))}"] if keys else []


def _unequal(comparison: Comparison, arms: Mapping[str, Arm]) -> str:
    """The first key of `comparison.equal` in which arms differ, with its values; empty where they are alike."""
    for key in comparison.equal:
        values = [arm.config.get(key) for arm in arms.values() if arm.records]
        if len(set(map(canonical, values))) > 1:
            return f"the arms must have one {key}, and have {', '.join(map(str, values))}"
    return ""


def judged(estimated: Estimate, comparison: Comparison, *, is_whole: bool, is_certain: bool) -> Verdict:
    """The verdict of one comparison.

    Both clear verdicts need the whole interval on one side (or a number that no seed moves), no seed missing and arms
    that differ in nothing else; a value alone tells nothing.
    """
    if is_certain:
        low = high = estimated.value
    elif estimated.low is None or estimated.high is None:
        return Verdict.INCONCLUSIVE
    else:
        low, high = estimated.low, estimated.high
    sides = {side_of(low, comparison), side_of(high, comparison)}
    if len(sides) > 1 or not is_whole:
        return Verdict.INCONCLUSIVE
    return Verdict.REPRODUCED if sides == {Side.CLAIMED} else Verdict.NOT_REPRODUCED


class Side(StrEnum):
    """Where a value lies; a bar with two ends has two other sides."""

    CLAIMED = "claimed"
    BELOW = "below"
    ABOVE = "above"


def side_of(value: float, comparison: Comparison) -> Side:
    """The side of the bar: one that is named may be met, "no difference" must be passed."""
    bar = comparison.bar
    if isinstance(bar, tuple):
        return Side.BELOW if value < bar[0] else Side.ABOVE if value > bar[1] else Side.CLAIMED
    edge = NEUTRAL.get(comparison.compare) if bar is None else bar
    assert edge is not None
    if bar is not None and value == bar:
        return Side.CLAIMED
    if comparison.direction is Direction.UP:
        return Side.CLAIMED if value > edge else Side.BELOW
    return Side.CLAIMED if value < edge else Side.ABOVE


def _unmeasured(comparison: Comparison, reason: str) -> Row:
    row = _described(comparison, {}, comparison.name)
    row.reason = reason
    return row


def _described(comparison: Comparison, arms: Mapping[str, Arm], label: str) -> Row:
    """A row before its numbers: what is asked, and where the runs come from."""
    records = list({record.name: record for arm in arms.values() for record in arm.records.values()}.values())
    bar = comparison.bar if comparison.bar is not None else NEUTRAL.get(comparison.compare)
    ends = " to ".join(f"{end:g}" for end in bar) if isinstance(bar, tuple) else f"{bar:g}"
    return Row(
        label=label,
        verdict=Verdict.NOT_MEASURED,
        quantity=f"{comparison.compare} of {', '.join(dict.fromkeys(arm.metric for arm in comparison.arms.values()))}",
        expected=f"{comparison.direction} {ends}",
        notes=[note for arm in arms.values() for note in arm.notes],
        setting=", ".join(_distinct(_setting(record) for record in records)),
        hardware=_distinct(_hardware(record) for record in records),
        commits=_distinct(_commit(record) for record in records),
        runs=[record.name for record in records],
        command=arms["ours"].first.command if arms else None,
    )


def _shown(where: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{key}={'|'.join(map(str, value)) if isinstance(value, tuple) else value}" for key, value in where.items()
    )


def _distinct(texts: Iterable[str]) -> list[str]:
    return [text for text in dict.fromkeys(texts) if text]


def _setting(record: RunRecord) -> str:
    parts = [record.config.get("model.name"), record.config.get("data.name")]
    return " on ".join(str(part) for part in parts if part) or str(record.config.get("benchmark", ""))


def _hardware(record: RunRecord) -> str:
    machine = record.provenance.get("hardware")
    if not isinstance(machine, Mapping):
        return "unknown hardware"
    gpus = machine.get("gpus")
    names = ", ".join(str(gpu) for gpu in gpus) if isinstance(gpus, list) and gpus else "no GPU"
    return f"{machine.get('cpu')}, {machine.get('threads')} of {machine.get('cores')} cores, {names}"


def _commit(record: RunRecord) -> str:
    commit = record.provenance.get("commit")
    if not isinstance(commit, str):
        return "unknown commit"
    return commit[:COMMIT_DIGITS] + ("+changes" if record.provenance.get("dirty") else "")
