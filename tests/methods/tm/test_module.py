"""TM put together around a scripted translator: what it is asked, what is made of its replies, and what is refused."""

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.assembled import suite_of
from tests.methods.tm.made import UNITS, record, write_units
from tests.tolerances import EXACT

from athlos.config.compose import run_config
from athlos.data.records import ParallelRecord
from athlos.errors import ConfigError, DataError
from athlos.evaluation.translation import CorpusScores
from athlos.generation.interface import Prediction, Request
from athlos.methods.tm import scores
from athlos.methods.tm.module import TmModule
from athlos.parts import PartContext
from athlos.runs import assemble
from athlos.stages import StageStore, cache_dir

Reply = Callable[[Request], str]


class Scripted:
    """A decoding rule that answers by a function and remembers what it was asked."""

    def __init__(self, reply: Reply) -> None:
        self.reply, self.asked, self.is_finished = reply, list[Request](), True

    def answer(self, engine: Any, requests: Sequence[Request], *, progress: Any = None) -> list[Prediction]:
        self.asked += requests
        return [
            Prediction(
                identifier=request.identifier,
                text=self.reply(request),
                num_prompt_tokens=len(request.prompt.split()),
                num_tokens=3,
                log_prob=-1.0,
                finished=self.is_finished,
            )
            for request in requests
        ]


@pytest.fixture
def units(tmp_path: Path) -> Path:
    """Sentences with a variant each, so that the memory has something for every test sentence."""
    made = list(UNITS)
    for number in range(60):
        thing = ("page", "image", "user", "group", "file")[number % 5]
        rest = " ".join(f"x{number}y{word}" for word in range(number % 8))
        source = f"Open the {thing} with number {number} {rest}".strip()
        made.append(("django:admin", source, f"{thing} Nummer {number} öffnen {rest}".strip()))
    return write_units(tmp_path / "units", made)


def module_of(units: Path, reply: Reply, *overrides: str) -> tuple[TmModule, Scripted]:
    run = run_config(
        [
            "method=tm",
            "data=po_tm",
            "eval=tm",
            "eval.bootstrap=50",
            f"data.dir={units}",
            "train.max_steps=0",
            "method.tm_domain=mixed",
            f"cache_dir={units.parent / 'cache'}",
            *overrides,
        ]
    )
    stages = StageStore(cache_dir(run.cache_dir))
    decoding = Scripted(reply)
    parts: dict[str, Any] = dict.fromkeys(("model", "tokenizer", "objective", "engine"))
    module = TmModule(run, **parts, decoding=decoding)
    module.prepare(context=PartContext(config=run, stages=stages, data=assemble.open_data(run, None, stages=stages)))
    return module, decoding


def asked(sentence: ParallelRecord) -> Request:
    return Request(identifier=sentence.identifier, prompt="in another style", record=sentence, seed=3)


def best_shown(request: Request) -> str:
    """A translator that copies the value that stands last, as the best pair of `best_last`, and goes on."""
    targets = request.prompt.split("[German]=[")
    return f"[{targets[-1].split(']')[0]}] [English]=[more]" if len(targets) > 1 else "[?]"


def test_pairs_stand_before_the_sentence_and_the_value_is_read(units: Path) -> None:
    module, decoding = module_of(units, best_shown, "method.k=2")
    [prediction] = module.answer([asked(record("q1", "Open the page with number 7 here", "?"))])
    [request] = decoding.asked
    assert request.prompt.count("[English]=[") == 3
    assert request.prompt.endswith("[English]=[Open the page with number 7 here] [German]=")
    assert request.seed == 3
    told, translated = prediction.trace
    assert prediction.text == told["best"]["target"] == told["shown"][0]["target"]
    assert [row["id"] for row in told["shown"]] != []
    assert told["shown"][0]["score"] >= told["shown"][1]["score"]
    assert (translated["prompt"], translated["reply"][0]) == (request.prompt, "[")


