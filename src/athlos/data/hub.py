"""Rows of a data set on the Hugging Face hub, through the library `datasets`."""

from collections.abc import Callable, Iterator
from typing import Any

from athlos.errors import DataError

PARQUET_REVISION = "refs/convert/parquet"
"""Branch where the hub keeps its own Parquet copy of a data set."""
SCRIPT_REFUSED = "Dataset scripts are no longer supported"
"""How `datasets` >= 4 answers for a repository whose rows come from a Python script; Athlos never runs such scripts."""


def hub_rows(repo: str, config_name: str | None, split: str) -> Iterator[dict[str, Any]]:
    """Stream the rows of a split as plain dicts; `repo` is a data set on the hub or a local folder of data files.

    The library keeps the download in its own cache and maps it into memory. `DataError` when the hub is out of reach,
    or the repository, configuration or split is unknown.
    """
    from datasets import load_dataset

    for row in _asked(repo, config_name, lambda **options: load_dataset(repo, config_name, split=split, **options)):
        yield dict(row)


def hub_splits(repo: str, config_name: str | None) -> list[str]:
    """Names of the splits of a data set; `DataError` as `hub_rows`."""
    from datasets import get_dataset_split_names

    names: list[str] = _asked(
        repo, config_name, lambda **options: get_dataset_split_names(repo, config_name, **options)
    )
    return names


def hub_commit(repo: str, config_name: str | None) -> str:
    """What identifies the content of a data set as it stands on the hub now; `DataError` as `hub_rows`."""
    from datasets import load_dataset_builder

    builder = _asked(repo, config_name, lambda **options: load_dataset_builder(repo, config_name, **options))
    return str(builder.hash)


def _asked(repo: str, config_name: str | None, ask: Callable[..., Any]) -> Any:
    """What `ask` returns, its errors as `DataError`; of a data set that is a script, what its Parquet copy gives."""
    what = f"hub data set '{repo}'" + (f" ({config_name})" if config_name else "")
    try:
        try:
            return ask()
        except RuntimeError as error:
            if SCRIPT_REFUSED not in str(error):
                raise
            return ask(revision=PARQUET_REVISION)
    except ValueError as error:  # unknown configuration or split: the message lists those there are
        raise DataError(f"{what}: {_first_line(error)}") from error
    except (OSError, RuntimeError) as error:  # ConnectionError, DatasetNotFoundError and the HTTP errors are OSErrors
        raise DataError(
            f"{what}: cannot be read ({type(error).__name__}: {_first_line(error)}); "
            "check the network, or name a folder with its files (data.dir, or data.path of data=own)"
        ) from error
    except Exception as error:  # no base class: offline mode, HTTP client and builder errors differ between versions
        reason = error.__cause__ or error  # a builder's own error only says that there was one
        raise DataError(f"{what}: cannot be read ({type(reason).__name__}: {_first_line(reason)})") from error


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
