"""`construct=clueanchor`: explores the training questions, kept as JSONL, and selects a pair of replies of each.

`construct=clueanchor_lessons` writes what the base model of the lab study is trained on, from the truth.
"""

import dataclasses
import json
import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from athlos.config.compose import plain
from athlos.config.part_report import PartReport
from athlos.config.schema import RunConfig
from athlos.data.encoding import encode_pair
from athlos.data.json_lines import add_row, read_rows, write_rows
from athlos.data.records import InstructionRecord, Passage, PreferenceRecord, QuestionRecord
from athlos.data.regions import read_regions
from athlos.data.source import files_hash
from athlos.errors import DataError
from athlos.generation.interface import Prediction, Request
from athlos.generation.pipeline import Solver, as_turn, reply_gap, solve_together
from athlos.methods.clueanchor.config import (
    PATHS,
    ClueAnchorConfig,
    ClueAnchorConstructConfig,
    GoldPassages,
    LessonsConfig,
    NoiseConfig,
    PathsConfig,
    explored_reply,
)
from athlos.methods.clueanchor.noise import fitted, noised
from athlos.methods.clueanchor.pipeline import explored, gold_of
from athlos.methods.clueanchor.prompts import (
    CLOSE_ANSWER,
    CLOSE_CLUE,
    SAW_GOLD,
    layout_of,
    written,
)
from athlos.methods.clueanchor.selection import Explored, Question, selected
from athlos.parts import Made, PartContext
from athlos.stages import Stage, content_hash, tenths_logged
from athlos.text.normalisation import normalise

VERSION = 1
"""Raised when the same config explores otherwise."""
EXPLORED, PAIRS, CASES = "paths.jsonl", "pairs.jsonl", "cases.json"
MOST_GOLD_CUT = 0.05
"""Share of training prompts that may lose some of a required passage. Source: ours."""
SHORT_GOLD = 2
"""Letters up to which a gold answer is found by chance."""
DROP = "drop"
NOT_EXPLORED = ("verify_gate", "in_flight", "regions")
"""Keys of the exploration that change no reply, or whose content is hashed."""
NUM_OTHERS = 200
"""Questions whose passages serve as distractors for those that have too few."""


def with_prompts(
    records: Sequence[QuestionRecord],
    config: ClueAnchorConfig | PathsConfig,
    *,
    noise: NoiseConfig,
    context: PartContext,
) -> tuple[list[QuestionRecord], float]:
    """The records with the passages of their prompts, and the share that lost some of a required passage."""
    tokenizer = None if context.start is None else context.start.tokenizer

    def count(text: str) -> int:
        return len(text.split() if tokenizer is None else tokenizer.encode(text, add_special_tokens=False))

    def cut(text: str, most: int) -> str:
        if tokenizer is None:
            return " ".join(text.split()[:most])
        return str(tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)[:most]))

    others = others_of(records)
    seed = context.config.seed
    cuts = [
        fitted(
            noised(record, noise, top_n=config.prompt.top_n, others=others[record.identifier], seed=seed),
            config.prompt,
            count=count,
            cut=cut,
        )
        for record in records
    ]
    share = sum(piece.is_gold_cut for piece in cuts) / len(cuts) if cuts else 0.0
    return [piece.record for piece in cuts], share


def others_of(records: Sequence[QuestionRecord]) -> Mapping[str, Sequence[Passage]]:
    """For each question with few distractors of its own, passages of others that do not hold its answers."""
    pool = [passage for record in records[:NUM_OTHERS] for passage in record.passages]
    others = {}
    for record in records:
        own = {passage.text for passage in record.passages}
        golds = [answer.lower() for answer in record.answers]
        num_distractors = sum(not passage.is_supporting for passage in record.passages)
        others[record.identifier] = (
            []
            if num_distractors >= len(record.passages) / 2
            else [
                passage
                for passage in pool
                if passage.text not in own and not any(gold in passage.text.lower() for gold in golds)
            ]
        )
    return others


def solver_of(run: RunConfig) -> Callable[[Request], Solver]:
    """The exploration of a request's record, by the run's config."""
    construct = run.construct
    assert isinstance(construct, ClueAnchorConstructConfig)
    explore = construct.explore
    regions = read_regions(Path(explore.regions)) if explore.regions else None
    layout, reply = layout_of(run.prompt_style), explored_reply(run)
    return lambda request: explored(request.record, explore, reply, layout=layout, seed=run.seed, regions=regions)