def test_the_target_is_that_of_the_shown_source(units: Path) -> None:
    module, decoding = module_of(units, best_shown, "method.k=8")
    module.answer([asked(record("q1", "The user may delete that page.", "?"))])
    truth = {source: target for _, source, target in UNITS}
    shown = decoding.asked[0].prompt.split("[English]=[")[1:-1]
    assert len(shown) == 8
    for part in shown:
        source, target = part.split("] [German]=[")
        if source in truth:
            assert target.strip().removesuffix("]") == truth[source]
    assert any(source in part for source in truth for part in shown)


def test_a_threshold_above_one_is_the_zero_shot_prompt(units: Path) -> None:
    sentence = asked(record("q1", "Open the page with number 7 here", "?"))
    prompts = []
    for override in ("method.k=0", "method.min_score=1.01"):
        module, decoding = module_of(units, best_shown, override)
        module.answer([sentence])
        prompts.append(decoding.asked[0].prompt)
    module, decoding = module_of(units, best_shown)
    module.zero_shot([sentence])
    assert {*prompts, decoding.asked[0].prompt} == {"[English]=[Open the page with number 7 here] [German]="}


def test_only_pairs_at_the_threshold_are_shown(units: Path) -> None:
    module, _ = module_of(units, best_shown, "method.min_score=0.7")
    [matched] = module.matched([record("q1", "Open the page with number 7 here", "?")])
    assert matched.shown
    assert all(match.score >= 0.7 for match in matched.shown)


def test_the_best_match_is_by_edits_whatever_orders_the_prompt(units: Path) -> None:
    sentence = record("q1", "Open the page with number 7 here", "?")
    best = {}
    for rank in ("fms", "bm25", "random", "ngram_coverage"):
        module, _ = module_of(units, best_shown, f"method.rank={rank}")
        [matched] = module.matched([sentence])
        best[rank] = matched.best.pair.identifier
        if rank == "fms":
            assert matched.shown[0] == matched.best
    assert len(set(best.values())) == 1


def test_a_sentence_with_its_own_answer_in_the_memory_is_a_leak(units: Path) -> None:
    memory = module_of(units, best_shown)[0].memory
    held = next(iter(memory.pairs.values()))
    for exact in ("false", "true"):
        module, _ = module_of(units, best_shown, f"method.allow_exact={exact}", "eval=none")
        with pytest.raises(DataError, match="the memory holds it as"):
            module.answer([asked(record("q1", held.source.upper() + "!", "a reference"))])


def test_a_sentence_to_be_translated_for_use_may_be_in_the_memory(units: Path) -> None:
    held = next(iter(module_of(units, best_shown)[0].memory.pairs.values()))
    sentence = asked(record("q1", held.source))
    module, _ = module_of(units, best_shown, "method.allow_exact=true", "eval=none")
    assert module.answer([sentence])[0].text == held.target
    module, _ = module_of(units, best_shown)
    assert held.identifier not in {row["id"] for row in module.answer([sentence])[0].trace[0]["shown"]}


def test_no_test_sentence_is_in_the_memory(units: Path) -> None:
    module, _ = module_of(units, best_shown, "method.pairs.split=all")
    tested = {sentence.source for sentence in module.context.data.records("test")}
    assert tested
    assert not tested & {pair.source for pair in module.memory.pairs.values()}
    assert module.memory.counts["tested"] >= len(tested)


def test_more_pairs_than_the_memory_holds_are_refused(tmp_path: Path, cache: Path) -> None:
    folder = write_units(tmp_path / "few", UNITS[:4])
    module, _ = module_of(folder, best_shown, "method.k=5")
    with pytest.raises(ConfigError, match=r"method\.k: got 5, but the memory holds [1-4] pairs"):
        module.answer([asked(record("q1", "Save all", "?"))])


def test_a_record_that_is_no_sentence_is_refused(units: Path) -> None:
    module, _ = module_of(units, best_shown)
    with pytest.raises(DataError, match="this is no pair of sentences"):
        module.answer([Request(identifier="q", prompt="?", record=None)])


