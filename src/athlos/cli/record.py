"""`athlos record`: keeps finished and failed runs in the records of a study."""

import logging
import re
from collections.abc import Sequence
from pathlib import Path

from athlos.config.registry import conf_dir
from athlos.errors import ConfigError, DataError, choices
from athlos.report.downsampling import downsample
from athlos.report.ledger import damage_of
from athlos.report.reading import read_run, run_places
from athlos.runs.records import RECORDS, RunRecord, add_records

log = logging.getLogger(__name__)

ENDED = ("finished", "failed")
MAX_CURVE_POINTS = 1_000
"""Points kept of a curve; a figure shows no more."""
SLUG = re.compile(r"[a-z0-9][a-z0-9_-]*")


def record_runs(runs: Sequence[Path], *, study: str, is_new: bool = False) -> Path:
    """Add runs to `experiments/<study>/records.jsonl.gz` and return that file; a run of a known name replaces its line.

    `runs` are run folders, or folders with some below them. Runs that have not ended or are damaged are named on the
    error stream and left out. Raises `ConfigError` for an unknown study, `DataError` where there is no run to record,
    two of one study and name, or a records file that is damaged.
    """
    folder = _study_folder(study, is_new=is_new)
    records: dict[tuple[str, str], RunRecord] = {}
    for run in runs:
        for record in _ended_runs(run):
            twin = records.setdefault((record.study, record.path.name), record)
            if twin.path.resolve() != record.path.resolve():
                raise DataError(f"has the study and the name of {twin.path}; record one of them", file=record.path)
    if not records:
        raise DataError(f"no run to record; expected a state of {' or '.join(ENDED)}", file=runs[0])
    for record in records.values():
        _warn_of_changes(record)
        record.curves = {
            metric: downsample(curve, max_points=MAX_CURVE_POINTS) for metric, curve in record.curves.items()
        }
    folder.mkdir(parents=True, exist_ok=True)
    num_replaced = add_records(folder / RECORDS, records.values())
    log.info("%d runs recorded, %d of them in place of an older record", len(records), num_replaced)
    return folder / RECORDS


def _study_folder(study: str, *, is_new: bool) -> Path:
    roots = [root / "experiments" for root in (Path(), conf_dir().parent) if (root / "experiments").is_dir()]
    experiments = roots[0] if roots else Path("experiments")
    known = sorted(path.name for path in experiments.glob("*") if path.is_dir())
    if study not in known and not is_new:
        raise ConfigError(f"--study: got '{study}'{choices(study, known)}; --new makes a new one")
    if not SLUG.fullmatch(study):
        raise ConfigError(f"--study: got '{study}', expected a name of small letters, digits, '_' and '-'")
    return experiments / study


def _ended_runs(run: Path) -> list[RunRecord]:
    folders = [place for place in run_places(run) if place.is_dir()]
    if not folders:
        raise DataError("no run folder found; expected one, or a folder with some below it", file=run)
    ended = []
    for folder in folders:
        record = read_run(folder, name=folder.name, num_predictions=0)
        if problem := damage_of(record):
            log.warning("left out %s: %s", folder, problem)
        elif record.state not in ENDED:
            log.warning("left out %s: its state is '%s'", folder, record.state)
        else:
            ended.append(record)
    return ended


def _warn_of_changes(record: RunRecord) -> None:
    if not record.provenance.get("commit"):
        log.warning("%s: made by code of no known commit", record.path)
    elif record.provenance.get("dirty"):
        log.warning("%s: made with changes that were not committed", record.path)
