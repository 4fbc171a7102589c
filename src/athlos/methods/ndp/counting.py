"""GROUP BY key and next token, COUNT: the vectorised path.

The first word of a key is random, so its high bits order almost all rows. They are packed with the row's number into
one word of 64 bits and sorted by numpy's vectorised sort; rows that tie there are put in order by exact keys.

E entries.
"""

import numpy as np

from athlos.methods.ndp.tables import CountRows, new_keys


def count(rows: CountRows) -> CountRows:
    """Entries in any order, repeats allowed -> sorted by key and token, each (key, token) once, counts added up."""
    if not len(rows):
        return rows
    order = _order_by_key(rows.keys_0, rows.keys_1)
    keys_0, keys_1, token_ids = rows.keys_0[order], rows.keys_1[order], rows.token_ids[order]
    is_new = new_keys(keys_0, keys_1)
    counts = rows.counts[order] if rows.counts.strides[0] else rows.counts
    if is_new.all():
        return CountRows(keys_0=keys_0, keys_1=keys_1, token_ids=token_ids, counts=counts)
    return _add_up(keys_0, keys_1, token_ids, counts, is_new)


def ones(length: int) -> np.ndarray:
    """Counts of rows that are one position each, without the memory: a view of a single 1."""
    return np.broadcast_to(np.uint32(1), length)


def _order_by_key(keys_0: np.ndarray, keys_1: np.ndarray) -> np.ndarray:
    """Order of rows by (word 0, word 1), int64 [E]; rows with one key in any order."""
    bits = np.uint64(max(1, (len(keys_0) - 1).bit_length()))
    packed = (keys_0 >> bits) << bits
    packed |= np.arange(len(keys_0), dtype=np.uint64)
    packed.sort()
    order = (packed & np.uint64((1 << int(bits)) - 1)).view(np.int64)
    packed >>= bits
    ties = packed[1:] == packed[:-1]
    if not ties.any():
        return order
    # Most ties are one key seen often. Those with different keys share their high bits by accident: a handful.
    sorted_0, sorted_1 = keys_0[order], keys_1[order]
    differs = ties & ((sorted_0[1:] != sorted_0[:-1]) | (sorted_1[1:] != sorted_1[:-1]))
    if not differs.any():
        return order
    group = np.zeros(len(order), dtype=np.int64)
    np.cumsum(~ties, out=group[1:])
    mixed = np.zeros(group[-1] + 1, dtype=bool)
    mixed[group[1:][differs]] = True
    members = np.flatnonzero(mixed[group])
    order[members] = order[members][np.lexsort((sorted_1[members], sorted_0[members]))]
    return order


def _add_up(
    keys_0: np.ndarray, keys_1: np.ndarray, token_ids: np.ndarray, counts: np.ndarray, is_new: np.ndarray
) -> CountRows:
    """Entries sorted by key: sort tokens within a key, and add the counts of equal ones up."""
    # Only keys with more than one entry need it.
    is_last = np.append(is_new[1:], True)
    repeated = np.flatnonzero(~(is_new & is_last))
    group = np.cumsum(is_new[repeated], dtype=np.uint64)
    packed = (group << np.uint64(32)) | token_ids[repeated].astype(np.uint64)
    within = np.argsort(packed)
    source = repeated[within]
    packed = packed[within]
    token_ids, counts = token_ids.copy(), counts.astype(np.int64)
    token_ids[repeated], counts[repeated] = token_ids[source], counts[source]
    starts_entry = is_new.copy()
    starts_entry[repeated[1:]] = packed[1:] != packed[:-1]
    heads = np.flatnonzero(starts_entry)
    return CountRows(
        keys_0=keys_0[heads], keys_1=keys_1[heads], token_ids=token_ids[heads], counts=np.add.reduceat(counts, heads)
    )
