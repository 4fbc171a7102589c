"""Questions solved side by side: the order of calls, shared batches, traces, and room for the next question."""

from collections.abc import Sequence
from typing import Any

import pytest
from tests.generation.tiny_models import tiny

from athlos.errors import ConfigError
from athlos.generation.config import NativeConfig
from athlos.generation.interface import Prediction, Request, Sample, SamplingRule
from athlos.generation.native import NativeEngine
from athlos.generation.pipeline import Ask, Search, Solver, SymbolicGenerator, in_chat_form, solve_together
from athlos.models.tokenizers import byte_tokenizer
from athlos.retrieval.interface import Passage


class Echo:
    """Replies with the last word of the prompt, which counts as one token a letter; remembers its batches."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.stops: list[tuple[str, ...]] = []

    def generate(self, prompts: Sequence[Any], *, rule: Any, num_samples: int = 1, stop: Sequence[str] = (), **_: Any):
        assert rule.temperature == 0
        self.batches.append([prompt.text for prompt in prompts])
        self.stops.append(tuple(stop))
        return [[self._sample(prompt.text, prompt.max_new_tokens)] for prompt in prompts]

    def _sample(self, text: str, max_new_tokens: int) -> Sample:
        word = text.split()[-1]
        return Sample(
            text=f" {word[:max_new_tokens]}\n",
            token_ids=[],
            log_probs=[],
            num_tokens=min(len(word), max_new_tokens),
            num_prompt_tokens=len(text.split()),
            finished=len(word) <= max_new_tokens,
        )


class Shelf:
    """Finds as many passages as wanted, named by language and query; remembers its batches."""

    key = "shelf"

    def __init__(self) -> None:
        self.batches: list[tuple[list[str], int, str]] = []

    def search(self, queries: Sequence[str], *, k: int, language: str | None = None) -> list[list[Passage]]:
        self.batches.append((list(queries), k, language))
        return [
            [Passage(identifier=f"{language}:{query}:{rank}", text=query, score=1 / rank) for rank in range(1, k + 1)]
            for query in queries
        ]


def two_hops(request: Request) -> Solver:
    """Asks in two languages at once, searches for both replies, and asks with what was found."""
    left, right = yield [
        Ask(purpose="en", prompt=f"in English: {request.prompt}", max_new_tokens=9),
        Ask(purpose="de", prompt=f"auf Deutsch: {request.prompt}", max_new_tokens=2),
    ]
    found, other = yield [
        Search(purpose="en", query=left, k=2, language="en"),
        Search(purpose="de", query=right, k=1, language="de"),
    ]
    (last,) = yield [Ask(purpose="read", prompt=f"{found[1].identifier} {other[0].text}", max_new_tokens=9)]
    return f"{left}-{last}"


def requests(*words: str) -> list[Request]:
    return [Request(identifier=f"q{number}", prompt=word, record=None) for number, word in enumerate(words)]


def solved(
    asked: list[Request], solver: Any, *, in_flight: int = 8, engine: Any = None, shelf: Shelf | None = None
) -> dict[int, Prediction]:
    return dict(solve_together(asked, solver, generator=engine or Echo(), index=shelf or Shelf(), in_flight=in_flight))


def test_results_come_back_in_the_order_of_the_calls_and_stand_in_the_trace():
    prediction = solved(requests("what"), two_hops)[0]
    assert prediction.text == "what-wh"
    assert [row["purpose"] for row in prediction.trace] == ["en", "de", "en", "de", "read"]
    assert prediction.trace[1] == {
        "purpose": "de",
        "prompt": "auf Deutsch: what",
        "reply": "wh",
        "num_prompt_tokens": 3,
        "num_tokens": 2,
        "finished": False,
    }
    assert prediction.trace[2] == {
        "purpose": "en",
        "query": "what",
        "language": "en",
        "k": 2,
        "passages": [{"id": "en:what:1", "rank": 1, "score": 1.0}, {"id": "en:what:2", "rank": 2, "score": 0.5}],
    }
    assert prediction.trace[4]["prompt"] == "en:what:2 wh"
    assert (prediction.num_tokens, prediction.num_prompt_tokens) == (4 + 2 + 2, 3 + 3 + 2)
    assert prediction.finished  # the last reply was


def test_an_answer_whose_last_reply_length_cut_is_not_finished():
    def cut(request: Request) -> Solver:
        (reply,) = yield [Ask(purpose="read", prompt=request.prompt, max_new_tokens=1)]
        return reply

    assert not solved(requests("long"), cut)[0].finished


def test_calls_of_all_questions_share_a_batch_and_equal_calls_are_made_once():
    engine, shelf = Echo(), Shelf()
    answers = solved(requests("one", "two", "one"), two_hops, engine=engine, shelf=shelf)
    assert [answers[place].text for place in range(3)] == ["one-on", "two-tw", "one-on"]
    assert len(engine.batches) == 2
    assert len(engine.batches[0]) == 4  # two questions twice: the third is the first
    assert shelf.batches == [(["on", "tw"], 1, "de"), (["one", "two"], 2, "en")]


def test_searches_for_other_numbers_of_passages_are_made_apart():
    def searches(request: Request) -> Solver:
        few, more = yield [
            Search(purpose="few", query="x", k=1, language="en"),
            Search(purpose="more", query="y", k=3, language="en"),
        ]
        return f"{len(few)} {len(more)}"

    assert solved(requests("q"), searches)[0].text == "1 3"


@pytest.mark.parametrize("in_flight", [1, 2, 3, 7])
def test_the_number_of_questions_under_way_changes_no_answer(in_flight: int):
    words = ["a", "bb", "ccc", "dddd", "bb"]
    engine = Echo()
    answers = solved(requests(*words), two_hops, in_flight=in_flight, engine=engine)
    assert answers == solved(requests(*words), two_hops)
    assert max(len(batch) for batch in engine.batches) <= 2 * in_flight


def test_a_finished_question_makes_room_before_the_next_round():
    def as_many_asks_as_letters(request: Request) -> Solver:
        for number in range(len(request.prompt)):
            yield [Ask(purpose="count", prompt=f"{request.identifier} {number}", max_new_tokens=9)]
        return request.prompt

    engine = Echo()
    places = [
        place
        for place, _ in solve_together(
            requests("aaa", "b", "cc", ""), as_many_asks_as_letters, generator=engine, index=Shelf(), in_flight=2
        )
    ]
    assert [[text.split()[0] for text in batch] for batch in engine.batches] == [
        ["q0", "q1"],
        ["q0", "q2"],
        ["q0", "q2"],
    ]
    assert places == [1, 0, 2, 3]


def test_a_question_without_calls_is_answered_at_once():
    def closed(request: Request) -> Solver:
        return request.prompt
        yield []

    assert solved(requests("here"), closed)[0].trace == []


def test_calls_with_other_stop_strings_go_in_a_batch_of_their_own():
    def stops(request: Request) -> Solver:
        first, second = yield [
            Ask(purpose="a", prompt="x one", max_new_tokens=9, stop=("\n",)),
            Ask(purpose="b", prompt="x two", max_new_tokens=9, stop=("]",)),
        ]
        return first + second

    engine = Echo()
    assert solved(requests("q"), stops, engine=engine)[0].text == "onetwo"
    assert engine.stops == [("\n",), ("]",)]


class Rule(SymbolicGenerator):
    """Says in which language it was asked, and what it was shown."""

    def __init__(self) -> None:
        self.asks: list[Ask] = []

    def reply(self, ask: Ask) -> str:
        self.asks.append(ask)
        return f"{ask.language}: {ask.question} {len(ask.passages)} {ask.said}"


def test_calls_that_are_drawn_otherwise_go_in_a_batch_of_their_own_and_seeds_make_draws_of_them():
    class Draws(Echo):
        def generate(self, prompts: Sequence[Any], *, rule: Any, **values: Any):
            seen.append((rule.temperature, rule.top_p, rule.presence_penalty, [prompt.seed for prompt in prompts]))
            return super().generate(prompts, rule=SamplingRule(), **values)

    def drawn(request: Request) -> Solver:
        warm = {"temperature": 0.7, "top_p": 0.8, "presence_penalty": 1.0}
        replies = yield [
            Ask(purpose="draw", prompt=request.prompt, max_new_tokens=9, seed=1, **warm),
            Ask(purpose="draw", prompt=request.prompt, max_new_tokens=9, seed=2, **warm),
            Ask(purpose="read", prompt="surely", max_new_tokens=9),
        ]
        return " ".join(replies)

    seen: list[Any] = []
    assert solved(requests("word"), drawn, engine=Draws())[0].text == "word word surely"
    assert seen == [(0.0, 1.0, 0.0, [0]), (0.7, 0.8, 1.0, [1, 2])]


def test_a_server_is_not_asked_to_go_on_with_a_reply():
    def opened(request: Request) -> Solver:
        (reply,) = yield [Ask(purpose="read", prompt=request.prompt, max_new_tokens=9, reply_start="<think>")]
        return str(reply)

    with pytest.raises(ConfigError, match="generator: a server writes the reply to 'read' from its first word on"):
        solved(requests("word"), opened)


def test_a_generator_by_rule_sees_what_a_prompt_was_written_from():
    def read(request: Request) -> Solver:
        (found,) = yield [Search(purpose="search", query=request.prompt, k=2, language="en")]
        replies = yield [
            Ask(
                purpose="read",
                prompt="the same",
                max_new_tokens=1,
                question=request.prompt,
                language=language,
                prompt_language="en",
                passages=tuple(found),
                said=("a",),
            )
            for language in ("de", "fr", "de")
        ]
        return " | ".join(replies)

    rule = Rule()
    prediction = solved(requests("why"), read, engine=rule)[0]
    assert prediction.text == "de: why 2 ('a',) | fr: why 2 ('a',) | de: why 2 ('a',)"
    assert len(rule.asks) == 2  # the third is the first
    assert prediction.trace[1] == {
        "purpose": "read",
        "prompt": "the same",
        "question": "why",
        "prompt_language": "en",
        "read": ["en:why:1", "en:why:2"],
        "reply": "de: why 2 ('a',)",
        "num_prompt_tokens": 0,
        "num_tokens": 0,
        "finished": True,
    }


def test_the_trace_names_the_titles_of_passages_that_have_one():
    class Titled(Shelf):
        def search(self, queries: Sequence[str], *, k: int, language: str | None = None) -> list[list[Passage]]:
            return [[Passage(identifier="x", text="", title="T", score=2.0)] for _ in queries]

    def look(request: Request) -> Solver:
        yield [Search(purpose="search", query="q", k=1)]
        return ""

    [row] = solved(requests("q"), look, shelf=Titled())[0].trace
    assert row["passages"] == [{"id": "x", "rank": 1, "score": 2.0, "title": "T"}]


def test_a_prompt_is_one_turn_where_the_model_here_has_a_chat_template():
    tokenizer = byte_tokenizer()
    engine = NativeEngine(NativeConfig(_target_="", batch_size=1), model=tiny(), tokenizer=tokenizer)
    assert in_chat_form(engine, "Who?") == "Who?"
    tokenizer.chat_template = (
        "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}{% if add_generation_prompt %} ->{% endif %}"
    )
    assert in_chat_form(engine, "Who?") == "[user] Who? ->"
    assert in_chat_form(Echo(), "Who?") == "Who?"


def test_what_one_round_has_read_the_next_ones_do_not_read_again():
    """Two calls of a round that stop at different strings, then one over the same passages: read once in all."""
    passages = "The river rises in the hills and flows past the old town to the sea."

    def solver(request: Request) -> Solver:
        yield [
            Ask(purpose=stop, prompt=f"{passages} {request.prompt}", max_new_tokens=3, stop=(stop,)) for stop in "ab"
        ]
        (last,) = yield [Ask(purpose="last", prompt=f"{passages} {request.prompt} Say more.", max_new_tokens=3)]
        return last

    model, widths = tiny(), []
    model.model.register_forward_pre_hook(
        lambda _, args, inputs: widths.append(inputs["input_ids"].shape[1]), with_kwargs=True
    )
    engine = NativeEngine(NativeConfig(_target_="", batch_size=4), model=model, tokenizer=byte_tokenizer())
    found = solved(requests("Where does it end?"), solver, engine=engine)[0]
    read = [width for width in widths if width > 1]
    assert read == [len(f"{passages} Where does it end?"), len(" Say more.")]
    assert engine.kept is None
    widths.clear()
    plain = NativeEngine(
        NativeConfig(_target_="", batch_size=4, share_prefixes=False), model=model, tokenizer=byte_tokenizer()
    )
    assert solved(requests("Where does it end?"), solver, engine=plain)[0] == found
    assert len([width for width in widths if width > 1]) == 3
