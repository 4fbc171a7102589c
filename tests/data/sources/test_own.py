"""One's own data: formats, forms, splits, and what bad input is told."""

import csv
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from athlos.config.compose import run_config
from athlos.data.records import (
    ChatRecord,
    InstructionRecord,
    ParallelRecord,
    Passage,
    PreferenceRecord,
    QuestionRecord,
    Record,
    TextRecord,
)
from athlos.data.source import build_source
from athlos.data.sources.own import OwnSource
from athlos.errors import ConfigErrors, DataError
from athlos.models.tokenizers import byte_tokenizer

USER, ASSISTANT = {"role": "user", "content": "Wie?"}, {"role": "assistant", "content": "So."}
PAIRS = [{"prompt": f"What is {number}?", "completion": f" It is {number}, né."} for number in range(200)]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub_cache")


def source(path: Path | str, *overrides: str) -> OwnSource:
    made = build_source(run_config(["data=own", f"data.path={path}", *overrides]))
    assert isinstance(made, OwnSource)
    return made


def lines(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def everything(path: Path, *overrides: str) -> list[Record]:
    return list(
        source(path, "data.test_share=0", "data.val_split=null", "data.test_split=null", *overrides).read("train")
    )


def only(tmp_path: Path, row: dict[str, Any], *overrides: str) -> Record:
    [record] = everything(lines(tmp_path / "one.jsonl", [row]), *overrides)
    return record


# Formats


def write_table(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), delimiter="," if path.suffix == ".csv" else "\t")
        table.writeheader()
        table.writerows(rows)