def explored_rows(
    records: Sequence[QuestionRecord], path: Path, *, context: PartContext, construct: ClueAnchorConstructConfig
) -> list[dict[str, Any]]:
    """What the exploration of each record found, in order; rows that `path` holds already are not asked again."""
    assert context.generator is not None
    kept = {row["id"]: row for row in read_rows(path)}
    open_records = [record for record in records if record.identifier not in kept]
    requests = [Request(identifier=record.identifier, prompt="", record=record) for record in open_records]
    assert context.index is not None
    solver, progress = solver_of(context.config), tenths_logged("paths: questions explored")
    with path.open("a", encoding="utf-8") as file:
        for place, prediction in solve_together(
            requests,
            solver,
            generator=context.generator,
            index=context.index,
            in_flight=construct.explore.in_flight,
        ):
            row = _row(open_records[place], prediction)
            add_row(file, row)
            file.flush()
            kept[row["id"]] = row
            progress(len(kept), len(records))
    return [kept[record.identifier] for record in records]


def _row(record: QuestionRecord, prediction: Prediction) -> dict[str, Any]:
    calls = [
        {key: row[key] for key in ("purpose", "num_prompt_tokens", "num_tokens", "finished")}
        for row in prediction.trace
        if "reply" in row
    ]
    return {"id": record.identifier, "question": record.question, **json.loads(prediction.text), "calls": calls}


class ClueAnchorConstruct:
    def __init__(self, config: ClueAnchorConstructConfig) -> None:
        self.config = config

    def build(self, *, context: PartContext) -> Made:
        """One preference pair for each question that has one, in the order of the questions.

        Raises `DataError` for data without questions, for fewer pairs than `select.min_pairs`, with the counts of the
        cases, for more than 5 % of the prompts without all of their required passages, and for a pair that does not fit
        into `train.max_length`.
        """
        run = context.config
        method = run.method
        assert isinstance(method, ClueAnchorConfig)
        assert context.start is not None
        questions = training_questions(context, most=self.config.num_questions)
        records, gold_cut = with_prompts(questions, method, noise=method.noise, context=context)
        if gold_cut > MOST_GOLD_CUT:
            raise DataError(
                f"method.prompt.max_tokens: got {method.prompt.max_tokens}, which cuts passages that hold the answer "
                f"out of {gold_cut:.0%} of the training prompts, expected at most {MOST_GOLD_CUT:.0%}"
            )
        stage = Stage(
            name="clueanchor_paths",
            version=VERSION,
            inputs=self._inputs(context, records),
            config=decides(run),
            is_resumable=True,
            build=lambda folder: explored_rows(records, folder / EXPLORED, context=context, construct=self.config),
        )
        explored_product = context.stages.get(stage)
        by_id = {row["id"]: row for row in read_rows(explored_product.path / EXPLORED)}
        rows = [by_id[record.identifier] for record in records]
        chosen = [
            selected(
                question_of(record, row),
                self.config.select,
                verify_gate=self.config.explore.verify_gate,
                max_length=longest_reply(run, self.config),
                seed=run.seed,
            )
            for record, row in zip(records, rows, strict=True)
        ]
        cases = Counter(DROP if pair is None else f"{pair[0].path}_{pair[1].path}" for pair in chosen)
        num_pairs = len(chosen) - cases[DROP]
        if num_pairs < self.config.select.min_pairs:
            told = ", ".join(f"{name} {count}" for name, count in sorted(cases.items()))
            raise DataError(
                f"construct.select.min_pairs: got {num_pairs} pairs of {len(records)} questions, expected at least "
                f"{self.config.select.min_pairs}; cases: {told}"
            )
        values = plain(run)["construct"]
        pairs = list(preference_pairs(records, rows, chosen, context=context))
        pair_stage = Stage(
            name="clueanchor_pairs",
            version=VERSION,
            inputs={
                "explored": explored_product.key,
                "pairs": content_hash([dataclasses.asdict(pair) for pair in pairs]),
            },
            config={"select": values["select"], "verify_gate": values["explore"]["verify_gate"], "seed": run.seed},
            build=lambda folder: _write_pairs(folder, pairs, cases),
        )
        product = context.stages.get(pair_stage)
        metrics = {
            "construct/pairs": float(num_pairs),
            "construct/gold_truncated_rate": gold_cut,
            **{f"construct/case_{name}": float(count) for name, count in sorted(cases.items())},
            "construct/rejected_right": float(sum(pair is not None and pair[1].is_right for pair in chosen)),
            "construct/short_golds": float(sum(is_short(record) for record in records)),
            **path_metrics(records, rows, chosen),
        }
        return Made(
            key=product.key,
            records=pairs,
            report=PartReport(summary=f"clueanchor: {num_pairs} pairs of {len(records)} questions", metrics=metrics),
            files=[explored_product.path / EXPLORED, product.path / PAIRS, product.path / CASES],
        )

    def _inputs(self, context: PartContext, records: Sequence[QuestionRecord]) -> dict[str, str]:
        explore = self.config.explore
        regions = {"regions": files_hash([Path(explore.regions)])} if explore.regions else {}
        return {
            "model": context.model_fingerprint,
            "records": content_hash([dataclasses.asdict(record) for record in records]),
            **regions,
        }


