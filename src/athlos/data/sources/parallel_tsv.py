"""Parallel text in a table: tab-separated columns below a header line, one pair a line, no quoting."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from athlos.data.parallel import ParallelConfig, ParallelSource, parallel_errors
from athlos.data.records import ParallelRecord
from athlos.data.source import data_part, decoded_lines
from athlos.errors import DataError, did_you_mean


@dataclass(kw_only=True)
class ParallelTsvConfig(ParallelConfig):
    file: str = "{source}-{target}.tsv"
    """File name below `data.dir`; `{source}` and `{target}` stand for the languages."""
    source_column: str = "{source}"
    """Header name of the column with the source segments; the same placeholders."""
    target_column: str = "{target}"
    domain_column: str | None = None
    """Header name of a column with the domain; empty = none."""
    unescape_newlines: bool = False
    """Read the two characters backslash and n in a segment as a line break."""


class ParallelTsvSource(ParallelSource[ParallelTsvConfig]):
    """Columns that are neither source, target nor domain go to `meta` under their header names."""

    def all_files(self) -> list[Path]:
        return [self.file(self.fill(self.config.file))]

    def read_all(self) -> Iterator[ParallelRecord | DataError]:
        [path] = self.all_files()
        lines = decoded_lines(path)
        _, first_line = next(lines, (1, ""))
        if isinstance(first_line, DataError):
            raise first_line
        header = first_line.split("\t")
        self._check_header(header, path)
        for number, line in lines:
            if isinstance(line, DataError):
                yield line
                continue
            if not line:
                continue
            try:
                yield self._record(line.split("\t"), header, path, number)
            except DataError as error:
                yield error

    def _check_header(self, header: list[str], path: Path) -> None:
        names = [self.fill(self.config.source_column), self.fill(self.config.target_column)]
        for name in [*names, *filter(None, [self.config.domain_column])]:
            if header.count(name) != 1:
                present = ", ".join(filter(None, header)) or "nothing"
                problem = f"no such column{did_you_mean(name, header)}" if name not in header else "stands there twice"
                raise DataError(f"{problem}; the header has: {present}", file=path, line=1, field=name)

    def _record(self, cells: list[str], header: list[str], path: Path, number: int) -> ParallelRecord:
        if len(cells) != len(header):
            at = header[min(len(cells), len(header) - 1)]
            raise DataError(f"expected {len(header)} columns, got {len(cells)}", file=path, line=number, field=at)
        if self.config.unescape_newlines:
            cells = [cell.replace("\\n", "\n") for cell in cells]
        row = dict(zip(header, cells, strict=True))
        source_column, target_column = self.fill(self.config.source_column), self.fill(self.config.target_column)
        domain = row.pop(self.config.domain_column) if self.config.domain_column else ""
        source, target = row.pop(source_column), row.pop(target_column)
        return self.parallel_record(
            f"{path.stem}:{number}",
            source=source,
            target=target,
            file=path,
            line=number,
            fields=(source_column, target_column),
            domain=domain,
            meta=row,
        )


PARTS = [
    data_part(
        "parallel_tsv",
        ParallelTsvConfig,
        ParallelTsvSource,
        "parallel text in a tab-separated table with a header",
        check=parallel_errors,
    )
]