def test_zero_shot_answers_are_given_once_for_all_arms(units: Path) -> None:
    sentence = asked(record("q1", "Open the page with number 7 here", "?"))
    first, decoding = module_of(units, lambda request: "[Seite] x")
    answers = first.zero_shot([sentence])
    assert answers[0].text == "Seite"
    second, silent = module_of(units, best_shown, "method.k=2", "method.rank=bm25")
    assert second.zero_shot([sentence]) == answers
    assert (len(decoding.asked), silent.asked) == (1, [])
    other, asked_again = module_of(units, best_shown, "decoding.max_new_tokens=9")
    other.zero_shot([sentence])
    assert len(asked_again.asked) == 1


def test_what_a_sentence_costs_is_measured(units: Path) -> None:
    module, _ = module_of(units, best_shown)
    assert module.measurements() == ({}, {})
    module.answer([asked(record("q1", "Open the page with number 7 here", "?"))])
    measured, _ = module.measurements()
    assert measured["cost/prompt_tokens"] > 20
    assert measured["retrieval/prefilter_recall"] == 1
    assert measured["retrieval/shown_pairs"] == 5
    assert measured["retrieval/pairs_kept"] == len(module.memory.pairs)


def evaluated(units: Path, reply: Reply, *overrides: str) -> Any:
    module, _ = module_of(units, reply, "method.pairs.min_words=1", *overrides)
    records = module.context.data.eval_records("test")
    return suite_of(module.config).evaluate(module, records), records


def test_the_suite_compares_within_buckets_and_counts_them(units: Path) -> None:
    result, records = evaluated(units, best_shown)
    rows = result.predictions
    counts = [sum(row["bucket"] == number for row in rows) for number in range(5)]
    assert [result.details[f"chrf@b{number}"].n for number in range(5)] == counts
    assert sum(counts) == len(records) == len(rows)
    # A translator that copies the best pair is TM-copy, and has taken everything from the memory.
    for name in ("bleu", "chrf", "ter"):
        assert result.metrics[name] == result.metrics[f"{name}_copy"]
    assert result.metrics["chrf_gain_copy"] == 0
    assert result.metrics["chrf_p_copy"] == 1
    assert result.metrics["copy_rate"] == 1
    assert result.metrics["changed_f1"] == 0
    assert result.metrics["chrf_gain_zero"] > 0
    assert result.metrics["runaway_rate"] == 0
    largest = max(range(5), key=lambda number: counts[number])
    chosen = [row for row in rows if row["bucket"] == largest]
    corpus = CorpusScores("de", evaluation=run_config([]).eval)
    corpus.update([row["prediction"] for row in chosen], [row["gold"] for row in chosen])
    assert corpus.compute()[0]["chrf"] == pytest.approx(result.metrics[f"chrf@b{largest}"], abs=EXACT)
    assert all(row["bucket"] == scores.bucket_of(row["best_fms"]) for row in rows)
    assert result.signatures["sacrebleu_bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a")
    assert rows[0]["prompt"].endswith("[German]=")


def test_the_suite_asks_a_few_sentences_of_each_bucket(units: Path) -> None:
    result, _ = evaluated(units, best_shown, "eval.suites.tm.per_bucket=1", "eval.suites.tm.zero_shot=false")
    buckets = [row["bucket"] for row in result.predictions]
    assert len(buckets) == len(set(buckets)) > 1
    assert "chrf_zero" not in result.metrics


def test_another_system_is_compared_on_the_same_sentences(units: Path) -> None:
    path = units / "en-de.tsv"
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    # It knows the truth of every second sentence.
    drafts = [line.split("\t")[2] if number % 2 else "nichts" for number, line in enumerate(lines)]
    rows = [f"{line}\t{draft}" for line, draft in zip(lines, drafts, strict=True)]
    path.write_text("\n".join([f"{header}\tnmt", *rows]) + "\n", encoding="utf-8")
    result, records = evaluated(units, best_shown, "+eval.suites.tm.systems.other=nmt")
    assert [row["prediction_other"] for row in result.predictions] == [record.meta["nmt"] for record in records]
    corpus = CorpusScores("de", evaluation=run_config([]).eval)
    corpus.update([record.meta["nmt"] for record in records], [record.target for record in records])
    assert result.metrics["bleu_other"] == pytest.approx(corpus.compute()[0]["bleu"], abs=EXACT)
    difference = result.metrics["bleu"] - result.metrics["bleu_other"]
    assert result.metrics["bleu_gain_other"] == pytest.approx(difference, abs=EXACT)
    assert result.details["chrf_gain_other@b0"].n == result.details["chrf@b0"].n
    with pytest.raises(DataError, match="no text in this field"):
        evaluated(units, best_shown, "+eval.suites.tm.systems.other=missing")