WRITERS: dict[str, Callable[[Path, list[dict[str, str]]], object]] = {
    "a.jsonl": lines,
    "a.json": lambda path, rows: path.write_text(json.dumps(rows, indent=1), encoding="utf-8"),
    "a.csv": write_table,
    "a.tsv": write_table,
    "a.parquet": lambda path, rows: datasets.Dataset.from_list(rows).to_parquet(path),
    "saved": lambda path, rows: datasets.Dataset.from_list(rows).save_to_disk(path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_records(tmp_path: Path, name: str) -> None:
    rows = [{"prompt": 'Wie, "sehr"?', "completion": "Zwei\nZeilen 水"}, *PAIRS[:2]]
    WRITERS[name](tmp_path / name, rows)
    records = everything(tmp_path / name)
    assert [(record.prompt, record.completion) for record in records if isinstance(record, InstructionRecord)] == [
        (row["prompt"], row["completion"]) for row in rows
    ]
    assert len({record.identifier for record in records}) == 3


# Forms


@pytest.mark.parametrize(
    ("row", "overrides", "expected"),
    [
        ({"text": "Ein Satz.", "label": 3}, [], TextRecord(identifier="i", text="Ein Satz.")),
        ({"text": "Ein Satz.", "language": "de"}, [], TextRecord(identifier="i", language="de", text="Ein Satz.")),
        ({"prompt": "", "completion": "b"}, [], InstructionRecord(identifier="i", prompt="", completion="b")),
        (
            {"Frage": "a", "Antwort": "b", "text": "c"},
            ["data.fields={prompt: Frage, completion: Antwort}"],
            InstructionRecord(identifier="i", prompt="a", completion="b"),
        ),
        (
            {"prompt": [USER], "completion": [ASSISTANT]},
            [],
            ChatRecord(identifier="i", messages=[USER, ASSISTANT], num_given=1),
        ),
        ({"messages": [USER, ASSISTANT], "prompt": "x"}, [], ChatRecord(identifier="i", messages=[USER, ASSISTANT])),
        (
            {
                "conversations": [
                    {"from": "human", "value": "a"},
                    {"from": "gpt", "value": "b"},
                    {"from": "observation", "value": "c"},
                    {"from": "gpt", "value": "d"},
                ],
                "system": "s",
                "tools": '[{"name": "t"}]',
            },
            [],
            ChatRecord(
                identifier="i",
                messages=[
                    {"role": "system", "content": "s"},
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": "b"},
                    {"role": "tool", "content": "c"},
                    {"role": "assistant", "content": "d"},
                ],
                num_given=1,
                tools=[{"name": "t"}],
            ),
        ),
        (
            {"instruction": "Add.", "input": "1 2", "output": "3", "history": [["Hi", "Ho"]], "system": ""},
            [],
            ChatRecord(
                identifier="i",
                messages=[
                    {"role": "user", "content": "Hi"},
                    {"role": "assistant", "content": "Ho"},
                    {"role": "user", "content": "Add.\n1 2"},
                    {"role": "assistant", "content": "3"},
                ],
            ),
        ),
        (
            {"question": "q", "answers": ["a", "b"], "passages": ["p", {"title": "t", "text": "r"}]},
            [],
            QuestionRecord(
                identifier="i",
                question="q",
                answers=["a", "b"],
                passages=[Passage(title="", text="p"), Passage(title="t", text="r")],
            ),
        ),
        (
            {"question": "q", "answers": {"text": ["a"], "answer_start": [1]}, "context": "c"},
            [],
            QuestionRecord(identifier="i", question="q", answers=["a"], passages=[Passage(title="", text="c")]),
        ),
        (
            {"question": "q", "answer": "a"},
            ["data.fields={answers: answer}"],
            QuestionRecord(identifier="i", question="q", answers=["a"]),
        ),
        (
            {"de": "Haus", "en": "house", "text": "x"},
            ["data.source_language=de", "data.target_language=en"],
            ParallelRecord(identifier="i", language="en", source_language="de", source="Haus", target="house"),
        ),
        (
            {"quelle": "Haus", "en": "house"},
            ["data.source_language=de", "data.target_language=en", "data.fields={source: quelle}"],
            ParallelRecord(identifier="i", language="en", source_language="de", source="Haus", target="house"),
        ),
        (
            {"translation": {"de": "Haus", "en": "house"}},
            ["data.source_language=en", "data.target_language=de"],
            ParallelRecord(identifier="i", language="de", source_language="en", source="house", target="Haus"),
        ),
        (
            {"prompt": "p", "chosen": "c", "rejected": "r"},
            ["data.fields={prompt: prompt, completion: chosen}"],
            InstructionRecord(identifier="i", prompt="p", completion="c"),
        ),
        (
            {"prompt": "p", "chosen": "c", "rejected": "r"},
            [],
            PreferenceRecord(identifier="i", prompt="p", chosen="c", rejected="r"),
        ),
        (
            {"prompt": "Wie?", "chosen": [USER, ASSISTANT], "rejected": [USER, {"role": "assistant", "content": "?"}]},
            [],
            PreferenceRecord(
                identifier="i", prompt=[USER], chosen=[ASSISTANT], rejected=[{"role": "assistant", "content": "?"}]
            ),
        ),
        (
            {
                "conversations": [{"from": "human", "value": "Wie?"}],
                "chosen": {"from": "gpt", "value": "So."},
                "rejected": {"from": "gpt", "value": "?"},
            },
            [],
            PreferenceRecord(
                identifier="i", prompt=[USER], chosen=[ASSISTANT], rejected=[{"role": "assistant", "content": "?"}]
            ),
        ),
    ],
)
def test_columns_tell_the_form(tmp_path: Path, row: dict[str, Any], overrides: list[str], expected: Record) -> None:
    record = only(tmp_path, row, *overrides)
    assert record.identifier == "one.jsonl:1"
    expected.identifier = record.identifier
    assert record == expected


def test_an_implicit_prompt_is_that_of_trl(tmp_path: Path) -> None:
    extract_prompt = pytest.importorskip("trl").extract_prompt
    row = {
        "chosen": [USER, ASSISTANT, USER, ASSISTANT],
        "rejected": [USER, ASSISTANT, USER, {**ASSISTANT, "content": "?"}],
    }
    texts = {"chosen": "Human: Wie?\n\nAssistant: So.", "rejected": "Human: Wie?\n\nAssistant: Nicht so."}
    apart = {"chosen": "So.", "rejected": "Nicht so."}
    for index, pair in enumerate((row, texts, apart)):
        (tmp_path / str(index)).mkdir()
        record = only(tmp_path / str(index), pair)
        assert isinstance(record, PreferenceRecord)
        assert {name: getattr(record, name) for name in ("prompt", "chosen", "rejected")} == extract_prompt(pair)
    assert extract_prompt(texts)["prompt"] == "Human: Wie?\n\nAssistant:"


# Splits


def test_one_file_is_cut_in_three_by_what_a_record_asks(tmp_path: Path) -> None:
    twice = [*PAIRS, *({**row, "completion": " Again."} for row in PAIRS)]
    own = source(lines(tmp_path / "a.jsonl", twice))
    splits = {name: {record.prompt for record in own.read(name)} for name in ("train", "validation", "test")}
    assert set.union(*splits.values()) == {row["prompt"] for row in PAIRS}
    assert sum(map(len, splits.values())) == len(PAIRS)
    assert 8 < len(splits["test"]) < 40
    assert 8 < len(splits["validation"]) < 40
    assert sum(len(list(own.read(name))) for name in splits) == len(twice)
    moved = source(lines(tmp_path / "other" / "b.jsonl", list(reversed(twice))))
    assert {record.prompt for record in moved.read("test")} == splits["test"]


def test_a_larger_share_adds_records_to_the_test_and_takes_none_away(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", PAIRS)
    few = {record.prompt for record in source(path).read("test")}
    many = {record.prompt for record in source(path, "data.test_share=0.3").read("test")}
    assert few < many


@pytest.mark.parametrize(
    "names",
    [
        ("train.jsonl", "validation.jsonl", "test.jsonl"),
        ("train-00000-of-00001.jsonl", "dev.jsonl", "test_1.jsonl"),
        ("train/x.jsonl", "valid/y.jsonl", "test/z.jsonl"),
    ],
)
def test_files_of_a_folder_are_splits_by_their_names(tmp_path: Path, names: tuple[str, str, str]) -> None:
    for number, name in enumerate(names):
        lines(tmp_path / "set" / name, PAIRS[number : number + 2])
    (tmp_path / "set" / "README.md").write_text("train: no data", encoding="utf-8")
    own = source(tmp_path / "set")
    for number, split in enumerate(("train", "validation", "test")):
        assert [record.prompt for record in own.read(split)] == [row["prompt"] for row in PAIRS[number : number + 2]]
        assert [record.identifier for record in own.read(split)] == [f"{names[number]}:{line}" for line in (1, 2)]


def test_a_folder_without_a_validation_file_cuts_that_alone_from_train(tmp_path: Path) -> None:
    lines(tmp_path / "set" / "train.jsonl", PAIRS[:150])
    lines(tmp_path / "set" / "test.jsonl", PAIRS[150:])
    own = source(tmp_path / "set")
    splits = {name: [record.prompt for record in own.read(name)] for name in ("train", "validation", "test")}
    assert splits["test"] == [row["prompt"] for row in PAIRS[150:]]
    assert splits["validation"]
    assert sorted(splits["train"] + splits["validation"]) == sorted(row["prompt"] for row in PAIRS[:150])
    assert len(list(source(tmp_path / "set", "data.val_split=null").read("train"))) == 150


def test_a_saved_dictionary_has_the_splits_of_its_folders(tmp_path: Path) -> None:
    saved = datasets.DatasetDict(
        {name: datasets.Dataset.from_list(PAIRS[at : at + 1]) for at, name in enumerate(("train", "test"))}
    )
    saved.save_to_disk(tmp_path / "saved")
    own = source(tmp_path / "saved", "data.val_split=null")
    assert [record.prompt for name in ("train", "test") for record in own.read(name)] == [
        row["prompt"] for row in PAIRS[:2]
    ]
    assert [path.suffix for path in own.files("test")] == [".arrow"]


def test_without_a_share_there_is_no_test_split(tmp_path: Path) -> None:
    own = source(lines(tmp_path / "a.jsonl", PAIRS), "data.test_share=0")
    assert len(list(own.read("train"))) == len(PAIRS)
    with pytest.raises(DataError, match=r"a\.jsonl has no split 'test' but train; data\.test_share above 0 cuts one"):
        next(own.read("test"))
    with pytest.raises(DataError, match="split 'tset' is unknown; accepted: train"):
        next(own.read("tset"))


def test_the_fingerprint_is_that_of_content_and_split(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", PAIRS)
    own = source(path)
    elsewhere = source(lines(tmp_path / "b" / "a.jsonl", PAIRS))
    assert own.fingerprint("test") == elsewhere.fingerprint("test") != own.fingerprint("train")
    assert source(path, "data.test_share=0.2").fingerprint("train") != own.fingerprint("train")
    assert source(path, "data.fields={text: prompt}").fingerprint("train") != own.fingerprint("train")
    lines(path, PAIRS[1:])
    assert source(path).fingerprint("test") != elsewhere.fingerprint("test")


# The hub


def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that `datasets` reads in place of the hub's data set `lab/pairs`."""
    lines(tmp_path / "lab" / "pairs" / "train.jsonl", PAIRS[:3])
    lines(tmp_path / "lab" / "pairs" / "test.jsonl", PAIRS[3:5])
    for name in ("load_dataset", "get_dataset_split_names", "load_dataset_builder"):
        asked = getattr(datasets, name)
        monkeypatch.setattr(
            datasets, name, lambda repo, *args, _asked=asked, **options: _asked(str(tmp_path / repo), *args, **options)
        )


def test_a_name_with_an_owner_is_a_data_set_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repository(tmp_path, monkeypatch)
    own = source("lab/pairs", "data.val_split=null")
    assert [record.prompt for record in own.records("test")] == [row["prompt"] for row in PAIRS[3:5]]
    assert [record.identifier for record in own.records("train")] == ["pairs:1", "pairs:2", "pairs:3"]
    assert own.fingerprint("train") != own.fingerprint("test")


def test_offline_the_hub_is_refused_in_one_line() -> None:
    with pytest.raises(DataError, match=r"hub data set 'lab/pairs': cannot be read .*data\.path of data=own") as caught:
        next(source("lab/pairs").read("train"))
    assert "\n" not in str(caught.value)


# Bad input


def refused(path: Path, *overrides: str) -> str:
    with pytest.raises(DataError) as caught:
        everything(path, *overrides)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_not_there_is_told_with_what_is(tmp_path: Path) -> None:
    lines(tmp_path / "train.jsonl", PAIRS)
    assert "is no file and no folder; did you mean 'train.jsonl'?" in refused(tmp_path / "trian.jsonl")
    assert "there is no folder" in refused(tmp_path / "nowhere" / "a.jsonl")
    (tmp_path / "a.xlsx").touch()
    assert "unknown extension '.xlsx'; accepted: .jsonl" in refused(tmp_path / "a.xlsx")
    (tmp_path / "empty").mkdir()
    assert "no data file in the folder" in refused(tmp_path / "empty")
    (tmp_path / "empty" / "notes.md").touch()
    assert "it holds: notes.md" in refused(tmp_path / "empty")


def test_columns_without_a_form_are_listed_with_the_forms(tmp_path: Path) -> None:
    told = refused(lines(tmp_path / "a.jsonl", [{"Frage": "a", "Antwort": "b"}]))
    assert told.startswith(f"{tmp_path / 'a.jsonl'}:1: no form fits the columns Frage, Antwort; expected ")
    assert "prompt + completion; question + answers" in told
    assert "data.fields={prompt: question, completion: answer}" in told
    told = refused(lines(tmp_path / "a.jsonl", [{"de": "a", "en": "b"}]))
    assert "data.source_language=de data.target_language=en" in told
    told = refused(tmp_path / "a.jsonl", "data.fields={prompt: dee, completion: en}")
    assert "data.fields.prompt: no column 'dee'; did you mean 'de'?; there are: de, en" in told


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": 3, "completion": "b"}, "field 'prompt': expected str or list, got int"),
        ({"prompt": "a", "completion": ["b"]}, "field 'completion': expected str, got list"),
        ({"prompt": "a", "completion": " "}, "field 'completion': empty; data.on_bad=skip"),
        ({"prompt": "a"}, "field 'completion': missing"),
        ({"prompt": [USER], "completion": []}, "field 'completion': no messages"),
        ({"prompt": [USER, ASSISTANT], "completion": [USER]}, "field 'completion': no turn of the assistant"),
        ({"prompt": ["a"], "completion": [ASSISTANT]}, "field 'prompt[0]': expected a message with role and content"),
        (
            {"prompt": [{"role": "narrator", "content": "a"}], "completion": [ASSISTANT]},
            "field 'prompt[0]': role: got 'narrator', expected one of system, user, assistant, tool",
        ),
        (
            {"prompt": [{"speaker": "user", "content": "a"}], "completion": [ASSISTANT]},
            "field 'prompt[0]': role: got none among the keys speaker, content",
        ),
        (
            {"prompt": [{"role": ["user"], "content": "a"}], "completion": [ASSISTANT]},
            "field 'prompt[0]': role: got ['user']",
        ),
        (
            {"prompt": [{"role": "user", "content": 3}], "completion": [ASSISTANT]},
            "field 'prompt[0]': content: expected str, got int",
        ),
        ({"prompt": [{"role": "user"}], "completion": [ASSISTANT]}, "field 'prompt[0]': content: missing"),
        (
            {"prompt": [USER], "completion": [ASSISTANT], "tools": "[{"},
            "field 'tools': not JSON",
        ),
    ],
)
def test_a_bad_record_is_named_or_left_out(tmp_path: Path, row: dict[str, Any], told: str) -> None:
    path = lines(tmp_path / "a.jsonl", [PAIRS[0], row, PAIRS[1]])
    assert f"{path}:2 {told}" in refused(path)
    own = source(path, "data.on_bad=skip", "data.test_share=0")
    assert len(list(own.read("train"))) == 2
    assert len(list(own.read("train"))) == 2
    assert own.num_bad == 1


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"question": "q", "answers": [1]}, "field 'answers[0]': expected str, got int"),
        ({"question": "q", "answers": {"text": [2]}}, "field 'answers.text[0]': expected str, got int"),
        ({"question": "q", "answers": "a", "passages": [{"title": "t"}]}, "field 'passages[0]': expected a text, or"),
        ({"instruction": "q", "output": "a", "history": [["b"]]}, "field 'history[0]': expected a pair of texts"),
        ({"messages": []}, "field 'messages': no messages"),
        ({"messages": [USER]}, "field 'messages': no turn of the assistant"),
        ({"chosen": "a", "rejected": [ASSISTANT]}, "field 'rejected': expected a text beside a text"),
        ({"text": None}, "field 'text': expected str, got NoneType"),
    ],
)
def test_errors_name_the_field_of_each_form(tmp_path: Path, row: dict[str, Any], told: str) -> None:
    path = lines(tmp_path / "a.jsonl", [row])
    assert f"{path}:1 {told}" in refused(path)


