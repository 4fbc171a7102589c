"""Rows of a data set on the Hugging Face hub, through the library `datasets` (extra `athlos[hub]`)."""

from collections.abc import Iterator
from typing import Any

from athlos.errors import DataError

PARQUET_REVISION = "refs/convert/parquet"
"""Branch where the hub keeps its own Parquet copy of a data set."""
SCRIPT_REFUSED = "Dataset scripts are no longer supported"
"""How `datasets` >= 4 answers for a repository whose rows come from a Python script; Athlos never runs such scripts."""


def hub_rows(repo: str, config_name: str | None, split: str) -> Iterator[dict[str, Any]]:
    """Stream the rows of a split as plain dicts; `repo` is a data set on the hub or a local folder of data files.

    The library keeps the download in its own cache and maps it into memory. `DataError` when `datasets` is not
    installed, the hub is out of reach, or the repository, configuration or split is unknown.
    """
    rows = _load(repo, config_name, split)
    for row in rows:
        yield dict(row)


def _load(repo: str, config_name: str | None, split: str) -> Any:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise DataError(
            f"reading '{repo}' from the hub needs the library `datasets`: pip install 'athlos[hub]', or set data.dir"
        ) from error
    what = f"hub data set '{repo}'" + (f" ({config_name})" if config_name else "")
    try:
        try:
            return load_dataset(repo, config_name, split=split)
        except RuntimeError as error:
            if SCRIPT_REFUSED not in str(error):
                raise
            return load_dataset(repo, config_name, split=split, revision=PARQUET_REVISION)
    except ValueError as error:  # unknown configuration or split: the message lists those there are
        raise DataError(f"{what}: {_first_line(error)}") from error
    except (OSError, RuntimeError) as error:  # ConnectionError, DatasetNotFoundError and the HTTP errors are OSErrors
        raise DataError(
            f"{what}: cannot be read ({type(error).__name__}: {_first_line(error)}); "
            "check the network, or set data.dir=<folder with the official files>"
        ) from error
    except Exception as error:  # no base class: offline mode, HTTP client and builder errors differ between versions
        reason = error.__cause__ or error  # a builder's own error only says that there was one
        raise DataError(f"{what}: cannot be read ({type(reason).__name__}: {_first_line(reason)})") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