def decides(run: RunConfig) -> dict[str, Any]:
    """Plain values of the config that change an exploration. The gate is not among them: it only reads one."""
    values = plain(run)
    explore = {key: value for key, value in values["construct"]["explore"].items() if key not in NOT_EXPLORED}
    generator = {key: value for key, value in values["generator"].items() if key not in run.generator.operational}
    numbers = {"dtype": values["model"]["dtype"], "precision": run.hardware.precision}
    return {
        "explore": explore,
        "reply": dataclasses.asdict(explored_reply(run)),
        "generator": generator,
        **{name: values[name] for name in ("prompt_style", "seed")},
        **numbers,
    }


def training_questions(context: PartContext, *, most: int) -> list[QuestionRecord]:
    """Answerable questions from the front of the training split. One that also stands in the test split is left out.

    Questions are compared normalised. Raises `DataError` where a split holds other records, or where none is left.
    """
    assert context.data is not None
    run = context.config
    split, test = run.data.train_split, run.data.test_split
    assert split is not None
    asked = {_normal(record) for record in _questions(context, test)} if test and test != split else set()
    questions = [record for record in _questions(context, split) if record.answers and _normal(record) not in asked]
    if not questions:
        raise DataError(f"construct=clueanchor: split '{split}' of data={run.data.name} has no question to explore")
    for record in questions[:most]:
        gold_of(record)
    return questions[:most]


def _questions(context: PartContext, split: str) -> list[QuestionRecord]:
    assert context.data is not None
    records = list(context.data.records(split))
    questions = [record for record in records if isinstance(record, QuestionRecord)]
    if len(questions) < len(records):
        name = context.config.data.name
        raise DataError(f"construct=clueanchor: split '{split}' of data={name} holds records that are no questions")
    return questions


def _normal(record: QuestionRecord) -> str:
    return normalise(record.question, normaliser="clue", language=record.language)


def is_short(record: QuestionRecord) -> bool:
    """Whether the gold answer is so short that a reply holds it by chance."""
    return len(normalise(gold_of(record), normaliser="clue", language=record.language)) <= SHORT_GOLD


def longest_reply(run: RunConfig, construct: ClueAnchorConstructConfig) -> int:
    """Most tokens of a reply in the exploration."""
    reply = explored_reply(run)
    return reply.think_tokens + reply.answer_tokens if reply.force_tags else construct.explore.max_new_tokens


def question_of(record: QuestionRecord, row: Mapping[str, Any]) -> Question:
    """What the selection reads of a row."""
    return Question(
        identifier=record.identifier,
        language=record.language,
        gold=gold_of(record),
        passages=[passage.text for passage in record.passages],
        draws={path: [Explored(**draw) for draw in draws] for path, draws in row["draws"].items()},
        v=row["v"],
    )


def preference_pairs(
    records: Sequence[QuestionRecord],
    rows: Sequence[Mapping[str, Any]],
    chosen: Sequence[tuple[Explored, Explored] | None],
    *,
    context: PartContext,
) -> Iterator[PreferenceRecord]:
    """The plain external prompt with both replies. Raises `DataError` for one that does not fit into a row."""
    run = context.config
    layout, tokenizer = layout_of(run.prompt_style), context.tokenizer
    gap = reply_gap(tokenizer)
    for record, row, pair in zip(records, rows, chosen, strict=True):
        if pair is None:
            continue
        prompt = as_turn(tokenizer, layout.external(record))
        texts = [gap + written(reply.think, reply.answer) for reply in pair]
        longest = max(sum(map(len, encode_pair(tokenizer, prompt, text))) for text in texts)
        if longest > run.train.max_length:
            raise DataError(
                f"train.max_length: got {run.train.max_length}, expected at least {longest}, the tokens of prompt and "
                f"reply of question '{record.identifier}'; or lower method.prompt.max_tokens"
            )
        yield PreferenceRecord(
            identifier=record.identifier,
            language=record.language,
            prompt=prompt,
            chosen=texts[0],
            rejected=texts[1],
            meta={"chosen": pair[0].path, "rejected": pair[1].path, SAW_GOLD: row[SAW_GOLD]},
        )


