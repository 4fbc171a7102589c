"""The pipeline over a world of two facts: what is asked and searched together, what flows along edges, what stops."""

import json
import random
from dataclasses import replace
from pathlib import Path as FilePath

import pytest
from tests.methods.dapt.world import ENGLISH, GERMAN, Script, Shelf, method, rows, run

from athlos.data.records import PARALLEL, QuestionRecord, Step
from athlos.errors import ConfigError, DataError
from athlos.methods.dapt import prompts
from athlos.methods.dapt.components import Components, Question, damaged, read_reply, with_lost_words
from athlos.methods.dapt.config import Final, Fuse, Memory, MergeKind, Path, Retrieval, Solve
from athlos.methods.dapt.pipeline import voted
from athlos.retrieval.config import LexicalIndexConfig
from athlos.retrieval.corpus import GivenCorpus
from athlos.retrieval.interface import CorpusPassage
from athlos.retrieval.lexical import LexicalIndex
from athlos.stages import StageStore


def queries(shelf: Shelf, language: str) -> list[str]:
    return [query for batch, _, of in shelf.batches for query in batch if of == language]


def test_what_is_known_gives_the_answer_in_the_language_of_the_question():
    prediction = run(method())[0]
    assert prediction.text == "Aare-de"
    assert [row["answer"] for row in rows(prediction, "node")] == [("Bern-de", "Bern"), ("Aare-de", "Aare")]
    assert rows(prediction, "align")[0]["agreement"] == 1


def test_each_wording_is_filled_with_the_answer_of_its_own_language():
    shelf = Shelf()
    run(method(), shelf=shelf)
    assert queries(shelf, "de") == ["Heim von Anna ?", "Fluss von Bern-de ?"]
    assert queries(shelf, "en") == ["home of Anna ?", "river of Bern ?"]


@pytest.mark.parametrize(("memory", "name"), [(Memory.src, "Bern-de"), (Memory.en, "Bern")])
def test_one_memory_fills_both_wordings(memory: Memory, name: str):
    shelf = Shelf()
    run(method(answer_memory=memory), shelf=shelf)
    assert queries(shelf, "de")[1] == f"Fluss von {name} ?"
    assert queries(shelf, "en")[1] == f"river of {name} ?"


def test_a_node_reads_k_passages_whatever_it_searches():
    for retrieval in Retrieval:
        for fuse in Fuse:
            [prediction] = run(method(retrieval=retrieval, fuse=fuse, k=3))
            assert [len(row["read"]) for row in rows(prediction, "node")] == [3, 3]
            assert prediction.text == "Aare-de"


def test_both_decompositions_are_asked_in_one_batch_and_each_in_its_language():
    def reply(prompt: str) -> str:
        if prompt.startswith("Translate"):
            return "river of home of Anna ?"
        texts = ["Heim von Anna ?", "Fluss von #1 ?"] if "Zerlege" in prompt else ["home of Anna ?", "river of #1 ?"]
        return json.dumps([{"id": number, "question": text} for number, text in enumerate(texts, start=1)])

    script = Script(reply)
    [prediction] = run(method(decomposer="model", translator="oracle"), script=script)
    assert prediction.text == "Aare-de"
    assert [len(batch) for batch in script.batches] == [2]
    assert "Zerlege" in script.batches[0][0]
    assert "Split the question" in script.batches[0][1]
    assert [row["purpose"] for row in prediction.trace[:2]] == ["decompose_s", "decompose_en"]


def test_nodes_of_one_depth_are_searched_for_together():
    two = [["home of Anna ?", "Bern"], ["river of Bern ?", "Aare"], ["join #1 #2", "x"]]
    record = QuestionRecord(
        identifier="two", language="en", question="?", answers=["x"], meta={PARALLEL: {"question": "?", "steps": two}}
    )
    shelf = Shelf()
    run(method(), [record], shelf=shelf)
    assert [batch for batch, _, _ in shelf.batches] == [["home of Anna ?", "river of Bern ?"], ["join Bern Aare"]]


def test_many_questions_share_their_rounds():
    shelf = Shelf()
    records = [replace(GERMAN, identifier=f"q{number}") for number in range(4)]
    run(method(), records, shelf=shelf)
    assert len(shelf.batches) == 2 * 2  # two depths, two languages


def test_the_english_path_on_english_data_is_the_dual_path():
    [dual], [english] = run(method(), [ENGLISH]), run(method(path=Path.en), [ENGLISH])
    assert dual == english
    assert dual.text == "Aare"


