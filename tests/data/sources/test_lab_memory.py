"""The lab's translation memories as a data source: buckets that hold, and words that the tokenizer knows."""

from collections import Counter

import pytest

from athlos.config.compose import run_config
from athlos.data.datamodule import build_source
from athlos.data.records import InstructionRecord, ParallelRecord
from athlos.errors import ConfigError, DataError
from athlos.methods.tm.scores import bucket_of
from athlos.models.tokenizers import word_tokenizer
from athlos.text.fuzzy import fuzzy_match_score, match_units

LAB = [
    "data=lab_memory",
    "prompt_style=bare",
    "model=lab/tm",
    "data.num_train=30",
    "data.num_val=5",
    "data.memory.memory_size=60",
    "data.memory.num_queries=20",
]


def source(*overrides: str):
    return build_source(run_config([*LAB, *overrides]))


def test_the_bucket_of_a_query_is_that_of_its_best_pair():
    data = source()
    memory = [match_units(pair.source, language="latn", strip_punctuation=True) for pair in data.read("memory")]
    queries = list(data.read("test"))
    for query in queries:
        assert isinstance(query, ParallelRecord)
        words = match_units(query.source, language="latn", strip_punctuation=True)
        best = max(fuzzy_match_score(words, other) for other in memory)
        assert best == pytest.approx(query.meta["score"])
        assert bucket_of(best) == query.meta["bucket"]
    assert Counter(query.meta["bucket"] for query in queries) == dict.fromkeys(range(5), 4)


def test_the_target_is_the_oracle_translation():
    data = source()
    for pair in [*data.read("test"), *data.read("memory")]:
        assert data.languages.translate(pair.source, source="latn", target="cyrl") == pair.target


def test_the_word_list_has_every_word_of_every_split():
    data = source()
    tokenizer = word_tokenizer(data.words())
    texts = [text for pair in [*data.read("test"), *data.read("memory")] for text in (pair.source, pair.target)]
    for item in [*data.read("train"), *data.read("val")]:
        assert isinstance(item, InstructionRecord)
        texts.append(item.prompt + item.completion)
    for text in texts:
        pieces = tokenizer.tokenize(text)
        assert not [piece for piece in pieces if piece.startswith("<0x")]
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_pairs_in_another_language_have_the_same_sources():
    pairs = {pair.identifier: pair for pair in source().read("memory")}
    other = {pair.identifier: pair for pair in source("data.target_language=grek").read("memory")}
    assert {key: pair.source for key, pair in pairs.items()} == {key: pair.source for key, pair in other.items()}
    assert all(pairs[key].target != other[key].target for key in pairs)


def test_a_dial_of_the_memory_is_in_the_fingerprint():
    assert source().fingerprint("test") == source("data.limit_test=3").fingerprint("test")
    assert source().fingerprint("test") != source("data.memory.target_noise=0.5").fingerprint("test")
    with pytest.raises(DataError, match="data=lab_memory has no split 'tset'; did you mean 'test'"):
        source().fingerprint("tset")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.languages=[latn,xxxx]", "data.languages: got 'xxxx'"),
        ("data.target_language=hani", "data.target_language: got 'hani'"),
        ("data.target_language=latn", "the same as data.source_language"),
        ("data.memory.unseen_words=2", "data.memory.unseen_words: got 2"),
        ("data.fresh_terms=true data.languages=[latn,hani] data.target_language=hani", "writes its words together"),
        ("prompt_style=default", "prompt_style: got 'default', data=lab_memory needs bare"),
    ],
)
def test_wrong_values_are_refused(override: str, message: str):
    with pytest.raises(ConfigError) as caught:
        run_config([*LAB, *override.split()])
    assert message in str(caught.value)


def test_fresh_terms_are_the_same_within_a_prompt_and_others_in_the_next():
    """Each thing has one word in all pairs of a prompt; sources and all other words stay."""
    plain, fresh = (list(source(f"data.fresh_terms={value}").read("train")) for value in ("false", "true"))
    mappings = []
    for before, after in zip(plain, fresh, strict=True):
        texts = [(item.prompt + item.completion).replace("[", " [ ").replace("]", " ] ") for item in (before, after)]
        old, new = (text.replace(".", " .").replace("?", " ?").split() for text in texts)
        mapping = {}
        for word, other in zip(old, new, strict=True):
            assert mapping.setdefault(word, other) == other
        assert len(set(mapping.values())) == len(mapping)
        mappings.append({word: other for word, other in mapping.items() if word != other})
    assert all(not word.isascii() for mapping in mappings for word in mapping)
    assert sum(map(len, mappings)) > 30
    assert len({mapping[word] for mapping in mappings for word in mapping if word in mappings[0]}) > len(mappings[0])
