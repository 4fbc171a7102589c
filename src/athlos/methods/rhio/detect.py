"""Which heads of a model are retrieval heads: runs over lengths, depths and needles, kept as a stage product.

The product is `heads.json`: the mean score of each head, all runs, the needles, and what it was made with.
"""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from athlos.config.schema import RunConfig
from athlos.data.encoding import prefix_token
from athlos.data.records import LongAnswerRecord, QuestionRecord
from athlos.data.source import files_hash
from athlos.errors import DataError
from athlos.generation.endings import end_tokens
from athlos.methods.rhio.config import DetectConfig
from athlos.models.head_scores import (
    HeadRun,
    HeadScores,
    Needle,
    NeedlePrompt,
    forced,
    gated,
    generated,
    induction_prompt,
    needle_prompt,
    run_of,
)
from athlos.parts import PartContext
from athlos.stages import Product, Stage, content_hash, tenths_logged
from athlos.text.overlap import rouge_1

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

VERSION = 1
"""Raised when the same model and config give other scores."""
HEADS = "heads.json"
LIBRARIES = ("torch", "transformers", "tokenizers")
NEEDLES = (
    Needle(
        text="The best thing to do in the harbour town of Velmora is to ride the blue cable car at dusk.",
        question="What is the best thing to do in the harbour town of Velmora?",
    ),
    Needle(
        text="The secret ingredient of the baker Odile Farrow's bread is a spoon of roasted barley.",
        question="What is the secret ingredient of the baker Odile Farrow's bread?",
    ),
    Needle(
        text="The reason why the lighthouse of Kessing has two doors is that the sea once took the first.",
        question="What is the reason why the lighthouse of Kessing has two doors?",
    ),
    Needle(
        text="The password to the archive of the Tamarind Society is seven white herons.",
        question="What is the password to the archive of the Tamarind Society?",
    ),
)
"""Ours: things that nobody has read of before."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What is hidden, where, and in which language."""

    needles: Sequence[Needle]
    haystack: str
    language: str
    key: str
    """Content hash of all of it."""


def detected(config: DetectConfig, *, context: PartContext) -> tuple[HeadScores, Product]:
    """Scores of the heads of the model that the phase starts from, and the product that holds them.

    Raises `DataError` where no generated answer recalls its needle, or the haystack is too short.
    """
    assert context.start is not None
    model, tokenizer = context.start.model, context.start.tokenizer
    task = task_of(config, context=context)

    def build(folder: Path) -> None:
        scores = scored(model, tokenizer, task, config=config, seed=context.config.seed)
        values = {
            **scores.plain(),
            "needles": [asdict(needle) for needle in task.needles],
            "prompts": task.key,
            "model": context.model_fingerprint,
            "config": asdict(config),
            "seed": context.config.seed,
            "libraries": {name: version(name) for name in LIBRARIES},
        }
        (folder / HEADS).write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")

    stage = Stage(
        name="rhio_heads",
        version=VERSION,
        inputs={"model": context.model_fingerprint, "task": task.key},
        config={
            **{name: value for name, value in asdict(config).items() if name != "haystack"},
            "seed": context.config.seed,
        },
        build=build,
    )
    product = context.stages.get(stage)
    values = json.loads((product.path / HEADS).read_text(encoding="utf-8"))
    return HeadScores.read({name: values[name] for name in ("kept", "dropped")}), product


def task_of(config: DetectConfig, *, context: PartContext) -> Task:
    """Needles that come with Athlos in a folder of text, or the evidence of questions in passages of other ones."""
    if config.haystack is None:
        records = list(_questions(context.config, context))
        needles = [
            Needle(text=text, question=record.question) for record in records if (text := first_evidence(record))
        ][: config.num_needles]
        hidden = {needle.text for needle in needles}
        language = records[0].language if records else "en"
        pieces = [
            sentence
            for record in records
            for passage in record.passages
            for sentence in passage.sentences or [passage.text]
            if sentence not in hidden
        ]
        haystack = " ".join(pieces)
        key = content_hash([haystack, *(asdict(needle) for needle in needles)])
    else:
        needles, language = list(NEEDLES[: config.num_needles]), "en"
        paths = sorted(Path(config.haystack).expanduser().glob("*.txt"))
        paths = [path for path in paths if path.name != "SOURCE.txt"]
        if not paths:
            raise DataError(f"detect.haystack: got {config.haystack}, expected a folder with .txt files")
        haystack = " ".join(paths[0].read_text(encoding="utf-8").split())
        key = content_hash([files_hash(paths[:1]), *(asdict(needle) for needle in needles)])
    if len(needles) < config.num_needles:
        raise DataError(
            f"detect.num_needles: got {config.num_needles}, expected at most {len(needles)}, which there are"
        )
    return Task(needles=needles, haystack=haystack, language=language, key=key)