@pytest.mark.parametrize(
    ("path", "retrieval"), [(path, retrieval) for path in (Path.src, Path.en) for retrieval in Retrieval]
)
def test_a_single_path_gets_its_missing_wordings_by_translation(path: Path, retrieval: Retrieval):
    shelf = Shelf()
    [prediction] = run(method(path=path, retrieval=retrieval), shelf=shelf)
    assert prediction.text == "Aare-de"
    languages = {language for _, _, language in shelf.batches}
    assert languages == {Retrieval.bilingual: {"de", "en"}, Retrieval.src: {"de"}, Retrieval.en: {"en"}}[retrieval]


def test_a_translated_node_may_name_its_own_parents_alone():
    said = {"Heim von Anna ?": "home of Anna ? #4", "Fluss von #1 ?": "river of #1 ? #7"}
    script = Script(lambda prompt: said.get(prompt.splitlines()[-1], "whole"))
    shelf = Shelf()
    run(method(path=Path.src, translator="model"), script=script, shelf=shelf)
    assert queries(shelf, "en") == ["home of Anna ?", "river of Bern ?"]


@pytest.mark.parametrize("kind", [kind for kind in MergeKind if kind.name != "llm"], ids=lambda kind: kind.name)
def test_every_merge_solves_what_is_known(kind: MergeKind):
    assert run(method(merge={"kind": kind}))[0].text == "Aare-de"


def test_a_question_in_english_is_never_translated_and_has_one_wording():
    """Neither for the missing wordings nor for the alignment: a call for it would cost a model as much as an answer."""
    graph = json.dumps(["home of Anna ?", "river of #1 ?"])
    script = Script(lambda prompt: graph if "Split" in prompt else '{"answer": "Bern"}')
    [prediction] = run(method(translator="model", decomposer="model", reader="model"), [ENGLISH], script=script)
    assert prediction.text == "Bern"
    assert {row["purpose"] for row in prediction.trace if "reply" in row} == {"decompose_en", "read"}
    reading = [row["prompt"] for row in rows(prediction, "read")]
    assert len(reading) == 2
    assert all(prompt.count("Question:") == 1 for prompt in reading)
    assert all('"english"' not in prompt for prompt in reading)


def test_servers_are_held_to_the_form_of_an_answer():
    graph = json.dumps(["Heim von Anna ?", "Fluss von #1 ?"])
    script = Script(lambda prompt: graph if "Zerlege" in prompt else '{"answer": "Bern-de", "english": "Bern"}')
    run(method(path=Path.src, translator="oracle", decomposer="model", reader="model"), script=script)
    forms = [prompt.reply_schema for batch in script.prompts for prompt in batch]
    assert len(forms) == 3
    assert forms[0] == ""
    assert json.loads(forms[1])["required"] == ["answer", "english"]


def test_a_tau_above_all_scores_with_english_preferred_is_the_english_path():
    [preferred] = run(method(merge={"kind": MergeKind.prefer_en, "tau": 2.0}))
    [english] = run(method(path=Path.en))
    assert rows(preferred, "node") == rows(english, "node")
    assert rows(preferred, "merged")[0]["graphs"] == rows(english, "merged")[0]["graphs"]


@pytest.mark.parametrize("kind", [MergeKind.align, MergeKind.union], ids=lambda kind: kind.name)
@pytest.mark.parametrize(("max_nodes", "size"), [(3, 3), (2, 2)])
def test_a_merge_of_more_nodes_than_the_cap_is_the_english_graph(kind: MergeKind, max_nodes: int, size: int):
    parallel = {"question": "?", "steps": [["town ?", "Bern"], ["river of #1 ?", "Aare"]]}
    config = method(merge={"kind": kind, "tau": 0.9}, max_nodes=max_nodes)
    [prediction] = run(config, [replace(GERMAN, meta={PARALLEL: parallel})])
    [graph] = rows(prediction, "merged")[0]["graphs"]
    assert len(graph) == size
    if size == 2:
        assert [english for _, english, _ in graph] == ["town ?", "river of #1 ?"]


def test_a_merge_by_a_model_is_read_or_falls_back_to_the_alignment():
    both = [
        {"id": 1, "question": "Heim von Anna ?", "english": "home of Anna ?"},
        {"id": 2, "question": "Fluss von #1 ?", "english": "river of #1 ?"},
    ]
    config = method(merge={"kind": MergeKind.llm})
    [merged] = run(config, script=Script(lambda prompt: json.dumps(both)))
    assert merged.text == "Aare-de"
    assert not rows(merged, "align")
    [fallen] = run(config, script=Script(lambda prompt: "I cannot."))
    assert fallen.text == "Aare-de"
    assert rows(fallen, "align")


