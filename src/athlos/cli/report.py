"""`athlos report`: one page for the runs of a folder."""

import logging
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from athlos.cli.claims import committed
from athlos.errors import ConfigError, DataError
from athlos.report.ledger import read_records
from athlos.report.payload import payload
from athlos.report.reading import collect, run_places
from athlos.report.writing import write_page
from athlos.runs.records import RunRecord

log = logging.getLogger(__name__)

NOTICE_SECONDS = 2.0
"""Reading that takes longer says how far it is."""


def write_report(
    results: Path,
    *,
    out: Path,
    num_predictions: int = 50,
    title: str | None = None,
    wandb_folders: Sequence[Path] = (),
    with_records: bool = False,
) -> Path:
    """Read all runs below `results` and write the page; returns its path.

    Runs of `wandb_folders` (offline files of wandb) join them, marked as imported. `with_records` adds a section of the
    claims that the committed records of `experiments/` say something on. Raises `DataError` when there is no
    run at all, `ConfigError` for an option out of range or an `out` that cannot be written.
    """
    if num_predictions < 0:
        raise ConfigError(f"--predictions: got {num_predictions}, expected an integer >= 0")
    if out.is_dir():
        raise ConfigError(f"--out: {out} is a folder, expected a file name such as {out / 'report.html'}")
    start = time.monotonic()
    records: list[RunRecord] = []
    if not wandb_folders or not results.is_dir() or any(run_places(results)):
        records = collect(results, num_predictions=num_predictions, progress=_progress(start))
    with tempfile.TemporaryDirectory(prefix="athlos-wandb-") as scratch:
        for number, folder in enumerate(wandb_folders):
            records += _imported(folder, Path(scratch) / str(number), num_predictions=num_predictions)
        # Figures are read here, so the folder of imported runs must still stand.
        data = payload(
            records,
            title=title or f"Runs in {results.resolve().name}",
            root=str(results),
            num_predictions=num_predictions,
            committed=read_records(committed()).usable if with_records else (),
        )
    write_page(data, out)
    log.info(
        "%d runs in %.1f s, %.1f MB%s",
        len(records),
        time.monotonic() - start,
        out.stat().st_size / 1e6,
        _summary(records),
    )
    return out


def _imported(folder: Path, scratch: Path, *, num_predictions: int) -> list[RunRecord]:
    from athlos.report.wandb_import import import_runs

    if not folder.is_dir():
        raise DataError("no such folder; expected offline runs of wandb in it", file=folder)
    scratch.mkdir()
    if not import_runs(folder, scratch):
        raise DataError("no offline run of wandb found; looked for offline-run-*/*.wandb", file=folder)
    records = collect(scratch, num_predictions=num_predictions)
    for record in records:
        record.is_imported = True
        record.name = f"wandb/{record.name}"
    return records


def _progress(start: float) -> Callable[[int], None]:
    last = [start]

    def say(num_read: int) -> None:
        if time.monotonic() - last[0] > NOTICE_SECONDS:
            last[0] = time.monotonic()
            log.info("%d run folders read", num_read)

    return say


def _summary(records: Sequence[RunRecord]) -> str:
    num_bad = sum(bool(record.problems) for record in records)
    return f"; {num_bad} with problems, named on the page" if num_bad else ""