def test_a_source_is_tested_once(tmp_path: Path, units: Path) -> None:
    text = (units / "en-de.tsv").read_text(encoding="utf-8").splitlines()
    doubled = [line + "?" for line in text[1:]]
    (units / "en-de.tsv").write_text("\n".join([*text, *doubled]) + "\n", encoding="utf-8")
    result, records = evaluated(units, best_shown)
    assert len(result.predictions) < len(records)
    assert len({row["source"] for row in result.predictions}) == len(result.predictions)
    # Of two targets the first is the reference, and the second is not in the memory either.
    assert not [row for row in result.predictions if row["gold"].endswith("?")]
    tested = {row["source"] for row in result.predictions}
    module, _ = module_of(units, best_shown, "method.pairs.min_words=1", "method.unique_src=false")
    assert not tested & {pair.source for pair in module.memory.pairs.values()}
    assert any(pair.target.endswith("?") for pair in module.memory.pairs.values())


def test_a_negation_or_a_number_is_told_apart_where_the_match_is_close(tmp_path: Path, units: Path) -> None:
    """At .857 "not" is the whole difference: chrF hardly sees what a reader would."""
    memory = [("a:b", f"the user may delete this {thing} today", f"löscht {thing} heute") for thing in ("page", "file")]
    path = write_units(
        tmp_path / "memory", [*memory, ("a:b", "keep at most 30 days of logs", "höchstens 30 Tage behalten")]
    )
    folder = write_units(
        tmp_path / "units",
        [
            ("a:b", "the user may not delete this page today", "löscht page nicht heute"),
            ("a:b", "keep at most 90 days of logs", "höchstens 90 Tage behalten"),
        ],
    )
    shares = ["data.split_shares={train: 0.0, val: 0.0, test: 1.0}", "data.train_split=null", "data.val_split=null"]
    pairs = [f"method.pairs.data=['data=po_tm','data.dir={path}']", "method.pairs.split=all", "method.k=3"]
    result, _ = evaluated(folder, best_shown, *shares, *pairs)
    negated, numbered = result.predictions
    assert negated["best_fms"] == pytest.approx(7 / 8)
    assert (negated["negation_edit"], numbered["negation_edit"]) == (1, 0)
    assert (negated["number_edit"], numbered["number_edit"]) == (None, 1)
    assert (result.metrics["negation_edit@b3"], result.metrics["number_edit@b3"]) == (0.5, 1)
    assert result.metrics["chrf"] > 70


def test_placeholders_are_those_of_the_source_though_the_reference_lacks_them(tmp_path: Path, units: Path) -> None:
    unit = ("a:b", "Remove the item %(name)s from here", "Eintrag entfernen")
    folder = write_units(tmp_path / "tested", [unit])
    shares = ["data.split_shares={train: 0.0, val: 0.0, test: 1.0}", "data.train_split=null", "data.val_split=null"]
    pairs = [f"method.pairs.data=['data=po_tm','data.dir={units}']", "method.pairs.split=all"]
    result, _ = evaluated(folder, lambda request: "[Eintrag entfernen]", *shares, *pairs, "eval.bootstrap=0")
    assert (result.metrics["exact"], result.metrics["placeholder_acc"]) == (1, 0)


def test_chinese_is_scored_by_its_characters(tmp_path: Path, units: Path) -> None:
    lines = [f"a:b\tSave the page number {number}\t保存第{number}页面" for number in range(30)]
    (units / "en-zh_Hans.tsv").write_text("\n".join(["domain\ten\tzh_Hans", *lines]) + "\n", encoding="utf-8")
    reply = "[保存第]"
    result, _ = evaluated(units, lambda request: reply, "data.target_language=zh")
    assert "|tok:zh|" in result.signatures["sacrebleu_bleu"]
    assert result.metrics["copy_rate"] > 0.5  # by words it would be 0