def test_a_graph_that_fell_apart_leaves_the_sink_to_the_other_one():
    """The source graph lost what joins its nodes; the node that repair makes of them is not the end of the merge."""
    steps = [Step(question="Heim von Anna ?", answer="Bern-de"), Step(question="Fluss von ?", answer="Aare-de")]
    [prediction] = run(method(), [replace(GERMAN, steps=steps)])
    assert len(rows(prediction, "graphs")[0]["source_nodes"]) == 3
    assert prediction.text == "Aare-de"
    assert len(rows(prediction, "merged")[0]["graphs"][0]) == 2


def test_an_unknown_answer_stops_the_branch_and_the_search_goes_on_with_the_parents_text():
    shelf = Shelf(languages=())  # the index holds nothing of use
    [prediction] = run(method(), shelf=shelf)
    assert prediction.text == ""
    last = rows(prediction, "node")[1]
    assert last["is_stopped"]
    assert last["read"] == []
    assert last["source"] == "Fluss von Heim von Anna ? ?"
    assert "unknown" not in " ".join(queries(shelf, "de") + queries(shelf, "en"))


def test_a_wording_whose_parent_is_unknown_in_its_language_is_left_out_alone():
    """The source graph lost its first node's words, so that its own branch knows nothing; the English one goes on."""
    steps = [Step(question="von ?", answer="Bern-de"), GERMAN.steps[1]]
    shelf = Shelf()
    [prediction] = run(method(merge={"tau": 0.1}), [replace(GERMAN, steps=steps)], shelf=shelf)
    assert prediction.text == "Aare-de"
    assert "river of Bern ?" in queries(shelf, "en")


def test_without_a_graph_the_other_path_solves_and_without_both_the_whole_question_is_asked():
    def source_fails(prompt: str) -> str:
        return "no" if "Zerlege" in prompt else '["home of Anna ?", "river of #1 ?"]'

    [half] = run(method(decomposer="model"), script=Script(source_fails))
    assert half.text == "Aare-de"
    assert rows(half, "graphs")[0]["source_nodes"] is None
    assert not rows(half, "merged")[0]["is_fallback"]
    shelf = Shelf()
    [none] = run(method(decomposer="model"), script=Script(lambda prompt: "no"), shelf=shelf)
    assert rows(none, "merged")[0]["is_fallback"]
    assert queries(shelf, "de") == [GERMAN.question]
    assert queries(shelf, "en") == ["river of home of Anna ?"]


def test_the_final_answer_may_be_composed_of_the_chain():
    script = Script(lambda prompt: '{"answer": "kurz"}')
    [prediction] = run(method(final=Final.synth, reader="exact"), script=script)
    assert prediction.text == "kurz"
    assert "1. Heim von Anna ? -> Bern-de\n2. Fluss von #1 ? -> Aare-de" in script.batches[0][0]


def test_all_at_once_searches_before_anything_is_known_and_reads_once():
    script, shelf = Script(lambda prompt: '{"answer": "kurz"}'), Shelf()
    [prediction] = run(method(solve=Solve.all_at_once), script=script, shelf=shelf)
    assert prediction.text == "kurz"
    assert queries(shelf, "de") == ["Heim von Anna ?", "Fluss von ?"]
    assert [len(batch) for batch in script.batches] == [1]


def test_equal_seeds_give_equal_traces_and_others_do_not():
    config = method(noise={"decompose_s": 0.5, "decompose_en": 0.5})
    records = [replace(GERMAN, identifier=f"q{number}") for number in range(12)]
    assert run(config, records, seed=3) == run(config, records, seed=3)
    assert run(config, records, seed=3) != run(config, records, seed=4)


def test_correlated_noise_damages_the_same_nodes_of_both_graphs():
    records = [replace(GERMAN, identifier=f"q{number}") for number in range(40)]

    def damage(*, correlated: bool) -> list[tuple[bool, bool]]:
        noise = {"decompose_s": 0.5, "decompose_en": 0.5, "correlated": correlated}
        found = []
        for prediction in run(method(noise=noise), records):
            graphs = rows(prediction, "graphs")[0]
            source = graphs["source_nodes"] != ["Heim von Anna ?", "Fluss von #1 ?"]
            found.append((source, graphs["english_nodes"] != ["home of Anna ?", "river of #1 ?"]))
        return found

    assert all(source == english for source, english in damage(correlated=True))
    assert any(source != english for source, english in damage(correlated=False))


