"""Rows of tokens -> tables, by the numpy path."""

from pathlib import Path

import numpy as np

from athlos.methods.ndp.counting import count, ones
from athlos.methods.ndp.positions import Positions, answer_positions, row_positions
from athlos.methods.ndp.tables import CountRows, CountTable, TableIdentity, TableWriter

MONO_MARGIN = 5
"""Tokens by which a prefix of a domain document may be longer than the longest training row (official code)."""


def sup_rows(tokens_N: np.ndarray, is_predicted_N: np.ndarray, lengths_R: np.ndarray) -> CountRows:
    """One entry a predicted token: key of the row so far, the token, 1."""
    return entries(row_positions(tokens_N, is_predicted_N, lengths_R), tokens_N[is_predicted_N])


def clm_rows(
    tokens_N: np.ndarray, is_predicted_N: np.ndarray, lengths_R: np.ndarray, *, n: int, joins_first: bool
) -> CountRows:
    """The same with the key of the answer so far, where that is at least `n` tokens long."""
    positions = answer_positions(tokens_N, is_predicted_N, lengths_R, joins_first=joins_first)
    return entries(positions, tokens_N[is_predicted_N], shortest=n)


def mono_rows(tokens_N: np.ndarray, lengths_R: np.ndarray, *, n: int, longest: int) -> CountRows:
    """Documents: every token is predicted from its document so far, n .. longest + 5 tokens."""
    positions = row_positions(tokens_N, np.ones(len(tokens_N), dtype=bool), lengths_R)
    return entries(positions, tokens_N, shortest=n, longest=longest + MONO_MARGIN)


def entries(
    positions: Positions, next_tokens: np.ndarray, *, shortest: int = 0, longest: int | None = None
) -> CountRows:
    """Entries of the positions whose prefix has shortest .. longest tokens."""
    keys, lengths = positions.keys, positions.lengths
    if shortest > 0 or longest is not None:
        kept = lengths >= shortest
        if longest is not None:
            kept &= lengths <= longest
        keys, next_tokens = keys.T[:, kept].T, next_tokens[kept]
    return CountRows(
        keys_0=keys[:, 0], keys_1=keys[:, 1], token_ids=next_tokens.astype(np.int32), counts=ones(len(next_tokens))
    )


def build(rows: CountRows, folder: Path, *, identity: TableIdentity) -> CountTable:
    """Count entries in memory and write the table."""
    with TableWriter(folder, identity=identity) as writer:
        writer.add(count(rows))
    return CountTable.open(folder)
