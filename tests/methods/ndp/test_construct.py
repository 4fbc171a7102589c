"""The construction on a small table of translations: products, shards, resuming, builders, domain text, bad values."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.assembled import loaded
from tests.methods.ndp import reference
from tests.methods.ndp.test_relational import group_with_duckdb
from tests.tolerances import FLOAT32

from athlos.config.compose import run_config
from athlos.data.datamodule import DataModule
from athlos.data.encoding import Rows
from athlos.errors import ConfigError, DataError
from athlos.methods.ndp import construct, products, relational
from athlos.methods.ndp.building import sup_rows
from athlos.methods.ndp.config import NdpConstructConfig, NdpObjectiveConfig
from athlos.methods.ndp.construct import NdpConstruct
from athlos.methods.ndp.corpora import first_of_each, is_clean, text_hash, training_rows
from athlos.methods.ndp.hashing import segment_totals
from athlos.methods.ndp.reading import NdpTables, TargetStore, write_targets
from athlos.methods.ndp.tables import ARRAYS, CountTable
from athlos.models.tokenizers import byte_tokenizer
from athlos.parts import PartContext
from athlos.stages import StageStore

PAIRS = [
    ("Save", "Sichern"),
    ("Save all", "Alles sichern"),
    ("Open", "Öffnen"),
    ("Open file", "Datei öffnen"),
    ("Close", "Schließen"),
    ("Close file", "Datei schließen"),
    ("Save", "Sichern"),
    ("Print", "Drucken"),
]
OVERRIDES = [
    "construct=ndp",
    "data=parallel_tsv",
    "data.train_split=all",
    "train.batching=bucket",
    "construct.threads=1",
]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    lines = ["en\tde", *("\t".join(pair) for pair in PAIRS)]
    (folder / "en-de.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def context_of(data_dir: Path, cache: Path, *overrides: str) -> PartContext:
    config = run_config([*OVERRIDES, f"data.dir={data_dir}", *overrides])
    stages, tokenizer = StageStore(cache), byte_tokenizer()
    # The prompt is the source and an arrow, so that what belongs to which part is plain.
    data = DataModule(config, tokenizer=tokenizer, stages=stages, text_of=texts_of)
    return PartContext(config=config, stages=stages, data=data, start=loaded(None, tokenizer))


def texts_of(record: Any) -> tuple[str, str]:
    return (f"{record.source}>", record.target) if hasattr(record, "source") else ("", record.text.strip())


def made(context: PartContext) -> tuple[NdpTables, dict[str, float]]:
    assert isinstance(context.config.construct, NdpConstructConfig)
    what = NdpConstruct(context.config.construct).build(context=context)
    assert isinstance(what.product, NdpTables)
    return what.product, what.report.metrics


def samples(pairs: list[tuple[str, str]]) -> list[reference.Sample]:
    end = byte_tokenizer().eos_token_id
    found = []
    for source, target in pairs:
        prompt, answer = [*f"{source}>".encode()], [*target.encode(), end]
        found.append((prompt + answer, [-100] * len(prompt) + answer))
    return found


def assert_holds(table: CountTable, expected: reference.Counts) -> None:
    assert table.num_rows == len(expected)
    keys = np.concatenate([segment_totals(np.array(key, dtype=np.int64), np.array([len(key)])) for key in expected])
    offsets, ids, counts = table.gather(table.lookup(keys))
    for key, start, stop in zip(expected, offsets[:-1], offsets[1:], strict=True):
        found = dict(zip(ids[start:stop].tolist(), counts[start:stop].tolist(), strict=True))
        assert Counter(found) == expected[key]


def bytes_of(table: CountTable) -> list[bytes]:
    return [(table.folder / f"{name}.npy").read_bytes() for name in ARRAYS]


@pytest.mark.parametrize("dedup", [True, False])
@pytest.mark.parametrize("n", [0, 2])
def test_tables_hold_the_brute_force_counts(data_dir: Path, tmp_path: Path, n: int, dedup: bool) -> None:
    context = context_of(data_dir, tmp_path, f"construct.n={n}", f"construct.dedup={dedup}")
    tables, metrics = made(context)
    rows = samples(list(dict.fromkeys(PAIRS)) if dedup else PAIRS)
    assert_holds(tables.sup, reference.sup_counts(rows))
    assert_holds(tables.clm, reference.clm_counts(rows, n=n))
    assert (tables.n, tables.joins_first) == (n, False)
    assert metrics["ndp/repeated_rows"] == int(dedup)
    assert metrics["ndp/sup_prefixes"] == tables.sup.num_rows
    assert metrics["cost/table_mb"] == pytest.approx((tables.sup.num_bytes + tables.clm.num_bytes) / (1 << 20))


def test_repeats_count_in_official_tables() -> None:
    """Three equal rows and one other after the same prefix: the official table has {5: 3, 6: 1}, ours once each."""
    rows = [([1, 2, 5], [-100, -100, 5])] * 3 + [([1, 2, 6], [-100, -100, 6])]
    lengths = np.full(4, 3)
    table = Rows(
        tokens_T=np.array([token for tokens, _ in rows for token in tokens], dtype=np.int32),
        is_target_T=np.array([label != -100 for _, labels in rows for label in labels]),
        starts_R=np.cumsum(lengths) - lengths,
        ends_R=np.cumsum(lengths),
        num_targets_R=np.ones(4, dtype=np.int64),
    )
    for dedup, expected in ((False, {5: 3, 6: 1}), (True, {5: 1, 6: 1})):
        corpus = training_rows(table, shard_tokens=100, dedup=dedup).shard(0)
        found = sup_rows(corpus)
        assert Counter(found.token_ids.tolist()) == expected
    official = run_config(["experiment=ndp/paper", "dry_run=true"])
    assert isinstance(official.construct, NdpConstructConfig)
    assert official.construct.dedup is False
    assert official.construct.slide.backoff == 0


def test_rows_with_other_targets_are_no_repeats() -> None:
    """The same tokens with another prompt: what is predicted differs, so both rows count and both are trained on."""
    is_target = np.array([[0, 1, 1], [0, 0, 1], [0, 1, 1]], dtype=bool)
    lengths = np.full(3, 3)
    rows = Rows(
        tokens_T=np.array([1, 2, 5] * 3, dtype=np.int32),
        is_target_T=is_target.flatten(),
        starts_R=np.cumsum(lengths) - lengths,
        ends_R=np.cumsum(lengths),
        num_targets_R=is_target.sum(1),
    )
    assert training_rows(rows, shard_tokens=100, dedup=True).kept_R.tolist() == [True, True, False]


def test_a_second_run_finds_the_products(data_dir: Path, tmp_path: Path) -> None:
    first, _ = made(context_of(data_dir, tmp_path))
    again = context_of(data_dir, tmp_path, "seed=2", "construct.shard_tokens=30", "construct.memory_mb=64")
    second, _ = made(again)
    assert (first.sup_key, first.clm_key) == (second.sup_key, second.clm_key)
    assert all(product.reused for product in again.stages.history)
    other, _ = made(context_of(data_dir, tmp_path, "construct.n=3"))
    assert other.sup_key == first.sup_key, "n says nothing of the supervised table"
    assert other.clm_key != first.clm_key


@pytest.mark.parametrize("overrides", [["construct.shard_tokens=30"], ["construct.spark_master=local"]])
def test_shards_and_spark_give_the_same_bytes(
    data_dir: Path, tmp_path: Path, overrides: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relational, "group_with_spark", group_with_duckdb)
    whole, _ = made(context_of(data_dir, tmp_path / "a"))
    other, _ = made(context_of(data_dir, tmp_path / "b", *overrides))
    assert bytes_of(whole.sup) == bytes_of(other.sup)
    assert bytes_of(whole.clm) == bytes_of(other.clm)
    assert (whole.sup_key, whole.clm_key) == (other.sup_key, other.clm_key)


def test_a_killed_build_goes_on(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []
    exact = products.count_chunks

    def dies_at_the_third(*args: Any, **kwargs: Any) -> CountTable:
        if len(counted) == 2:
            raise KeyboardInterrupt
        counted.append(kwargs["identity"].data)
        return exact(*args, **kwargs)

    monkeypatch.setattr(products, "count_chunks", dies_at_the_third)
    sharded = "construct.shard_tokens=30"
    with pytest.raises(KeyboardInterrupt):
        made(context_of(data_dir, tmp_path, sharded))
    done = list(counted)

    def notes(*args: Any, **kwargs: Any) -> CountTable:
        counted.append(kwargs["identity"].data)
        return exact(*args, **kwargs)

    monkeypatch.setattr(products, "count_chunks", notes)
    tables, _ = made(context_of(data_dir, tmp_path, sharded))
    assert not set(done) & set(counted[2:]), "shards that were done are not counted again"
    assert_holds(tables.clm, reference.clm_counts(samples(list(dict.fromkeys(PAIRS))), n=1))


def mono_overrides(folder: Path) -> list[str]:
    return ["+data@construct.mono=plain_text", f"construct.mono.dir={folder}", "construct.mono.unit=line"]


def test_domain_text_joins_the_answer_table_without_test_items(data_dir: Path, tmp_path: Path) -> None:
    many_tested = "data.split_shares={train: 0.2, val: 0.2, test: 0.6}"
    before = context_of(data_dir, tmp_path / "a", many_tested)
    assert before.data is not None
    held_out = next(iter(before.data.records("test"))).target  # type: ignore[attr-defined]
    mono = tmp_path / "mono"
    mono.mkdir()
    kept = ["Datei drucken", "Datei schließen und alles sichern, was noch offen ist"]
    (mono / "train.txt").write_text("\n".join([kept[0], f"  {held_out}", kept[1]]) + "\n", encoding="utf-8")
    tables, metrics = made(context_of(data_dir, tmp_path / "b", many_tested, *mono_overrides(mono)))
    assert metrics["ndp/mono_documents_left_out"] == 1
    rows = samples(list(dict.fromkeys(PAIRS)))
    longest = max(len(tokens) for tokens, _ in rows)
    documents = [[*text.encode(), byte_tokenizer().eos_token_id] for text in kept]
    assert len(documents[1]) > longest + 5, "a document longer than what is counted"
    expected = reference.added(reference.clm_counts(rows, n=1), reference.mono_counts(documents, n=1, longest=longest))
    assert_holds(tables.clm, expected)
    assert_holds(tables.sup, reference.sup_counts(rows))


def test_test_items_are_found_in_lines_and_whole_texts() -> None:
    held_out = {text_hash("a b"), text_hash("two\nlines")}
    assert is_clean("a b c\nd", held_out)
    assert not is_clean("x\n a  b \ny", held_out)
    assert not is_clean("two\nlines", held_out)
    assert is_clean("\n \n", {text_hash("")})


def test_running_text_is_an_answer_from_its_first_token(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("ab\n\nabc\n", encoding="utf-8")
    context = context_of(tmp_path, tmp_path / "cache", "data=plain_text", "data.train_split=train")
    tables, _ = made(context)
    assert tables.joins_first
    end = byte_tokenizer().eos_token_id
    rows = [[*b"ab", end], [*b"abc", end]]
    both = [(row, [-100, *row[1:]]) for row in rows]
    assert_holds(tables.clm, reference.clm_counts(both, n=1, joins_first=True))


def test_a_table_of_other_rows_is_refused(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A product whose inside does not fit its key: what was meant to be counted is compared, not trusted."""
    context = context_of(data_dir, tmp_path)
    tables, _ = made(context)
    meta = tables.clm.folder / "meta.json"
    meta.write_text(meta.read_text().replace(tables.clm.identity.tokenizer, "0" * 64), encoding="utf-8")
    with pytest.raises(DataError, match=f"tokenizer is '{'0' * 64}', expected '{tables.clm.identity.tokenizer}'"):
        made(context_of(data_dir, tmp_path))