def test_what_a_translator_loses_is_missing_in_the_english_graph_alone_and_not_where_nothing_is_translated():
    config = method(noise={"translate": 1.0})
    [german], [english] = run(config), run(config, [ENGLISH])
    assert rows(german, "graphs")[0]["source_nodes"] == ["Heim von Anna ?", "Fluss von #1 ?"]
    assert rows(german, "graphs")[0]["english_nodes"] != ["home of Anna ?", "river of #1 ?"]
    assert rows(english, "graphs")[0]["english_nodes"] == ["home of Anna ?", "river of #1 ?"]


def test_identical_errors_give_the_dual_path_no_win():
    """The control of the study: with the same damage in both graphs the second one knows nothing that the first lacks.

    Whether a node is left out is equal in both; words that are lost differ, so only the graphs' sizes are compared.
    """
    records = [replace(GERMAN, identifier=f"q{number}") for number in range(60)]
    noise = {"decompose_s": 0.4, "decompose_en": 0.4, "correlated": True}
    right = {
        path: [prediction.text == "Aare-de" for prediction in run(method(path=path, noise=noise), records)]
        for path in Path
    }
    assert sum(right[Path.dual]) <= max(sum(right[Path.src]), sum(right[Path.en]))
    noise["correlated"] = False
    free = {
        path: sum(prediction.text == "Aare-de" for prediction in run(method(path=path, noise=noise), records))
        for path in Path
    }
    assert free[Path.dual] > max(free[Path.src], free[Path.en])


def test_a_language_that_the_corpus_lacks_is_refused(tmp_path: FilePath):
    """Nothing would be found in it, and the second path would be worth nothing without a word."""
    passages = [CorpusPassage(identifier="p", text="home of Anna", language="en")]
    index = LexicalIndex(LexicalIndexConfig(k1=1.2, b=0.75), corpus=GivenCorpus(passages), stages=StageStore(tmp_path))
    with pytest.raises(ConfigError, match="language 'de' is not in the corpus"):
        run(method(), shelf=index)
    assert run(method(retrieval=Retrieval.en), shelf=index)


def test_a_question_that_names_a_number_sign_is_no_reference():
    record = QuestionRecord(identifier="h", language="en", question="Who sang the #1 hit?", answers=["x"])
    shelf = Shelf()
    [prediction] = run(method(decomposer="model"), [record], script=Script(lambda prompt: "no"), shelf=shelf)
    assert queries(shelf, "en") == ["Who sang the 1 hit?"]
    assert rows(prediction, "merged")[0]["is_fallback"]


def test_votes():
    assert voted([("a", "a"), ("b", "b")]) == "b"
    assert voted([("a", "a"), (None, None)]) == "a"
    assert voted([(None, None), (None, None)]) == ""


# -- components --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        ('{"answer": "Wien", "english": "Vienna"}', ("Wien", "Vienna")),
        ('```json\n{"answer": "Wien"}\n```', ("Wien", "Wien")),
        ('{"answer": "unbekannt", "english": "unknown"}', (None, None)),
        ('{"answer": 1990}', ("1990", "1990")),
        ("\nWien\nweil es dort steht", ("Wien", "Wien")),
        ("Unknown.", (None, None)),
        ("不明。", (None, None)),
        ('{"answer": null, "english": "Vienna"}', ("Vienna", "Vienna")),
        ('{"answer": ["a"]}', (None, None)),
        ("", (None, None)),
        ('{"answer": "unbekannt", "english": "Vienna"}', ("Vienna", "Vienna")),
        ('The answer is {"answer": "Wien", "english": "Vienna"}.', ("Wien", "Vienna")),
        ('{"answer": "Wien", "engl', ("Wien", "Wien")),
        ('{"answer": "Wi', ("Wi", "Wi")),
        ("To determine the capital, I'll analyze the passages:\n\n1. Wien", (None, None)),
        ("The passages say a lot about the city, but what counts here is that the capital is Wien.", (None, None)),
    ],
)
def test_answers_of_models_are_read(reply: str, answer: tuple[str | None, str | None]):
    assert read_reply(reply).answer == answer


@pytest.mark.parametrize(
    ("reply", "is_valid", "is_lost"),
    [
        ('{"answer": "Wien"}', True, False),
        ('{"answer": "unknown"}', True, False),
        ("Wien", False, False),
        ("unknown", False, False),
        ('{"answer": ["a"]}', False, True),
        ("I have to think about this one:\nWien", False, True),
        ("", False, True),
    ],
)
def test_replies_that_keep_the_form_and_those_that_are_lost_are_told_apart(reply: str, is_valid: bool, is_lost: bool):
    reading = read_reply(reply)
    assert (reading.is_valid, reading.is_lost) == (is_valid, is_lost)


