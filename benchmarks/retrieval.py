"""How fast passages are found: BM25 over 3,000 passages, and a translation memory of 3,000 and of 100,000 units.

    python benchmarks/retrieval.py [--data <folder of multihop_200 and po_tm>] [--queries N]

Without `--data` words are drawn by Zipf's law and grouped into sentences that recur with changes; with it the passages
and questions of MuSiQue and the sources of po_tm are taken, and the large memory is made of changed ones. One thread.

search_per_s   searches of the whole room, passages read, ten a query; `equal_top10`: whether the lists are bm25s's own,
               where equal scores may change places
fuzzy_per_s    matches a second in 3,000 units through the shortlist, five a query
fuzzy_ratio    at 100,000 units, shortlist and match over comparing all, queries a second; `fuzzy_recall` is the share
               of the queries whose best score the shortlist keeps

Ends in one JSON line.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bm25s import BM25

from athlos.retrieval.analysers import words
from athlos.retrieval.config import FuzzyIndexConfig, LexicalIndexConfig, Prefilter
from athlos.retrieval.corpus import GivenCorpus
from athlos.retrieval.fuzzy import FuzzyIndex
from athlos.retrieval.interface import CorpusPassage, Passage
from athlos.retrieval.lexical import LexicalIndex
from athlos.stages import StageStore
from athlos.text.fuzzy import MatchUnit

NUM_PASSAGES, NUM_UNITS, NUM_MANY_UNITS = 3_000, 3_000, 100_000
VOCABULARY = 20_000
TOP = 10
REPEATS = 3
"""Times that each search is timed; the fastest counts, for other work on the machine only slows it."""
Texts = list[str]


def zipf_texts(count: int, *, low: int, high: int, rng: np.random.Generator) -> Texts:
    """Texts of `low` to `high` words."""
    probs = 1 / np.arange(1, VOCABULARY + 1)
    lengths = rng.integers(low, high + 1, size=count)
    drawn = rng.choice(VOCABULARY, size=int(lengths.sum()), p=probs / probs.sum())
    ends = np.cumsum(lengths)
    return [
        " ".join(f"w{word}" for word in drawn[end - length : end]) for end, length in zip(ends, lengths, strict=True)
    ]


def musique(folder: Path) -> tuple[Texts, Texts]:
    """(passages, questions)."""
    rows = [json.loads(line) for line in (folder / "multihop_200/musique_200.json").read_text("utf-8").splitlines()]
    paragraphs = (paragraph for row in rows for paragraph in row["paragraphs"])
    texts = dict.fromkeys(f"{one['title']} {one['paragraph_text']}" for one in paragraphs)
    return list(texts), [row["question"] for row in rows]


def po_sources(folder: Path) -> Texts:
    """English sources of 3 to 60 words of all pairs, each once."""
    lines = [
        line for path in sorted((folder / "po_tm").glob("en-*.tsv")) for line in path.read_text("utf-8").split("\n")
    ]
    sources = dict.fromkeys(line.split("\t")[1] for line in lines if line.count("\t") == 2)
    return [source for source in sources if 3 <= len(source.split()) <= 60]


def changed(text: str, known: Sequence[str], rng: random.Random) -> str:
    """A text after one change or more, of half of its words at most: another word, one more or one less."""
    changes = text.split()
    for _ in range(rng.randint(1, max(1, len(changes) // 2))):
        place, kind = rng.randrange(len(changes)), rng.random()
        if kind < 0.4:
            changes[place] = rng.choice(known)
        elif kind < 0.7 and len(changes) > 3:
            del changes[place]
        else:
            changes.insert(place, rng.choice(known))
    return " ".join(changes)


def many(texts: Texts, count: int, rng: random.Random) -> Texts:
    """So many different texts: these, and changed ones of them."""
    known = [word for text in texts for word in text.split()]
    found = dict.fromkeys(texts)
    while len(found) < count:
        found[changed(rng.choice(texts), known, rng)] = None
    return list(found)[:count]


def corpus(texts: Texts) -> GivenCorpus:
    return GivenCorpus([CorpusPassage(identifier=str(row), text=text) for row, text in enumerate(texts)])


def rate(search: Callable[[], Any], count: int) -> float:
    """Queries a second of processor time, which other work on the machine changes less than the clock's."""
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        search()
        seconds.append(time.process_time() - start)
    return count / min(seconds)