def test_a_collision_stops_the_run(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(construct, "num_collisions", lambda *args, **kwargs: 1)
    with pytest.raises(DataError, match="1 different prefixes have the key of another"):
        made(context_of(data_dir, tmp_path))


def test_first_of_each() -> None:
    keys = np.array([[2, 1], [1, 1], [2, 1], [2, 2], [1, 1]], dtype=np.uint64)
    assert first_of_each(keys).tolist() == [True, True, False, True, False]


def test_golden_product(data_dir: Path, tmp_path: Path) -> None:
    """The bytes of version 1. Where they must change, raise `TABLE_VERSION` and write the new hash here."""
    tables, _ = made(context_of(data_dir, tmp_path))
    assert products.TABLE_VERSION == 1
    digests = [hashlib.sha256(b"".join(bytes_of(table))).hexdigest()[:16] for table in (tables.sup, tables.clm)]
    assert digests == ["c808340ca5f09f6e", "075f54ca25035bb1"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("construct.n=-1", "construct.n: got -1, expected an integer >= 0"),
        ("construct.memory_mb=63", "construct.memory_mb: got 63, expected an integer >= 64"),
        ("construct.shard_tokens=-1", "construct.shard_tokens: got -1, expected an integer >= 0"),
        ("construct.threads=-1", "construct.threads: got -1, expected an integer >= 0"),
        ("construct.collision_sample=-1", "construct.collision_sample: got -1, expected an integer >= 0"),
        ("train.batching=pack", "train.batching: got pack, but packed rows lose where answers begin"),
        ("data.train_split=null", "construct=ndp: counts the training split, and data=parallel_tsv names none"),
    ],
)
def test_bad_values_are_refused_at_once(data_dir: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_config([*OVERRIDES, f"data.dir={data_dir}", override])


def test_domain_text_without_a_split_is_refused(data_dir: Path) -> None:
    with pytest.raises(ConfigError, match=r"construct\.mono\.train_split: data=plain_text names no split"):
        run_config([*OVERRIDES, f"data.dir={data_dir}", *mono_overrides(data_dir), "construct.mono.train_split=null"])


def test_the_sliding_window_replaces_the_answer_side(data_dir: Path, tmp_path: Path) -> None:
    window = ["construct.slide.window=4", "construct.slide.backoff=0.3"]
    tables, _ = made(context_of(data_dir, tmp_path, *window))
    again, _ = made(context_of(data_dir, tmp_path, "construct.slide.window=4", "construct.slide.backoff=0.5"))
    assert tables.slide is not None
    assert again.slide is not None
    assert (again.slide.key, again.slide.backoff) == (tables.slide.key, 0.5), "a back-off reads, it does not count"
    context = context_of(data_dir, tmp_path, *window, "objective=ndp", "objective.lambda_=0.25")
    assert context.data is not None
    rows, config = context.data.rows("all"), context.config.objective
    assert isinstance(config, NdpObjectiveConfig)
    folder = tmp_path / "targets"
    folder.mkdir()
    write_targets(folder, tables, config, vocab_size=259)
    found = TargetStore(folder)
    corpus = training_rows(rows, shard_tokens=10_000, dedup=False).shard(0)
    window_side = tables.slide.distributions(corpus, vocab_size=259)
    for position, place in enumerate(np.flatnonzero(corpus.is_predicted_N)):
        dense = np.full(259, window_side.leak[position])
        span = slice(window_side.offsets[position], window_side.offsets[position + 1])
        dense[window_side.token_ids[span]] = window_side.probs[span]
        dense *= 0.75
        dense[corpus.tokens_N[place]] += 0.25  # the whole prefix was seen with one continuation
        span = slice(found.offsets_T[place], found.offsets_T[place + 1])
        mixed = np.full(259, found.leak_T[place], dtype=float)
        mixed[found.token_ids_K[span]] = found.probs_K[span]
        np.testing.assert_allclose(mixed, dense, atol=FLOAT32)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("construct.slide.window=-1", "construct.slide.window: got -1, expected an integer >= 0"),
        ("construct.slide.backoff=1", r"construct.slide.backoff: got 1.0, expected a number in \[0, 1\)"),
        ("construct.slide.additive=-1", "construct.slide.additive: got -1.0, expected a number >= 0"),
    ],
)
def test_bad_windows_are_refused(data_dir: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_config([*OVERRIDES, f"data.dir={data_dir}", override])
