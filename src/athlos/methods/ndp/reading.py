"""Tables of counts -> one target for each trained token, kept beside the training rows.

The target of the token at place t of the split's tokens stands at t, so a batch reads one slice a row and looks nothing
up. Position t is predicted from the tokens before it: its supervised key is the row up to there, its answer key the
answer's tokens up to there, an answer being a run of targets.

T tokens of the split, N positions with a target, K listed entries.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from athlos.data.encoding import Rows
from athlos.errors import DataError
from athlos.methods.ndp import positions
from athlos.methods.ndp.building import Corpus
from athlos.methods.ndp.config import NdpObjectiveConfig
from athlos.methods.ndp.corpora import rows_end_to_end
from athlos.methods.ndp.hashing import whole_segments
from athlos.methods.ndp.loss import SparseTargets
from athlos.methods.ndp.smoothing import Counts, Distributions, Ints, smoothed
from athlos.methods.ndp.suffixes import SuffixReader
from athlos.methods.ndp.tables import CountTable
from athlos.methods.ndp.targets import capped, count_weights, entropies, mixed

BLOCK_TOKENS = 1 << 16
"""Tokens whose targets are made at a time, whole rows at least."""
ENTROPY_EDGES = (1e-6, 0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
"""Edges of the histogram of target entropies, in nats; below the first a target is one-hot."""
LENGTH_EDGES = (0, 1, 2, 3, 4, 6, 8, 12, 16)
"""Edges of the classes of answer prefixes by length, in tokens; the last class is open."""


@dataclass(kw_only=True)
class NdpTables:
    """What the construction made, for `objective=ndp`."""

    rows: Rows
    """All training rows, those that the run's arm leaves out too: what was counted."""
    sup: CountTable
    clm: CountTable
    n: int
    """Answer prefixes shorter than this are not in `clm`."""
    joins_first: bool
    """Whether answers begin at a row's first token (`positions.answer_positions`)."""
    sup_key: str
    """Key of the stage product."""
    clm_key: str
    slide: SuffixReader | None = None
    """Stands in for `clm` where `construct.slide` is on."""


@dataclass(kw_only=True)
class Positions:
    """The positions of a block of rows that have a target, in order."""

    places: Ints
    """Place of each target in the split's tokens, [N]."""
    sup_keys: np.ndarray
    clm_keys: np.ndarray
    lengths: Ints
    """Tokens of the answer before the position, [N]."""
    sentences: Ints
    """Borders of the answers among the positions, [S + 1]."""


def positions_of(tables: NdpTables, first: int, last: int) -> Positions:
    """Positions with a target in the rows first .. last - 1, by the definition that the tables were counted with."""
    rows = tables.rows
    spans = [(int(rows.starts_R[row]), int(rows.ends_R[row])) for row in range(first, last)]
    places_T = np.concatenate([np.arange(start, end) for start, end in spans])
    tokens_T = np.asarray(rows.tokens_T)[places_T]
    lengths_R = np.array([end - start for start, end in spans])
    is_predicted_T = positions.predicted(np.asarray(rows.is_target_T)[places_T], lengths_R)
    by_row = positions.row_positions(tokens_T, is_predicted_T, lengths_R)
    by_answer = positions.answer_positions(tokens_T, is_predicted_T, lengths_R, joins_first=tables.joins_first)
    chosen = np.flatnonzero(is_predicted_T)
    # A gap between two targets, or the border of two rows, begins another answer.
    row_of = np.repeat(np.arange(len(lengths_R)), lengths_R)[chosen]
    borders = np.flatnonzero((np.diff(chosen) > 1) | (np.diff(row_of) > 0)) + 1
    return Positions(
        places=places_T[chosen],
        sup_keys=by_row.keys,
        clm_keys=by_answer.keys,
        lengths=by_answer.lengths,
        sentences=np.concatenate([[0], borders, [len(chosen)]]),
    )


def counts_at(table: CountTable, keys: np.ndarray) -> tuple[Counts, np.ndarray]:
    """Counts of each key, none where the table has none; and which were found, [N]."""
    table_rows = table.lookup(keys)
    offsets, token_ids, counts = table.gather(table_rows)
    return Counts(offsets=offsets, token_ids=token_ids, counts=counts.astype(np.float64)), table_rows >= 0


def chosen_rows(first: Counts, second: Counts, *, is_first: np.ndarray) -> Counts:
    """Row by row one of two sets of counts."""
    sizes = np.where(is_first, first.sizes, second.sizes)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    token_ids, counts = np.empty(offsets[-1], dtype=np.int64), np.empty(offsets[-1])
    for source, is_taken in ((first, is_first), (second, ~is_first)):
        into, out_of = np.repeat(is_taken, sizes), np.repeat(is_taken, source.sizes)
        token_ids[into], counts[into] = source.token_ids[out_of], source.counts[out_of]
    return Counts(offsets=offsets, token_ids=token_ids, counts=counts)


