"""`athlos ask`: what is shown of an answer, and one line for each mistake before anything heavy is loaded."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from athlos.cli.ask import told
from athlos.config.compose import run_config
from athlos.data.records import Passage
from athlos.generation.interface import Prediction
from athlos.runs.ask import Answered, ask, judged


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    folder = tmp_path / "notes"
    (folder / "deep").mkdir(parents=True)
    (folder / "rome.md").write_text("# Rome\nThe mayor of Rome is Livia Carta.\n", encoding="utf-8")
    (folder / "deep" / "people.txt").write_text("Livia Carta was born in Ostia.\n", encoding="utf-8")
    return folder


COUNTS = {"num_prompt_tokens": 1, "num_tokens": 1, "finished": True}
MODEL = ("engine=openai", "engine.base_url=http://127.0.0.1:9/v1", "engine.model=none")


@pytest.mark.parametrize(
    ("question", "overrides", "message"),
    [
        ("  ", ["corpus=files", "corpus.path={notes}", *MODEL], "the question is empty"),
        ("Who?", MODEL, "corpus: got none, but the index needs passages to search"),
        ("Who?", ["corpus=files", *MODEL], "corpus.path: no value; give one with corpus.path=..."),
        ("Who?", ["corpus=files", "corpus.path={notes}/no", *MODEL], "/no' is not a folder"),
        ("Who?", ["corpus=passages", "corpus.path={notes}/no", *MODEL], "/no' is not a file"),
        ("Who?", ["corpus=fils", *MODEL], "corpus: got 'fils'; did you mean 'files'?"),
        (
            "Who?",
            ["corpus=files", "corpus.pth={notes}", *MODEL],
            "corpus.pth: unknown key; did you mean 'corpus.path'?",
        ),
        ("Who?", ["corpus=files", "corpus.path={notes}", "index=none", *MODEL], "index: got none, but method.variant"),
        (
            "Who?",
            ["corpus=files", "corpus.path={notes}", "method=finetune", "index=none", *MODEL],
            "index: got none, but this method answers from passages that are searched",
        ),
        ("Who?", ["corpus=files", "corpus.path={notes}"], "model: got tiny_llama, whose weights are random; choose"),
        (
            "Who?",
            ["corpus=files", "corpus.path={notes}", "method.varian=naive", *MODEL],
            "did you mean 'method.variant'",
        ),
    ],
)
def test_each_mistake_is_one_line(run, notes, question, overrides, message):
    code, out, err = run("ask", question, *(override.format(notes=notes) for override in overrides))
    assert (code, out) == (2, "")
    assert message in err
    assert len([line for line in err.splitlines() if line.startswith("error:")]) == 1


@pytest.mark.parametrize(
    ("overrides", "code"),
    [
        (["corpus.path={notes}/absent", *MODEL], 2),
        (["corpus.path={notes}", "model=own", "model.source=dir:{notes}/no-model"], 4),
    ],
)
def test_a_mistake_is_told_without_torch(notes, overrides, code):
    words = ["ask", "Who?", "corpus=files", *(override.format(notes=notes) for override in overrides)]
    program = (
        "import sys; from athlos.cli.main import main; "
        f"code = main({words}); "
        "assert 'torch' not in sys.modules; sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (code, 1), done.stderr


def answered(text: str, trace: list[dict], **support) -> Answered:
    prediction = Prediction(
        identifier="q", text=text, num_prompt_tokens=1, num_tokens=1, log_prob=0.0, finished=True, trace=trace
    )
    return Answered(prediction=prediction, **support)


def test_the_steps_the_answer_its_sources_and_the_cost_are_shown():
    found = [{"id": f"a.md#{rank}", "rank": rank, "score": 1 / rank, "title": "Rome"} for rank in range(1, 13)]
    counts = {"num_prompt_tokens": 1000, "num_tokens": 5, "finished": True}
    trace = [
        {"purpose": "decompose", "question": "Q?", "prompt": "p", "reply": "1. A?\n2. B of #1?", **counts},
        {"purpose": "graph", "nodes": ["A?", "B of #1?"]},
        {"purpose": "search", "query": "A?", "language": "en", "k": 12, "passages": found},
        {"purpose": "read", "question": "A?", "prompt": "p", "reply": "", "read": ["a.md#1", "b.txt#1"], **counts},
        {"purpose": "search", "query": "B?", "language": None, "k": 2, "passages": []},
    ]
    lines = list(told("Q?", answered("Rome", trace), is_in_files=True))
    assert lines == [
        "question   Q?",
        "",
        "decompose   Q?",
        "  1. A?",
        "  2. B of #1?",
        "",
        "graph",
        "  nodes: ['A?', 'B of #1?']",
        "",
        "search (en)   A?",
        *(
            f"  {rank:>2}  a.md#{rank}   Rome   score {score}   file a.md"
            for rank, score in enumerate(
                ["1", "0.5", "0.3333", "0.25", "0.2", "0.1667", "0.1429", "0.125", "0.1111", "0.1"], start=1
            )
        ),
        "      and 2 more",
        "",
        "read, from 2 passages   A?",
        "  (no reply)",
        "",
        "search   B?",
        "      nothing found",
        "",
        "answer     Rome",
        "sources    a.md#1, b.txt#1",
        "cost       2 calls, 2 searches, 2,000 prompt tokens, 10 new tokens",
    ]
    earlier = {"purpose": "read", "prompt": "p", "reply": "x", "read": ["c.md#1"], **counts}
    assert (
        list(told("Q?", answered("Rome", [earlier, *trace]), is_in_files=True))[-2] == lines[-2]
    )  # what the answer rests on
    assert list(told("Q?", answered("x", []), is_in_files=False))[-2] == "sources    none: no passage was read"
    assert "file" not in "".join(told("Q?", answered("x", trace), is_in_files=False))


def test_each_sentence_is_marked_by_the_judge_named():
    documents = [Passage(title="", text="Rome is an old city."), Passage(title="", text="Ostia has a port.")]
    text = "Rome is old [1]. Rome has a port [2]. Ostia has a port. Naples is new. It is far [3]."
    found = judged(run_config(["judge=lexical"]), answered(text, []).prediction, documents, language="en")
    lines = list(
        told(
            "Q?",
            answered(
                text,
                [{"purpose": "read", "reply": text, "read": ["a#1", "b#1"], **COUNTS}],
                judge=found.judge,
                marks=found.marks,
            ),
            is_in_files=False,
        )
    )
    assert lines[-8:-2] == [
        "  supported by [1] a#1: Rome is old.",
        "  not supported by [2] b#1: Rome has a port.",
        "  supported by the passages together: Ostia has a port.",
        "  not supported by the passages together: Naples is new.",
        "  not supported by [3] (no such passage): It is far.",
        f"judge      {found.judge}",
    ]
    assert found.judge.startswith("lexical:")


@pytest.mark.parametrize(
    ("text", "judge", "documents"), [("unknown", "lexical", 1), ("x", "none", 1), ("x", "exact", 0)]
)
def test_a_refusal_and_an_answer_from_nothing_are_not_judged(text, judge, documents):
    found = judged(
        run_config([f"judge={judge}"]),
        answered(text, []).prediction,
        [Passage(title="", text="x")] * documents,
        language="en",
    )
    assert (found.judge, found.marks) == ("", [])


SMALL = ["model.architecture.hidden_size=16", "model.architecture.intermediate_size=16", "decoding.max_new_tokens=4"]
FROM_FOUND = ["index=lexical", "judge=overlap", "train.max_steps=0", "decoding=cad", *SMALL]


def test_a_method_without_a_pipeline_answers_from_what_is_found(notes, cache):
    run = run_config(["corpus=files", f"corpus.path={notes}", *FROM_FOUND])
    found = ask(run, "Who is the mayor of Rome?", language="en")
    search, read = found.prediction.trace
    assert search["language"] is None
    assert next((row["rank"], row["id"]) for row in search["passages"]) == (1, "rome.md#1")
    assert read["read"] == [row["id"] for row in search["passages"]]
    assert "Document [1]" in read["prompt"]
    assert found.prediction.text == read["reply"]
    assert found.prediction.num_tokens == 4


def test_passages_of_the_language_of_the_question_are_searched(tmp_path, cache):
    rows = [
        {"id": "1", "language": "en", "text": "Livia Carta is the mayor."},
        {"id": "2", "language": "de", "text": "Livia Carta ist die Bürgermeisterin."},
    ]
    path = tmp_path / "passages.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    run = run_config(["corpus=passages", f"corpus.path={path}", *FROM_FOUND])
    search, read = ask(run, "Wer ist Livia Carta?", language="de").prediction.trace
    assert search["language"] == "de"
    assert read["read"] == ["2"]