def test_empty_answers_count_as_empty_and_are_told(units: Path, caplog: pytest.LogCaptureFixture) -> None:
    result, records = evaluated(units, lambda request: "[]")
    assert result.metrics["empty_rate"] == 1
    assert result.metrics["exact"] == 0
    assert f"{len(records)} of {len(records)} answers are empty" in caplog.text


def test_a_model_that_goes_on_until_its_length_ends_it_runs_away(units: Path) -> None:
    module, decoding = module_of(
        units, lambda request: "[Seite] [French]=[page] [Spanish]=[", "method.pairs.min_words=1"
    )
    decoding.is_finished = False
    result = suite_of(module.config).evaluate(module, module.context.data.eval_records("test"))
    assert result.metrics["runaway_rate"] == 1
    assert {row["prediction"] for row in result.predictions} == {"Seite"}


def test_a_perfect_translator_scores_a_hundred(units: Path) -> None:
    truth = {source: target for source, target in _pairs(units)}

    def perfect(request: Request) -> str:
        source = request.prompt.rpartition("[English]=[")[2].removesuffix("] [German]=")
        return f"[{truth[source]}]"

    result, _ = evaluated(units, perfect)
    assert result.metrics["chrf"] == pytest.approx(100)
    assert result.metrics["exact"] == 1
    assert result.metrics["changed_f1"] == 1
    assert result.metrics["chrf_p_copy"] < 0.1


