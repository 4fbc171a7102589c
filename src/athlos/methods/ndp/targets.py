"""Two distributions a position -> the target: mix, cap, weight, entropy. Pure functions on sparse rows.

N rows, K entries.
"""

import numpy as np

from athlos.methods.ndp.smoothing import Counts, Distributions, Floats, Ints, reduce_rows, spread


def mixed(sup: Distributions, clm: Distributions, *, sup_share: float, vocab_size: int) -> Distributions:
    """sup_share * sup + (1 - sup_share) * clm on the union of their tokens.

    A token that one side does not list has that side's leak; the leak of the mix is the mix of the leaks.
    """
    rows = np.concatenate([_rows_of(sup), _rows_of(clm)])
    keys = rows * vocab_size + np.concatenate([sup.token_ids, clm.token_ids])
    union, place = np.unique(keys, return_inverse=True)
    union_rows, token_ids = union // vocab_size, union % vocab_size
    sup_probs, clm_probs = sup.leak[union_rows], clm.leak[union_rows]
    num_sup = len(sup.token_ids)
    sup_probs[place[:num_sup]] = sup.probs
    clm_probs[place[num_sup:]] = clm.probs
    offsets = np.concatenate([[0], np.cumsum(np.bincount(union_rows, minlength=len(sup)))]).astype(np.int64)
    return Distributions(
        offsets=offsets,
        token_ids=token_ids,
        probs=sup_share * sup_probs + (1 - sup_share) * clm_probs,
        leak=sup_share * sup.leak + (1 - sup_share) * clm.leak,
    )


def _rows_of(distributions: Distributions) -> Ints:
    return np.repeat(np.arange(len(distributions)), np.diff(distributions.offsets))


def capped(distributions: Distributions, *, topk: int, vocab_size: int) -> Distributions:
    """The `topk` most probable tokens of each row, scaled so that rows sum to 1; the others have the leak. Ours.

    Of equal probabilities the lower token id stays.
    """
    rows = _rows_of(distributions)
    order = np.lexsort((distributions.token_ids, -distributions.probs, rows))
    rank = np.arange(len(order)) - np.repeat(distributions.offsets[:-1], np.diff(distributions.offsets))
    kept = np.sort(order[rank < topk])
    sizes = np.minimum(np.diff(distributions.offsets), topk)
    offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    probs = distributions.probs[kept]
    scale = (1.0 - (vocab_size - sizes) * distributions.leak) / reduce_rows(np.add, probs, offsets, empty=1.0)
    return Distributions(
        offsets=offsets,
        token_ids=distributions.token_ids[kept],
        probs=probs * spread(scale, offsets),
        leak=distributions.leak,
    )


def count_weights(counts: Counts, *, xmax: float, power: float) -> Floats:
    """f(c) = min(1, (c / xmax)^power) of each row's total, [N]. Source: code, option `weighted`."""
    return np.minimum(1.0, (counts.totals / xmax) ** power)


def entropies(distributions: Distributions, *, vocab_size: int) -> Floats:
    """Entropy of each row over the whole vocabulary, in nats, [N]."""
    listed = reduce_rows(np.add, _plogp(distributions.probs), distributions.offsets, empty=0.0)
    unseen = vocab_size - np.diff(distributions.offsets)
    return -(listed + unseen * _plogp(distributions.leak))


def _plogp(probs: Floats) -> Floats:
    return probs * np.log(np.where(probs > 0, probs, 1.0))