def test_errors_name_the_column_and_the_row_of_other_formats(tmp_path: Path) -> None:
    datasets.Dataset.from_list([{"q": "a", "a": "b"}, {"q": "a", "a": ""}]).to_parquet(tmp_path / "a.parquet")
    told = refused(tmp_path / "a.parquet", "data.fields={prompt: q, completion: a}")
    assert told.startswith(f"{tmp_path / 'a.parquet'}:2 field 'a': empty")
    (tmp_path / "a.csv").write_text('prompt,completion\n"a\nb",c\nd\n', encoding="utf-8")
    assert refused(tmp_path / "a.csv") == f"{tmp_path / 'a.csv'}:4: 1 columns, the header has 2"


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv", "a.parquet"])
def test_an_empty_file_has_no_split(tmp_path: Path, name: str) -> None:
    if name.endswith("parquet"):
        datasets.Dataset.from_dict({"text": []}).to_parquet(tmp_path / name)
    else:
        (tmp_path / name).touch()
    assert refused(tmp_path / name) == f"data.path={tmp_path / name}: split 'train' is empty"


def test_a_share_that_leaves_nothing_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.test_share: got 0\.1, which leaves none of 2 records for 'test'"):
        list(source(lines(tmp_path / "a.jsonl", [PAIRS[0]] * 2)).read("test"))