@dataclass(kw_only=True)
class Block:
    """Targets of a block of positions, and what was seen on the way."""

    target: Distributions
    weights: np.ndarray
    is_hit: np.ndarray
    num_fallbacks: int


def window_targets(tables: NdpTables, first: int, last: int, *, vocab_size: int) -> Distributions | None:
    """The sliding window's side for the positions of `positions_of`; None where it is off."""
    if tables.slide is None:
        return None
    tokens, is_target, lengths = rows_end_to_end(tables.rows, np.arange(first, last))
    corpus = Corpus(tokens_N=tokens, is_predicted_N=positions.predicted(is_target, lengths), lengths_R=lengths)
    return tables.slide.distributions(corpus, vocab_size=vocab_size)


def block_targets(
    positions: Positions,
    config: NdpObjectiveConfig,
    tables: NdpTables,
    *,
    vocab_size: int,
    window: Distributions | None,
) -> Block:
    """Smoothed and mixed targets. An answer prefix that is too short, or absent, has the supervised counts instead.

    `window`, where given, is the answer-only side; the answer's counts then only weigh.

    Raises `DataError` for a prefix that the supervised table does not know.
    """
    sup_counts, is_known = counts_at(tables.sup, positions.sup_keys)
    if not is_known.all():
        raise DataError(
            f"n-gram targets: {(~is_known).sum()} of {len(is_known)} training prefixes are not in the table, which was "
            "counted from other rows"
        )
    clm_counts, is_in_table = counts_at(tables.clm, positions.clm_keys)
    is_hit = is_in_table & (positions.lengths >= tables.n)
    clm_counts = chosen_rows(clm_counts, sup_counts, is_first=is_hit)
    distributions, weights, fallbacks = [], np.zeros(len(positions.places)), 0
    sides = ((config.use_sup, sup_counts, config.xmax_sup), (config.use_clm, clm_counts, config.xmax_clm))
    for is_used, counts, xmax in sides:
        if is_used and counts is clm_counts and window is not None:
            distributions.append(window)
            weights += count_weights(counts, xmax=xmax, power=config.power)
        elif is_used:
            side, num = smoothed(
                counts,
                smooth=config.smooth,
                zero_prob=config.zero_prob,
                vocab_size=vocab_size,
                sentences=positions.sentences,
            )
            distributions.append(side)
            fallbacks += num
            weights += count_weights(counts, xmax=xmax, power=config.power)
    target = distributions[0]
    if len(distributions) == 2:
        target = mixed(*distributions, sup_share=config.lambda_, vocab_size=vocab_size)
    if config.topk:
        target = capped(target, topk=config.topk, vocab_size=vocab_size)
    if not config.weighted:
        weights = np.ones(len(positions.places))
    return Block(target=target, weights=weights, is_hit=is_hit, num_fallbacks=fallbacks)


def write_targets(folder: Path, tables: NdpTables, config: NdpObjectiveConfig, *, vocab_size: int) -> None:
    """Targets of all rows as a folder that `TargetStore` reads."""
    writer = TargetWriter(folder, tables.rows)
    seen = _Seen()
    lengths_R = tables.rows.ends_R - tables.rows.starts_R
    for _, block_rows in whole_segments(lengths_R, size=BLOCK_TOKENS):
        first, last = block_rows.start, block_rows.stop
        positions = positions_of(tables, first, last)
        window = window_targets(tables, first, last, vocab_size=vocab_size) if config.use_clm else None
        block = block_targets(positions, config, tables, vocab_size=vocab_size, window=window)
        entropy = entropies(block.target, vocab_size=vocab_size)
        writer.add(positions.places, block.target, weights=block.weights, entropy=entropy)
        seen.add(positions, block, entropy)
    writer.finish(seen.metrics())


class _Seen:
    """Sums over positions for the diagnostics."""

    def __init__(self) -> None:
        self.num_positions = self.num_hits = self.num_fallbacks = 0
        self.entropy = 0.0
        self.entropy_histogram = np.zeros(len(ENTROPY_EDGES) + 1, dtype=np.int64)
        self.by_length = np.zeros((2, len(LENGTH_EDGES)), dtype=np.int64)

    def add(self, positions: Positions, block: Block, entropy: np.ndarray) -> None:
        is_multi = np.diff(block.target.offsets) > 1
        self.num_positions += len(entropy)
        self.num_hits += int(block.is_hit.sum())
        self.num_fallbacks += block.num_fallbacks
        self.entropy += float(entropy.sum())
        self.entropy_histogram += np.bincount(
            np.searchsorted(ENTROPY_EDGES, entropy, side="right"), minlength=len(ENTROPY_EDGES) + 1
        )
        classes = np.searchsorted(LENGTH_EDGES, positions.lengths, side="right") - 1
        for line, chosen in enumerate((classes, classes[is_multi])):
            self.by_length[line] += np.bincount(chosen, minlength=len(LENGTH_EDGES))

    def metrics(self) -> dict[str, float]:
        count = self.num_positions
        metrics = {
            "diag/target_entropy": self.entropy / count,
            "diag/multi_candidate_share": float(self.by_length[1].sum()) / count,
            "diag/clm_hit_rate": self.num_hits / count,
            "diag/smooth_fallbacks": float(self.num_fallbacks),
            "diag/target_positions": float(count),
        }
        for edge, share in zip((0.0, *ENTROPY_EDGES), self.entropy_histogram / count, strict=True):
            metrics[f"ndp/entropy_from/{edge:g}"] = float(share)
        for edge, num, num_multi in zip(LENGTH_EDGES, *self.by_length, strict=True):
            if num:
                metrics[f"ndp/multi_candidates_after/{edge}"] = float(num_multi / num)
                metrics[f"ndp/positions_after/{edge}"] = float(num)
        return metrics


