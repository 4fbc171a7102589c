"""The tokenizer of a closed list of words: what comes back, what continues what, and how text is cut."""

import re
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from athlos.data.records import Passage, QuestionRecord
from athlos.lab.chains import ChainConfig
from athlos.lab.pretraining import Example, MixtureConfig, training_examples, words
from athlos.lab.world import World, WorldConfig
from athlos.models.tokenizers import tokenizer_hash, word_tokenizer
from athlos.text.prompts import build_prompt, completion

PIECES = [
    " c",
    "at",
    " cat",
    " cats",
    " the",
    "s",
    " a",
    "ab",
    "abc",
    "cd",
    ".",
    ",",
    "?",
    "ไทย",
    " 12",
    " +",
    "山水",
    "水火",
]
TOKENIZER = word_tokenizer(PIECES)
NUM_FIXED = 3 + 256
MARK = "\u2581"
ANY_TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters=MARK), max_size=30)
LIKELY_TEXT = st.lists(st.sampled_from([*PIECES, " ", "  ", "b", "c", "水", "é", "\n", "x"]), max_size=12).map("".join)


def ids_of(text: str) -> list[int]:
    return TOKENIZER(text).input_ids


def pieces_of(text: str) -> list[str]:
    return [piece.replace(MARK, " ") for piece in TOKENIZER.convert_ids_to_tokens(ids_of(text))]


def begins_a_word(text: str) -> bool:
    """Whether the text's first character is of a script with spaces, told by another route than the tokenizer's."""
    return bool(re.match(r"[A-Za-z0-9\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u0370-\u052f]", text))


@given(ANY_TEXT | LIKELY_TEXT)
@settings(max_examples=300, deadline=None)
def test_text_comes_back(text: str) -> None:
    assume(not any(special in text for special in ("<pad>", "<bos>", "<eos>")))
    back = TOKENIZER.decode(ids_of(text))
    assert back == text or (text.startswith(" ") and back == text[1:])


@given(LIKELY_TEXT)
@settings(max_examples=200, deadline=None)
def test_a_leading_space_makes_no_difference_before_a_word_and_all_others_stay(text: str) -> None:
    if begins_a_word(text):
        assert ids_of(f" {text}") == ids_of(text)
    assert TOKENIZER.decode(ids_of(f"  {text}")) in (f"  {text}", f" {text}")


@given(st.text(alphabet="abcdst .", max_size=9) | LIKELY_TEXT.filter(str.isascii))
@settings(max_examples=300, deadline=None)
def test_each_word_is_cut_into_the_fewest_pieces(text: str) -> None:
    """Against all cuts, by the shortest path over what the list holds."""
    prepared = f" {text}" if begins_a_word(text) else text
    # No piece crosses a space, so words are cut one by one.
    expected = sum(fewest(word) for word in re.findall(r" [^ ]*|[^ ]+", prepared))
    assert len(ids_of(text)) == expected


def fewest(word: str) -> int:
    """Pieces and bytes of the best cut: as few uncovered characters as can be, then as few pieces."""
    known = {*PIECES, " "}
    best = [(0, 0)]
    for end in range(1, len(word) + 1):
        cuts = [best[start] for start in range(end) if word[start:end] in known]
        uncovered, count = best[end - 1]
        best.append(min([(bad, number + 1) for bad, number in cuts] + [(uncovered + 1, count + 1)]))
    return best[-1][1]


def test_examples_of_cuts() -> None:
    assert pieces_of("the cats") == [" the", " cats"]
    assert pieces_of("the cat.") == [" the", " cat", "."]
    assert pieces_of(".abcd") == [".", "ab", "cd"]
    assert pieces_of("12 + 12") == [" 12", " +", " 12"]
    assert pieces_of("山水水火ไทย?") == ["山水", "水火", "ไทย", "?"]


def test_what_no_piece_covers_becomes_bytes() -> None:
    ids = ids_of("é.")
    assert ids[-1] == TOKENIZER.convert_tokens_to_ids(".")
    raw = ids[1:-1]  # a space before the first letter
    assert TOKENIZER.convert_ids_to_tokens(raw) == ["<0xC3>", "<0xA9>"]
    assert [one - 3 for one in raw] == list("é".encode())
    assert TOKENIZER.unk_token is None
    assert TOKENIZER.decode(ids) == "é."