@pytest.mark.parametrize("name", ["a.parquet", "saved"])
def test_a_broken_file_of_the_library_is_told_in_one_line(tmp_path: Path, name: str) -> None:
    if name == "saved":
        datasets.Dataset.from_list(PAIRS[:2]).save_to_disk(tmp_path / name)
        next((tmp_path / name).glob("*.arrow")).write_bytes(b"broken")
    else:
        (tmp_path / name).write_bytes(b"PAR1 broken")
    assert refused(tmp_path / name).startswith(f"{tmp_path / name}:1: cannot be read: ")


def test_paths_stay_in_the_folder(tmp_path: Path) -> None:
    secret = lines(tmp_path / "secret.jsonl", PAIRS)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.jsonl").symlink_to(secret)
    assert "leads out of data.path" in refused(tmp_path / "set")
    datasets.Dataset.from_list(PAIRS).save_to_disk(tmp_path / "other")
    datasets.Dataset.from_list(PAIRS).save_to_disk(tmp_path / "saved")
    state = json.loads((tmp_path / "saved" / "state.json").read_text())
    state["_data_files"][0]["filename"] = f"../other/{state['_data_files'][0]['filename']}"
    (tmp_path / "saved" / "state.json").write_text(json.dumps(state))
    assert "leads out of data.path" in refused(tmp_path / "saved")
    (tmp_path / "many").mkdir()
    (tmp_path / "many" / "dataset_dict.json").write_text('{"splits": ["../other"]}')
    assert "leads out of data.path" in refused(tmp_path / "many")
    (tmp_path / "many" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    assert refused(tmp_path / "many") == f"{tmp_path / 'many' / 'train'}: no such file or folder"
    (tmp_path / "many" / "dataset_dict.json").write_text("{}")
    assert "dataset_dict.json field 'splits': missing" in refused(tmp_path / "many")


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["+data.fields.promt=a"], "data.fields.promt: unknown key; did you mean 'prompt'?"),
        (["data.fields.source=a"], "data.fields.source, data.fields.target: set data.source_language and "),
        (["data.test_share=0.5"], "data.test_share: got 0.5, expected a number in [0, 0.5)"),
        (["data.dir=x"], "data.dir: got 'x', expected null: data=own reads data.path"),
        (["data.source_language=de"], "got de and None, expected two different codes, or neither"),
        (["data.source_language=de", "data.target_language=de"], "got de and de, expected two different codes"),
    ],
)
def test_wrong_values_are_refused_before_anything_is_read(overrides: list[str], told: str) -> None:
    with pytest.raises(ConfigErrors) as caught:
        run_config(["data=own", "data.path=a.jsonl", *overrides])
    assert told in str(caught.value)