def _questions(run: RunConfig, context: PartContext) -> Iterator[QuestionRecord | LongAnswerRecord]:
    """Of the training split where there is one, else of the tested one."""
    assert context.data is not None
    split = run.data.train_split or context.data.test_split
    for record in context.data.records(split):
        if isinstance(record, QuestionRecord | LongAnswerRecord):
            yield record


def first_evidence(record: QuestionRecord | LongAnswerRecord) -> str:
    """The one supporting sentence of a question that has just one, or the first that a long answer was written from.

    Empty where there is none, or where it stands in no passage.
    """
    sentences = {passage.title: passage.sentences for passage in record.passages}
    if isinstance(record, LongAnswerRecord):
        selected = record.meta.get("selected_sentences", [])
        stands = selected and any(selected[0] in of_passage for of_passage in sentences.values())
        return selected[0] if stands else ""
    if len(record.supporting_facts) != 1:
        return ""
    [(title, place)] = record.supporting_facts
    return sentences[title][place] if place < len(sentences.get(title, ())) else ""


def prompts_of(
    task: Task, tokenizer: "PreTrainedTokenizerBase", *, config: DetectConfig, seed: int
) -> Iterator[NeedlePrompt]:
    """All prompts, by length, depth and needle."""
    depths = [place / max(1, config.num_depths - 1) for place in range(config.num_depths)]
    grid = itertools.product(config.lengths, depths, range(config.num_needles))
    if config.mode == "induction":
        special = set(tokenizer.all_special_ids)
        vocabulary = [token for token in range(len(tokenizer)) if token not in special]
        for length, depth, number in grid:
            yield induction_prompt(
                vocabulary, length=length, depth=depth, number=number, prefix=prefix_token(tokenizer), seed=seed
            )
        return
    # Twice the longest prompt in letters is more than enough for its tokens, and quick to encode.
    text = task.haystack[: 16 * max(config.lengths)]
    hay_ids = tokenizer.encode(f" {text}", add_special_tokens=False, verbose=False)
    for length, depth, number in grid:
        yield needle_prompt(
            tokenizer,
            hay_ids,
            task.needles[number],
            number=number,
            length=length,
            depth=depth,
            ask=config.ask,
        )


def scored(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    task: Task,
    *,
    config: DetectConfig,
    seed: int,
) -> HeadScores:
    """All runs of a model. Raises `DataError` where the model finds no needle with `mode=generate`."""
    ends = set(end_tokens(model, tokenizer))
    distinct, runs = config.score == "set", list[HeadRun]()

    def is_end(token: int) -> bool:
        return token in ends or "\n" in str(tokenizer.decode([token]))

    progress = tenths_logged("heads: prompts read")
    prompts = list(prompts_of(task, tokenizer, config=config, seed=seed))
    for number, prompt in enumerate(prompts, start=1):
        recall = 100.0
        if config.mode == "generate":
            pointed_SLH, said = generated(model, prompt, max_new_tokens=config.max_new_tokens, ends=is_end)
            text = str(tokenizer.decode(said, skip_special_tokens=True))
            recall = 100 * rouge_1(text, task.needles[prompt.needle].text, language=task.language).recall
        else:
            pointed_SLH, said = forced(model, prompt)
        runs.append(run_of(prompt, pointed_SLH, said, recall=recall, distinct=distinct))
        progress(number, len(prompts))
    return gated(runs)