def test_ids_of_specials_bytes_and_pieces() -> None:
    assert (TOKENIZER.pad_token_id, TOKENIZER.bos_token_id, TOKENIZER.eos_token_id) == (0, 1, 2)
    assert TOKENIZER.convert_ids_to_tokens([0, 1, 2]) == ["<pad>", "<bos>", "<eos>"]
    assert TOKENIZER.convert_ids_to_tokens([3, 258]) == ["<0x00>", "<0xFF>"]
    spaced = [MARK, *(piece.replace(" ", MARK) for piece in PIECES)]
    assert TOKENIZER.convert_ids_to_tokens(range(NUM_FIXED, len(TOKENIZER))) == spaced
    assert ids_of("") == []
    padded = TOKENIZER(["the", "the cat"], padding=True)
    assert padded.input_ids[0][1:] == [0]
    assert padded.attention_mask[0] == [1, 0]
    assert TOKENIZER.decode([*ids_of("the cat"), 2, 0], skip_special_tokens=True) == "the cat"


def test_a_piece_named_twice_counts_once() -> None:
    assert len(word_tokenizer([" a", " a", " b"])) == NUM_FIXED + 3


def test_saving_keeps_ids(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    texts = ["the cats. abcd", " the", "山水水火ไทย?", "é \n x", "12 + 12"]
    assert again(texts).input_ids == TOKENIZER(texts).input_ids
    assert [again.decode(ids) for ids in again(texts).input_ids] == [TOKENIZER.decode(ids_of(text)) for text in texts]
    assert tokenizer_hash(again) == tokenizer_hash(TOKENIZER)
    assert (again.pad_token_id, again.bos_token_id, again.eos_token_id) == (0, 1, 2)


def test_another_list_is_another_tokenizer() -> None:
    assert tokenizer_hash(word_tokenizer(reversed(PIECES))) != tokenizer_hash(TOKENIZER)


# the texts of the lab world

MIXTURE = MixtureConfig(
    num_documents=300,
    num_recitals=100,
    num_sums=300,
    chain_repeats=4,
    chains=ChainConfig(
        num_train=[40, 5, 2],
        num_dev=[0, 0, 0],
        num_test=[2, 2, 2],
        num_train_comparisons=0,
        num_dev_comparisons=0,
        num_test_comparisons=0,
    ),
)


@pytest.fixture(scope="module")
def lab() -> tuple[PreTrainedTokenizerBase, list[Example]]:
    world = World(
        WorldConfig(
            num_persons=60,
            num_cities=30,
            num_states=6,
            num_none=10,
            num_rare=10,
            num_frequent=10,
            background_exposures=4,
            language_shares=[0.2] * 5,
        )
    )
    return word_tokenizer(words(world, MIXTURE)), list(training_examples(world, MIXTURE))


@pytest.mark.parametrize("code", ["latn", "cyrl", "grek", "thai", "hani"])
@pytest.mark.parametrize("kind", ["fact", "document", "recital", "sum", "chain"])
def test_an_answer_continues_its_prompt(lab, code: str, kind: str) -> None:
    """Ids of prompt and answer put together are those of the whole: what is trained is what is generated."""
    tokenizer, examples = lab
    chosen = [example for example in examples if (example.language, example.kind) == (code, kind)]
    assert chosen

    def encode(text: str) -> list[int]:
        return tokenizer(text).input_ids

    for example in chosen:
        passages = [Passage(title="", text=example.context, is_supporting=True)] if example.context else []
        record = QuestionRecord(
            identifier=example.identifier,
            language=code,
            question=example.question,
            answers=[example.answer],
            passages=passages,
        )
        asked, answered = build_prompt(record, shots=(), style="bare"), completion(record, style="bare")
        whole = encode(asked + answered)
        assert encode(asked) + encode(answered) == whole
        assert tokenizer.decode(whole) == asked + answered
        assert all(one >= NUM_FIXED for one in whole)


def test_a_lab_word_is_one_piece(lab) -> None:
    tokenizer, examples = lab
    spaced = [one for one in examples if one.language in ("latn", "cyrl", "grek") and one.kind in ("fact", "statement")]
    for example in spaced:
        text = example.question or example.answer
        assert len(tokenizer(text).input_ids) == len(re.findall(r"\w+|[^\w\s]", text))