def test_a_path_must_be_given() -> None:
    with pytest.raises(ConfigErrors, match=r"data\.path: no value; give one with data\.path="):
        run_config(["data=own"])


def test_a_file_is_streamed(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", [{"text": "x" * 1000}] * 20_000)
    own = source(path, "data.test_share=0")
    next(own.read("train"))  # imports
    tracemalloc.start()
    count = sum(1 for _ in own.read("train"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 20_000
    assert peak < 1_000_000 < path.stat().st_size


# From a file to an exported model


@pytest.mark.parametrize("choice", ["tuning=lora", "selection=layers"])
def test_a_file_becomes_an_evaluated_and_exported_model(tiny: list[str], run: Any, tmp_path: Path, choice: str) -> None:
    path = lines(tmp_path / "pairs.jsonl", PAIRS)
    shape = [override for override in tiny if not override.startswith(("data", "eval"))]
    code, out, _ = run(
        "run",
        *shape,
        "data=own",
        f"data.path={path}",
        "eval=completions",
        "eval.base=true",
        choice,
        "train.batching=bucket",
        "train.max_length=64",
        "train.lr=0.05",
    )
    assert code == 0
    folder = Path(out.splitlines()[-1])
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["test/nll"] < metrics["test/nll_base"]
    predictions = [json.loads(line) for line in (folder / "predictions" / "completions.jsonl").read_text().splitlines()]
    assert {item["id"] for item in predictions} == {record.identifier for record in source(path).read("test")}
    code, out, _ = run("export", str(folder), "--out", str(tmp_path / "mine"))
    assert code == 0
    assert (tmp_path / "mine" / "model.safetensors").is_file()


CHATML = (
    "{% for message in messages %}<bos>{{ message.role }}: {{ message.content }}<eos>\n{% endfor %}"
    "{% if add_generation_prompt %}<bos>assistant: {% endif %}"
)


def model_folder(path: Path, *, chat_template: str | None) -> Path:
    """A tiny random model of bytes, as a folder of the hub has it."""
    shape = LlamaConfig(
        vocab_size=259,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        eos_token_id=258,
    )
    LlamaForCausalLM(shape).save_pretrained(path)
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = chat_template
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture
def chat(tiny: list[str], tmp_path: Path) -> list[str]:
    """Overrides of a run on conversations of two turns each."""
    turns = [
        [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["completion"]}] * 2
        for row in PAIRS
    ]
    path = lines(tmp_path / "chats.jsonl", [{"messages": messages} for messages in turns])
    kept = [override for override in tiny if not override.startswith(("data", "eval", "model"))]
    return [
        *kept,
        "data=own",
        f"data.path={path}",
        "eval=completions",
        "selection=layers",
        "train.batching=bucket",
        "train.max_length=160",
        "train.lr=0.05",
        f"model.source=dir:{tmp_path / 'model'}",
        "model.tokenizer.kind=source",
        "model.architecture={}",
    ]


def test_conversations_are_trained_on_and_evaluated_by_the_model_s_template(
    chat: list[str], run: Any, tmp_path: Path
) -> None:
    model_folder(tmp_path / "model", chat_template=CHATML)
    code, out, _ = run("run", *chat, "eval.base=true")
    assert code == 0
    folder = Path(out.splitlines()[-1])
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["test/nll"] < metrics["test/nll_base"]
    [first, *_] = map(json.loads, (folder / "predictions" / "completions.jsonl").read_text().splitlines())
    [record] = [record for record in source(tmp_path / "chats.jsonl").read("test") if record.identifier == first["id"]]
    assert isinstance(record, ChatRecord)
    assert (
        first["tokens"]
        == sum(
            len(turn["content"].encode()) + 2  # its end of turn and the line end behind it
            for turn in record.messages[1::2]
        )
    )
    code, _, _ = run("export", str(folder), "--out", str(tmp_path / "mine"))
    assert code == 0
    assert AutoTokenizer.from_pretrained(tmp_path / "mine").chat_template == CHATML


def test_another_template_is_another_training(chat: list[str], run: Any, tmp_path: Path) -> None:
    keys = set()
    for template in (CHATML, CHATML.replace(": ", ">")):
        torch.manual_seed(0)  # the same weights both times
        model_folder(tmp_path / "model", chat_template=template)
        code, out, _ = run("run", *chat, "train.max_steps=1", f"run_dir={tmp_path / str(len(keys))}")
        assert code == 0
        provenance = json.loads((Path(out.splitlines()[-1]) / "provenance.json").read_text())
        keys |= {stage["key"] for stage in provenance["stages"] if stage["name"] == "training"}
    assert len(keys) == 2


def test_a_model_without_a_template_is_refused_with_the_cure(chat: list[str], run: Any, tmp_path: Path) -> None:
    model_folder(tmp_path / "model", chat_template=None)
    code, _, err = run("run", *chat, "data.on_bad=skip")
    assert code == 4
    [line] = [line for line in err.splitlines() if "no chat template" in line]
    assert "put chat_template.jinja into the model's folder" in line
