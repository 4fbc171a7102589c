"""`athlos ask` with `method=start`: the answer with its citations, and a mark for each sentence."""

import json
from pathlib import Path

from tests.generation.compatible_server import MODEL, running

ANSWER = "The mayor of Rome is Livia Carta [1]. Livia Carta was born in Rome [2]."


def test_an_answer_is_shown_with_its_citations_and_a_mark_for_each_sentence(tmp_path: Path, run, cache):
    notes = tmp_path / "notes"
    notes.mkdir()
    (notes / "rome.md").write_text("The mayor of Rome is Livia Carta.\n", encoding="utf-8")
    (notes / "people.txt").write_text("The mayor was born in Ostia.\n", encoding="utf-8")
    choice = {"index": 0, "finish_reason": "stop", "text": ANSWER, "message": {"role": "assistant", "content": ANSWER}}
    with running() as server:
        server.answer = lambda path, body: {
            "choices": [choice],
            "usage": {"prompt_tokens": 9, "completion_tokens": 9},
        }
        code, out, error = run(
            "ask",
            "Who is the mayor of Rome?",
            "method=start",
            "prompt_style=cited",
            "judge@reward.judge=overlap",
            "corpus=files",
            f"corpus.path={notes}",
            "engine=openai",
            "engine.log_probs=false",
            f"engine.base_url={server.url}",
            f"engine.model={MODEL}",
        )
    assert code == 0, error
    assert "Document [1]" in json.dumps(server.bodies), "the prompt numbers the documents"
    lines = out.splitlines()
    place = next(at for at, line in enumerate(lines) if line.startswith("answer"))
    assert lines[place].endswith(ANSWER)
    assert lines[place + 1 : place + 3] == [
        "  supported by [1] rome.md#1: The mayor of Rome is Livia Carta.",
        "  not supported by [2] people.txt#1: Livia Carta was born in Rome.",
    ]
