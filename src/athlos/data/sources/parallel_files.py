"""Parallel text in two files: line n of one is the translation of line n of the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from athlos.data.parallel import ParallelConfig, ParallelSource, parallel_errors
from athlos.data.records import ParallelRecord
from athlos.data.source import data_part, decoded_lines
from athlos.errors import DataError


@dataclass(kw_only=True)
class ParallelFilesConfig(ParallelConfig):
    source_file: str = "{source}-{target}.{source}"
    """File of the source segments below `data.dir`; `{source}` and `{target}` stand for the languages."""
    target_file: str = "{source}-{target}.{target}"


class ParallelFilesSource(ParallelSource[ParallelFilesConfig]):
    """A line that is empty on both sides is a document border and is passed over; on one side it is unreadable."""

    def all_files(self) -> list[Path]:
        return [self.file(self.fill(self.config.source_file)), self.file(self.fill(self.config.target_file))]

    def read_all(self) -> Iterator[ParallelRecord | DataError]:
        source_path, target_path = self.all_files()
        # Counted before the first record: with a limit the reader would never come to the end where they differ.
        num_source, num_target = num_lines(source_path), num_lines(target_path)
        if num_source != num_target:
            raise DataError(
                f"the files are not aligned: {source_path.name} has {num_source} lines, "
                f"{target_path.name} has {num_target}",
                file=target_path,
            )
        pairs = zip(decoded_lines(source_path), decoded_lines(target_path), strict=True)
        for (number, source), (_, target) in pairs:
            if isinstance(source, DataError) or isinstance(target, DataError):
                yield from (side for side in (source, target) if isinstance(side, DataError))
                continue
            if not source.strip() and not target.strip():
                continue
            blank = source_path if not source.strip() else target_path
            try:
                yield self.parallel_record(
                    f"{target_path.name}:{number}", source=source, target=target, file=blank, line=number
                )
            except DataError as error:
                yield error


def num_lines(path: Path) -> int:
    """Number of lines as `decoded_lines` gives them: a last line without its newline counts."""
    try:
        with path.open("rb") as handle:
            return sum(1 for _ in handle)
    except OSError as error:
        raise DataError(error.strerror or str(error), file=path) from error


PARTS = [
    data_part(
        "parallel_files",
        ParallelFilesConfig,
        ParallelFilesSource,
        "parallel text in two line-aligned files",
        check=parallel_errors,
    )
]
