"""A prompt that is cut keeps the token that stands before every text."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from athlos.config.schema import Batching
from athlos.data.encoding import cut_prompt, encode_split
from athlos.data.records import InstructionRecord
from athlos.stages import StageStore


@pytest.mark.parametrize(
    ("room", "prefix", "kept"),
    [(4, 7, [7, 1, 2, 3]), (3, 7, [7, 2, 3]), (1, 7, [7]), (3, None, [1, 2, 3]), (1, None, [3])],
)
def test_a_cut_prompt_keeps_its_end_and_what_stands_before_every_text(
    room: int, prefix: int | None, kept: list[int]
) -> None:
    assert cut_prompt([7, 1, 2, 3], room=room, prefix=prefix) == kept


def test_rows_of_a_split_keep_what_stands_before_every_text(tmp_path: Path) -> None:
    backend = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "a": 2, "b": 3, "c": 4}, unk_token="c"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    rows = encode_split(
        lambda: iter([InstructionRecord(identifier="r", prompt="a b a b a b", completion="c")]),
        text_of=lambda record: (record.prompt, record.completion),  # type: ignore[attr-defined]
        tokenizer=tokenizer,
        max_length=5,
        batching=Batching.bucket,
        inputs={},
        config={},
        stages=StageStore(tmp_path),
    )
    assert tokenizer.convert_ids_to_tokens(rows.row(0)[0].tolist()) == ["<s>", "a", "b", "c", "</s>"]
