"""What is trained on of the samples to a question: the best that passed, and the failures beside it.

    y+       argmax R over the samples that earn something
    y-_attr  of those with Attr < 1, the highest Compre: good content, bad support
    y-_comp  of those with Attr = 1, the lowest Compre, at least `min_gap` below that of y+

Source: our specification, 3.2.
"""

from collections.abc import Sequence

from athlos.methods.start.rewards import Sampled

ATTR, COMP = "attr", "comp"


def best(samples: Sequence[Sampled]) -> Sampled | None:
    """y+, the first of equals; None where no sample earns anything: a failed one would teach unsupported text."""
    earning = [sample for sample in samples if sample.is_read and sample.reward > 0]
    return max(earning, key=lambda sample: sample.reward, default=None)


def worse(
    chosen: Sampled, samples: Sequence[Sampled], *, kinds: Sequence[str], min_gap: float, others: Sequence[Sampled] = ()
) -> dict[str, Sampled]:
    """y- of each kind that there is one of. `others`, written with masked heads, may stand for y-_attr alone.

    A pair of one text, or of equal Attr and Compre, tells nothing and is left out.
    """
    failed = [
        sample for sample in (*samples, *others) if sample.is_read and sample.attr < 1 and _differs(chosen, sample)
    ]
    thin = [
        sample
        for sample in samples
        if sample.is_read and sample.attr == 1 and chosen.compre - sample.compre >= min_gap and _differs(chosen, sample)
    ]
    worse_by_kind = {}
    if ATTR in kinds and failed:
        worse_by_kind[ATTR] = max(failed, key=lambda sample: sample.compre)
    if COMP in kinds and thin:
        worse_by_kind[COMP] = min(thin, key=lambda sample: sample.compre)
    return worse_by_kind


def _differs(chosen: Sampled, other: Sampled) -> bool:
    return chosen.text != other.text and (chosen.attr, chosen.compre) != (other.attr, other.compre)
