"""Small memories for tests, and configs to use them with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from athlos.config.compose import run_config
from athlos.data.records import ParallelRecord
from athlos.methods.tm.memory import Memory, Pair
from athlos.methods.tm.retrieval import Matcher
from athlos.stages import StageStore

UNITS = [
    ("django:admin", "The user may delete this page.", "Der Benutzer darf diese Seite löschen."),
    ("django:admin", "The user may not delete this page.", "Der Benutzer darf diese Seite nicht löschen."),
    ("django:admin", "The user may edit this page.", "Der Benutzer darf diese Seite ändern."),
    ("django:admin", "Save all changes now", "Alle Änderungen jetzt speichern"),
    ("django:admin", "Save changes now", "Änderungen jetzt speichern"),
    ("wagtail:admin", "Delete the page %(name)s for ever", "Die Seite %(name)s endgültig löschen"),
    ("wagtail:admin", "Delete the image {title} for ever", "Das Bild {title} endgültig löschen"),
    ("wagtail:admin", "Page [draft] was saved", "Seite [Entwurf] wurde gespeichert"),
    ("wagtail:images", "The image may not be larger than 3 MB", "Das Bild darf nicht größer als 3 MB sein"),
    ("sphinx:sphinx", "no module named here", "kein Modul dieses Namens"),
]


def method(*overrides: str) -> Any:
    """The config of method=tm."""
    return run_config(["method=tm", "data=po_tm", "train.max_steps=0", *overrides]).method


def record(identifier: str, source: str, target: str = "", *, domain: str = "", **meta: str) -> ParallelRecord:
    return ParallelRecord(
        identifier=identifier,
        language="de",
        source=source,
        target=target,
        source_language="en",
        domain=domain,
        meta=dict(meta),
    )


def records() -> list[ParallelRecord]:
    return [
        record(f"en-de:{number}", source, target, domain=domain)
        for number, (domain, source, target) in enumerate(UNITS, start=2)
    ]


def memory_of(pairs: Sequence[Pair]) -> Memory:
    return Memory(pairs={pair.identifier: pair for pair in pairs}, key=f"{hash(tuple(pairs))}", counts={})


def matcher(pairs: Sequence[Pair], tmp_path: Path, *overrides: str, seed: int = 1) -> Matcher:
    return Matcher(
        method=method("method.tm_domain=mixed", *overrides),
        memory=memory_of(pairs),
        language="en",
        stages=StageStore(tmp_path),
        seed=seed,
    )


def write_units(folder: Path, units: Sequence[tuple[str, str, str]] = UNITS) -> Path:
    """The units in the form of data=po_tm."""
    folder.mkdir(exist_ok=True)
    lines = ["domain\ten\tde", *("\t".join(unit) for unit in units)]
    (folder / "en-de.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
