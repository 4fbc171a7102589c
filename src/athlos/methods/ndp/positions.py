"""Which prefix belongs to which predicted token: the one definition that builders and readers of tables share.

Rows lie end to end. A token is predicted where its label is not -100; a row's first token never is. An answer (a turn)
is a run of predicted tokens within a row. SUP takes the prefix from the row's start, CLM from the start of the token's
own answer. Running text is an answer from its very first token, which no label shows: `joins_first` says that runs
beginning at a row's second token begin at its first.

N tokens, R rows, P predicted tokens in order.
"""

from dataclasses import dataclass

import numpy as np

from athlos.methods.ndp.hashing import segment_keys


@dataclass(frozen=True, kw_only=True)
class Positions:
    """The prefix of each predicted token: `keys` uint64 [P, 2] and `lengths` int64 [P], in tokens."""

    keys: np.ndarray
    lengths: np.ndarray


def row_positions(tokens_N: np.ndarray, is_predicted_N: np.ndarray, lengths_R: np.ndarray) -> Positions:
    """Prefixes from the start of the row (SUP, and MONO with documents as rows)."""
    starts = np.cumsum(lengths_R) - lengths_R
    keys = segment_keys(tokens_N, lengths_R)
    positions = np.arange(len(tokens_N)) - np.repeat(starts, lengths_R)
    return Positions(keys=chosen(keys, is_predicted_N), lengths=positions[is_predicted_N])


def answer_positions(
    tokens_N: np.ndarray, is_predicted_N: np.ndarray, lengths_R: np.ndarray, *, joins_first: bool
) -> Positions:
    """Prefixes from the start of the token's own answer (CLM)."""
    in_answer, starts = answer_runs(is_predicted_N, lengths_R, joins_first=joins_first)
    lengths = np.diff(starts, append=int(in_answer.sum()))
    inside = Positions(
        keys=segment_keys(tokens_N[in_answer], lengths),
        lengths=np.arange(int(in_answer.sum())) - np.repeat(starts, lengths),
    )
    kept = is_predicted_N[in_answer]
    return Positions(keys=chosen(inside.keys, kept), lengths=inside.lengths if kept.all() else inside.lengths[kept])


def chosen(keys_N2: np.ndarray, kept_N: np.ndarray) -> np.ndarray:
    """The keys of the kept tokens, each word contiguous."""
    return keys_N2 if kept_N.all() else keys_N2.T[:, kept_N].T


def answer_runs(
    is_predicted_N: np.ndarray, lengths_R: np.ndarray, *, joins_first: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens inside answers, bool [N], and where each answer begins, counted in such tokens."""
    row_starts = (np.cumsum(lengths_R) - lengths_R)[lengths_R > 0]
    is_first = np.zeros(len(is_predicted_N), dtype=bool)
    is_first[row_starts] = True
    in_answer = is_predicted_N & ~is_first
    if joins_first:
        with_second = row_starts[lengths_R[lengths_R > 0] > 1]
        in_answer[with_second] = in_answer[with_second + 1]
    begins = in_answer.copy()
    begins[1:] &= ~in_answer[:-1] | is_first[1:]
    return in_answer, np.flatnonzero(begins[in_answer])


def predicted(is_target_N: np.ndarray, lengths_R: np.ndarray) -> np.ndarray:
    """Targets without the first token of each row, bool [N]."""
    kept = np.array(is_target_N, dtype=bool)
    kept[(np.cumsum(lengths_R) - lengths_R)[lengths_R > 0]] = False
    return kept