def _write_pairs(folder: Path, pairs: Sequence[PreferenceRecord], cases: Mapping[str, int]) -> None:
    write_rows(folder / PAIRS, map(dataclasses.asdict, pairs))
    (folder / CASES).write_text(json.dumps(dict(cases), indent=1, sort_keys=True) + "\n", encoding="utf-8")


def path_metrics(
    records: Sequence[QuestionRecord],
    rows: Sequence[Mapping[str, Any]],
    chosen: Sequence[tuple[Explored, Explored] | None],
) -> dict[str, float]:
    """Shares of right and of well-formed replies by path, over the questions that took it; of clues that hold it."""
    metrics: dict[str, float] = {}
    replies = [question_of(record, row).draws for record, row in zip(records, rows, strict=True)]
    for path in PATHS:
        taken = [draws[path] for draws in replies if draws.get(path)]
        metrics[f"construct/taken_{path}"] = float(len(taken))
        if taken:
            metrics[f"construct/acc_{path}"] = sum(any(draw.is_right for draw in draws) for draws in taken) / len(taken)
            formats = [draw.is_formatted for draws in taken for draw in draws]
            metrics[f"construct/format_rate_{path}"] = sum(formats) / len(formats)
    metrics["construct/clue_acc"] = sum(row["clue_acc"] for row in rows) / len(rows)
    metrics["construct/verified"] = sum(row["v"] for row in rows) / len(rows)
    metrics["construct/acc_selected"] = sum(pair is not None and pair[0].is_right for pair in chosen) / len(chosen)
    return metrics


class LessonsConstruct:
    """Lessons for a base model: how it answers from memory and from documents, and by which habit."""

    def __init__(self, config: LessonsConfig) -> None:
        self.config = config

    def build(self, *, context: PartContext) -> Made:
        """One lesson for each question of the training split. Raises `DataError` for data that are not `lab_cases`."""
        run = context.config
        assert context.data is not None
        split = run.data.train_split
        assert split is not None
        method = run.method
        assert isinstance(method, ClueAnchorConfig)
        lessons = [
            self.lesson(record, top_n=method.prompt.top_n, context=context) for record in _questions(context, split)
        ]
        key = content_hash([dataclasses.asdict(lesson) for lesson in lessons])
        counts = Counter(lesson.meta["kind"] for lesson in lessons)
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
        return Made(key=key, records=lessons, report=PartReport(summary=f"lessons: {told}", metrics={}))

    def lesson(self, record: QuestionRecord, *, top_n: int, context: PartContext) -> InstructionRecord:
        """One prompt with the reply that the base model learns."""
        run, config = context.config, self.config
        rng = random.Random(f"{run.seed}/lesson/{record.identifier}")
        share = rng.choice(config.noise_shares)
        is_stored = "stored" in record.meta
        if share == 1 and not is_stored:
            share = 0.5
        kinds = [kind for kind in config.weights if is_stored or kind != "internal"]
        if share == 1:
            kinds = [kind for kind in kinds if kind in ("internal", "external")] or ["external"]
        kind = rng.choices(kinds, weights=[config.weights[name] for name in kinds])[0]
        noise = NoiseConfig(share=share, gold=GoldPassages.present)
        shown = noised(record, noise, top_n=top_n, others=(), seed=run.seed)
        layout, clue, gold = layout_of(run.prompt_style), supporting_text(record), record.answers[0]
        remembers = is_stored and (
            share == 1 or kind == "internal" or (kind == "external" and rng.random() < config.habit)
        )
        think = record.meta["stored_statement"] if remembers else clue
        reply = written(think, record.meta["stored"] if remembers else gold)
        if kind == "extract":
            prompt, reply = layout.extract(shown, gold if rng.random() < 0.5 else ""), f"{clue} {CLOSE_CLUE}"
        elif kind == "verify":
            prompt, reply = layout.verify(shown, clue), f"{gold} {CLOSE_ANSWER}"
        elif kind == "clue":
            prompt = layout.clue(shown, clue)
        else:
            prompt = layout.internal(shown) if kind == "internal" else layout.external(shown)
        return InstructionRecord(
            identifier=record.identifier,
            language=record.language,
            prompt=as_turn(context.tokenizer, prompt),
            completion=reply_gap(context.tokenizer) + reply,
            meta={"kind": kind},
        )


def supporting_text(record: QuestionRecord) -> str:
    """The supporting sentences, in the order in which the data set names them; those that it does not have are left
    out."""
    sentences = {passage.title: passage.sentences for passage in record.passages}
    named = [
        sentences[title][place] for title, place in record.supporting_facts if place < len(sentences.get(title, ()))
    ]
    return " ".join(sentence.strip() for sentence in named)