class TargetWriter:
    """Writes targets as a folder: sizes, leaks, weights, entropies by place; entries in the order of places.

    Raises `DataError` for rows that overlap or are out of order.
    """

    def __init__(self, folder: Path, rows: Rows) -> None:
        if len(rows) > 1 and (rows.starts_R[1:] < rows.ends_R[:-1]).any():
            raise DataError("stored targets: rows overlap or are out of order")
        self.folder = folder
        num_tokens = len(rows.tokens_T)
        self._sizes = np.zeros(num_tokens + 1, dtype=np.int64)
        self._by_place = {name: np.zeros(num_tokens, dtype=np.float32) for name in ("leak", "weight", "entropy")}

    def add(self, places: Ints, target: Distributions, *, weights: np.ndarray, entropy: np.ndarray) -> None:
        """Targets of the places [N] in the split's tokens, which come behind those that were added before."""
        self._sizes[places + 1] = np.diff(target.offsets)
        for name, values in {"leak": target.leak, "weight": weights, "entropy": entropy}.items():
            self._by_place[name][places] = values
        for name, entries in {"token_ids": target.token_ids.astype("<i4"), "probs": target.probs.astype("<f4")}.items():
            with (self.folder / f"{name}.bin").open("ab") as file:
                file.write(entries.tobytes())

    def finish(self, seen: Mapping[str, float]) -> None:
        """Write what is kept by place, and the diagnostics."""
        np.save(self.folder / "offsets.npy", np.cumsum(self._sizes), allow_pickle=False)
        for name, values in self._by_place.items():
            np.save(self.folder / f"{name}.npy", values, allow_pickle=False)
        (self.folder / "seen.json").write_text(json.dumps(seen), encoding="utf-8")


class TargetStore:
    """A folder of targets, read batch by batch."""

    def __init__(self, folder: Path) -> None:
        self.offsets_T = np.load(folder / "offsets.npy", mmap_mode="r", allow_pickle=False)
        self.leak_T, self.weight_T, self.entropy_T = (
            np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False) for name in ("leak", "weight", "entropy")
        )
        num_entries = int(self.offsets_T[-1])
        self.token_ids_K = np.memmap(folder / "token_ids.bin", dtype="<i4", mode="r", shape=(num_entries,))
        self.probs_K = np.memmap(folder / "probs.bin", dtype="<f4", mode="r", shape=(num_entries,))
        self.has_leak = bool(self.leak_T.any())
        self.seen: dict[str, float] = json.loads((folder / "seen.json").read_text(encoding="utf-8"))

    def of_batch(self, batch: Mapping[str, Tensor]) -> tuple[SparseTargets, Tensor]:
        """Targets of the batch's counted positions in the order of `gather_targets`, and their entropies [N]."""
        labels_BT, width = batch["labels"], batch["labels"].shape[1]
        is_counted_BT = (labels_BT != -100).cpu().numpy()
        is_counted_BT[:, 0] = False
        places_N = (batch["row_starts"].cpu().numpy()[:, None] + np.arange(width))[is_counted_BT]
        first_N = self.offsets_T[places_N]
        sizes_N = self.offsets_T[places_N + 1] - first_N
        offsets_N = np.concatenate([[0], np.cumsum(sizes_N)])
        entries_K = np.arange(offsets_N[-1]) + np.repeat(first_N - offsets_N[:-1], sizes_N)
        token_ids_K = self.token_ids_K[entries_K].astype(np.int64)
        by_place = (values_T[places_N] for values_T in (self.leak_T, self.weight_T, self.entropy_T))
        offsets, token_ids, probs, leak, weights, entropy_N = (
            torch.from_numpy(values).to(labels_BT.device)
            for values in (offsets_N, token_ids_K, self.probs_K[entries_K], *by_place)
        )
        targets = SparseTargets(
            offsets_N=offsets,
            token_ids_K=token_ids,
            probs_K=probs,
            leak_N=leak,
            weights_N=weights,
            has_leak=self.has_leak,
        )
        return targets, entropy_N
