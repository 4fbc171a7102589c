"""The hub, with a local folder of data files in place of a repository: nothing here reaches the network."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest

from athlos.data.hub import PARQUET_REVISION, hub_commit, hub_rows, hub_splits
from athlos.errors import DataError

ROWS = [{"question": "ধাপ ১?", "answer": ["১"]}, {"question": "two", "answer": ["2", "zwei"]}]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub_cache")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    folder.joinpath("test.jsonl").write_text("\n".join(map(json.dumps, ROWS)) + "\n", encoding="utf-8")
    folder.joinpath("README.md").write_text(
        "---\nconfigs:\n- config_name: lines\n  data_files:\n  - {split: test, path: test.jsonl}\n---\n",
        encoding="utf-8",
    )
    return folder


def test_rows_of_a_configuration_are_plain_dicts(repository: Path) -> None:
    assert list(hub_rows(str(repository), "lines", "test")) == ROWS


def test_parquet_files_without_a_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "columns"
    folder.mkdir()
    datasets.Dataset.from_list(ROWS).to_parquet(folder / "train.parquet")
    assert list(hub_rows(str(folder), None, "train")) == ROWS


def test_a_file_that_cannot_be_decoded_gives_the_reason(repository: Path) -> None:
    repository.joinpath("test.jsonl").write_text('{"question": 3\n', encoding="utf-8")
    with pytest.raises(DataError, match=r"\(lines\): cannot be read \(\w+: .*JSON"):
        next(hub_rows(str(repository), "lines", "test"))


def test_unknown_split_and_configuration_name_those_there_are(repository: Path) -> None:
    with pytest.raises(DataError, match=r"tset.*\['test'\]"):
        next(hub_rows(str(repository), "lines", "tset"))
    with pytest.raises(DataError, match=r"'rows' not found.*lines"):
        next(hub_rows(str(repository), "rows", "test"))


def test_the_splits_of_a_data_set_are_told(repository: Path) -> None:
    assert hub_splits(str(repository), "lines") == ["test"]
    with pytest.raises(DataError, match=r"'rows' not found.*lines"):
        hub_splits(str(repository), "rows")


def test_content_is_identified_by_the_commit_that_the_library_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets, "load_dataset_builder", lambda repo, config: SimpleNamespace(hash=f"{repo}@{config}"))
    assert hub_commit("some/where", "main") == "some/where@main"


@pytest.mark.parametrize("error", [ConnectionError("no route"), datasets.exceptions.DatasetNotFoundError("gone")])
def test_hub_out_of_reach_says_what_to_do(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(DataError, match=r"'some/where' \(main\).*data\.dir") as caught:
        next(hub_rows("some/where", "main", "test"))
    assert str(error) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_repository_with_a_script_is_read_from_its_parquet_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    revisions: list[str | None] = []

    def load(_: str, __: str | None, *, split: str, revision: str | None = None) -> list[dict[str, Any]]:
        revisions.append(revision)
        if revision is None:
            raise RuntimeError("Dataset scripts are no longer supported, but found where.py")
        return [{"split": split}]

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert list(hub_rows("some/where", "main", "test")) == [{"split": "test"}]
    assert revisions == [None, PARQUET_REVISION]


def test_other_run_time_errors_are_not_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def fail(*_: Any, **__: Any) -> None:
        calls.append(1)
        raise RuntimeError("disk on fire\nsecond line")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError, match=r"RuntimeError: disk on fire\); check"):
        next(hub_rows("some/where", None, "test"))
    assert len(calls) == 1