class _Always:
    """Draws that damage every node in the same way."""

    def __init__(self, kind: float) -> None:
        self.kind, self.calls = kind, 0

    def random(self) -> float:
        self.calls += 1
        return 0.0 if self.calls % 2 else self.kind

    def getrandbits(self, bits: int) -> int:
        return 7


def test_a_node_that_is_out_leaves_its_reference_dangling_and_a_robbed_one_loses_words():
    texts = ["a b c d e f", "g #1 h i j k", "l #2 #1"]
    assert damaged(texts, 0.0, random.Random(1)) == texts
    assert damaged(texts, 1.0, _Always(0.0)) is None  # type: ignore[arg-type]
    robbed = damaged(texts, 1.0, _Always(0.9))  # type: ignore[arg-type]
    assert robbed is not None
    assert all(set(new.split()) < set(old.split()) for new, old in zip(robbed, texts, strict=True))
    seeds = [damaged(texts, 0.4, random.Random(seed)) or [] for seed in range(200)]
    assert any(nodes and "#0" in nodes[-1] for nodes in seeds)
    assert all("#3" not in " ".join(nodes) for nodes in seeds)
    intact = sum(nodes == texts for nodes in seeds) / len(seeds)
    assert abs(intact - 0.6**3) < 0.1


def test_more_noise_damages_the_same_nodes_and_more():
    texts = [f"a{number} b{number} c{number}" for number in range(6)]
    for seed in range(20):
        little = set(damaged(texts, 0.2, random.Random(seed)) or []) & set(texts)
        much = set(damaged(texts, 0.6, random.Random(seed)) or []) & set(texts)
        assert much <= little


def test_words_are_lost_by_share_and_characters_where_nothing_is_spaced():
    assert with_lost_words("a b c", 1.0, random.Random(1)) == ""
    assert with_lost_words("a b c", 0.0, random.Random(1)) == "a b c"
    assert len(with_lost_words("日本の首都", 0.0, random.Random(1), least=2)) == 3
    kept = sum(len(with_lost_words("w " * 20, 0.3, random.Random(seed)).split()) for seed in range(200)) / 4000
    assert abs(kept - 0.7) < 0.03


def test_a_gold_reader_answers_a_sub_question_in_its_own_words_alone():
    [prediction] = run(method(reader="gold"), shelf=Shelf(languages=()))
    assert prediction.text == "Aare-de"
    [damaged_] = run(method(reader="gold", noise={"decompose_s": 1.0, "decompose_en": 1.0}))
    assert damaged_.text == ""


def test_data_without_what_a_component_reads_is_refused():
    bare = QuestionRecord(identifier="b", language="de", question="?", answers=["x"])
    with pytest.raises(DataError, match="no parallel question"):
        run(method(), [bare])
    with pytest.raises(DataError, match="no steps in 'de'"):
        run(method(path=Path.src, retrieval=Retrieval.src), [bare])
    with pytest.raises(DataError, match="of no world"):
        _ = Components(method(), seed=1, exact=None).exact


def test_a_language_without_prompts_is_refused():
    with pytest.raises(ConfigError, match="no prompts in 'fi'"):
        prompts.decompose("?", language="fi", num_demonstrations=1, max_nodes=6)


def test_prompts_are_in_the_language_of_the_question_and_demonstrations_are_of_no_test_question():
    for language, said in prompts.WORDINGS.items():
        text = prompts.decompose("Q?", language=language, num_demonstrations=2, max_nodes=6)
        assert said.demonstrations[1][0] in text
        assert said.demonstrations[2][0] not in text
        assert text.endswith("Q?")
        read = prompts.read(["Q?"], [], language=language)
        assert read.endswith(said.read)  # behind the passages: a small model forgets what stood before them
        assert said.unknown in said.read
        keys = json.loads(prompts.answer_schema(language))["required"]
        assert keys == (["answer"] if language == "en" else ["answer", "english"])
        assert all(f'"{key}": "' in said.read for key in keys)
        assert said.read.count('": "') == len(keys)
        for _, nodes in said.demonstrations:
            assert any("#1" in node for node in nodes)
    asked = Question.of(GERMAN, pivot="en")
    assert not any(
        asked.text in prompts.decompose("x", language=code, num_demonstrations=3, max_nodes=6)
        for code in prompts.WORDINGS
    )