def lexical_arm(texts: Texts, queries: Texts, stages: StageStore) -> dict[str, Any]:
    index = LexicalIndex(LexicalIndexConfig(k1=1.2, b=0.75), corpus=corpus(texts), stages=stages)
    found = index.search(queries, k=TOP)
    model = BM25(method="lucene", k1=1.2, b=0.75)
    model.index([words(text) for text in texts], show_progress=False)
    tokens = [list(dict.fromkeys(words(query))) for query in queries]

    def by_bm25s() -> tuple[np.ndarray, np.ndarray]:
        return model.retrieve(tokens, k=TOP, show_progress=False)

    return {
        "search_per_s": rate(lambda: index.search(queries, k=TOP), len(queries)),
        "bm25s_per_s": rate(by_bm25s, len(queries)),
        "equal_top10": all(map(is_equal, found, *by_bm25s())),
    }


def is_equal(hits: Sequence[Passage], rows: np.ndarray, scores: np.ndarray) -> bool:
    """Whether a list has bm25s's scores, and its rows but for those that share the last score; 0 is no hit."""
    ours = {hit.identifier: hit.score for hit in hits}
    theirs = {str(row): score for row, score in zip(rows, scores, strict=True) if score > 0}
    if not np.allclose(list(ours.values()), list(theirs.values()), rtol=1e-5, atol=0):
        return False
    least = min(theirs.values(), default=0.0)
    return {row for row, score in theirs.items() if score > least * 1.00001} <= ours.keys()


def fuzzy_arm(texts: Texts, queries: Texts, prefilter: Prefilter, stages: StageStore) -> tuple[float, np.ndarray]:
    """(matches a second, best score of each query)."""
    config = FuzzyIndexConfig(unit=MatchUnit.word, prefilter=prefilter, candidates=500)
    index = FuzzyIndex(config, corpus=corpus(texts), stages=stages)
    best = np.array([max((hit.score for hit in hits), default=0.0) for hits in index.search(queries, k=5)])
    return rate(lambda: index.search(queries, k=5), len(queries)), best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=None)
    parser.add_argument("--queries", type=int, default=200)
    options = parser.parse_args()
    rng, generator = random.Random(0), np.random.default_rng(0)
    if options.data is None:
        passages = zipf_texts(NUM_PASSAGES, low=30, high=120, rng=generator)
        questions = zipf_texts(options.queries, low=5, high=20, rng=generator)
        units = many(zipf_texts(NUM_UNITS // 2, low=3, high=20, rng=generator), NUM_UNITS, rng)
    else:
        passages, questions = musique(options.data)
        units = many(po_sources(options.data), NUM_UNITS, rng)
    passages, questions = passages[:NUM_PASSAGES], questions[: options.queries]
    known = [word for text in units for word in text.split()]
    queries = [changed(rng.choice(units), known, rng) for _ in range(options.queries)]
    with tempfile.TemporaryDirectory() as folder:
        stages = StageStore(Path(folder))
        figures = lexical_arm(passages, questions, stages)
        print(f"BM25 over {len(passages):,} passages: {figures}", flush=True)
        figures["fuzzy_per_s"], _ = fuzzy_arm(units, queries, Prefilter.bm25, stages)
        print(f"fuzzy match in {len(units):,} units: {figures['fuzzy_per_s']:.0f} a second", flush=True)
        memory = many(units, NUM_MANY_UNITS, rng)
        short, short_best = fuzzy_arm(memory, queries, Prefilter.bm25, stages)
        all_pairs, best = fuzzy_arm(memory, queries, Prefilter.all, stages)
        print(f"in {len(memory):,} units: {short:.0f} a second, comparing all {all_pairs:.0f}", flush=True)
    figures |= {"fuzzy_ratio": short / all_pairs, "fuzzy_recall": float((short_best >= best).mean())}
    print(json.dumps({key: value if isinstance(value, bool) else round(value, 3) for key, value in figures.items()}))


if __name__ == "__main__":
    main()