def _pairs(units: Path) -> list[tuple[str, str]]:
    lines = (units / "en-de.tsv").read_text(encoding="utf-8").splitlines()[1:]
    return [(line.split("\t")[1], line.split("\t")[2]) for line in lines]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["train.max_steps=3"], "train.max_steps: got 3, but method=tm trains nothing"),
        (["method.k=9"], "method.k: got 9, expected an integer in [0, 8]"),
        (["method.pairs.split=test"], "method.pairs.split: got 'test', the split that the run is tested on"),
        (["method.allow_exact=true"], "method.allow_exact: got true in an evaluation"),
        (["method.min_score=0.5", "method.rank=bm25"], "method.min_score: got 0.5 with rank=bm25"),
        (["method.tm_corrupt=wrong_language"], "method.wrong_language: got none"),
        (["method.decoder=prefix_forced", "method.template=instruction"], "method.decoder: got prefix_forced"),
        (["method.hypothesis=nmt"], "method.hypothesis_field: expected the field of the draft"),
        (["data=gsm8k", "eval=math"], "data: got gsm8k, but method=tm translates"),
        (["eval.base=true"], "eval.base: got true, but eval.suites.tm answers without the memory itself"),
        (["+eval.suites.tm.systems.zero=x"], "eval.suites.tm.systems: got the name 'zero', which"),
        (["method=finetune"], "eval.suites.tm: got another method, expected method=tm"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_read(overrides: list[str], message: str) -> None:
    base = ["method=tm", "data=po_tm", "eval=tm", "train.max_steps=0"]
    with pytest.raises(ConfigError) as caught:
        run_config([*base, *overrides])
    assert message in str(caught.value)


def test_the_memory_may_be_another_data_set(units: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tmx"
    folder.mkdir()
    units_xml = "".join(
        f'<tu><tuv xml:lang="en"><seg>{source}</seg></tuv><tuv xml:lang="de"><seg>{target}</seg></tuv></tu>'
        for _, source, target in UNITS
    )
    (folder / "m.tmx").write_text(f'<tmx version="1.4"><header/><body>{units_xml}</body></tmx>', encoding="utf-8")
    module, _ = module_of(
        units, best_shown, f"method.pairs.data=['data=tmx','data.dir={folder}']", "method.pairs.split=all"
    )
    assert {pair.target for pair in module.memory.pairs.values()} <= {target for _, _, target in UNITS}
    with pytest.raises(ConfigError, match="got data=gsm8k, expected parallel text"):
        _ = module_of(units, best_shown, "method.pairs.data=['data=gsm8k']")[0].memory


def test_po_files_are_a_memory(units: Path, tmp_path: Path) -> None:
    folder = tmp_path / "po" / "de" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    entries = "".join(f'\nmsgid "{source}"\nmsgstr "{target}"\n' for _, source, target in UNITS)
    header = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n'
    (folder / "django.po").write_text(header + entries, encoding="utf-8")
    module, _ = module_of(
        units, best_shown, f"method.pairs.data=['data=po','data.dir={tmp_path / 'po'}']", "method.pairs.split=all"
    )
    assert 0 < len(module.memory.pairs) <= len(UNITS)


def test_another_language_of_the_same_files_is_shown(units: Path) -> None:
    lines = [(domain, source, f"FR {target}") for domain, source, target in UNITS]
    text = "\n".join(["domain\ten\tfr", *("\t".join(line) for line in lines)])
    (units / "en-fr.tsv").write_text(text + "\n", encoding="utf-8")
    module, _ = module_of(
        units, best_shown, "method.tm_corrupt=wrong_language", "method.wrong_language=fr", "method.k=2"
    )
    [prediction] = module.answer([asked(record("q1", "The user may delete that page.", "?"))])
    assert all(row["target"].startswith("FR ") for row in prediction.trace[0]["shown"])
    assert not prediction.trace[0]["best"]["target"].startswith("FR ")  # TM-copy copies the true target
    assert module.memory.counts["no_foreign"] > 0


def test_terms_are_read_from_pairs_of_any_length(units: Path) -> None:
    text = (units / "en-de.tsv").read_text(encoding="utf-8")
    (units / "en-de.tsv").write_text(
        text + "".join(f"a:b\tfile\tDatei{end}\n" for end in ("", " ", "  ")), encoding="utf-8"
    )
    module, _ = module_of(units, lambda request: "[Datei]", "method.pairs.split=all")
    assert module.memory.terms["file"] == "datei"
    assert "file" not in {pair.source for pair in module.memory.pairs.values()}
    result = suite_of(module.config).evaluate(module, module.context.data.eval_records("test"))
    assert result.details["term_acc"].n > 0
    assert result.metrics["term_acc"] == 1


def test_terms_of_the_test_are_no_terms_of_the_memory(units: Path) -> None:
    with (units / "en-de.tsv").open("a", encoding="utf-8") as file:
        file.writelines(f"a:b\tword{number} here\twort{number} hier\n" for number in range(40))
    module, _ = module_of(units, best_shown, "method.pairs.split=all")
    short = {record.source for record in module.context.data.eval_records("test") if record.source.startswith("word")}
    assert short
    assert not short & module.memory.terms.keys()
    assert len(module.memory.terms) >= 40 - len(short)


def test_the_products_are_written_down(units: Path) -> None:
    module, _ = module_of(units, best_shown)
    module.answer([asked(record("q1", "Open the page with number 7 here", "?"))])
    root = module.context.stages.root
    [split] = root.glob("tm_memory/*/split.json")
    assert json.loads(split.read_text(encoding="utf-8")) == module.memory.counts
    [matches] = root.glob("tm_matches/*/matches.jsonl")
    assert json.loads(matches.read_text(encoding="utf-8").splitlines()[0])["id"] == "q1"


def test_shuffling_the_memory_file_changes_no_prompt(units: Path) -> None:
    sentences = [asked(record(f"q{number}", f"Open the group with number {number} here", "?")) for number in range(4)]
    module, decoding = module_of(units, best_shown)
    module.answer(sentences)
    memory = module.memory
    order = list(memory.pairs.items())
    random.Random(1).shuffle(order)
    other, again = module_of(units, best_shown)
    other.__dict__["memory"] = type(memory)(pairs=dict(order), key="permuted", counts=memory.counts)
    other.answer(sentences)
    assert [request.prompt for request in again.asked] == [request.prompt for request in decoding.asked]
