"""`construct=rhio`: a reference and an unfaithful answer to each training question, as preference pairs.

1. `detect.py` scores the heads of the model that the phase starts from (or of the base).
2. It answers the questions without the best of them (`generation/masked_heads.py`), or another source writes.
3. What teaches nothing is left out, with a count by reason (`negatives.py`).
"""

import dataclasses
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from athlos.config.compose import plain
from athlos.config.part_report import PartReport
from athlos.data.json_lines import add_row, read_rows
from athlos.data.records import LongAnswerRecord, PreferenceRecord, QuestionRecord
from athlos.errors import DataError
from athlos.evaluation.faithfulness import class_of, faithfulness
from athlos.generation.config import NativeConfig
from athlos.generation.decoding import encoded
from athlos.generation.interface import Engine, Request, SamplingRule
from athlos.generation.masked_heads import answers_without_heads
from athlos.generation.native import NativeEngine
from athlos.judging.answers import passage_text
from athlos.judging.building import build_judge
from athlos.judging.config import ScoringJudgeConfig
from athlos.judging.interface import Judge
from athlos.judging.support import joint_scores
from athlos.methods.rhio.config import Answerer, Negatives, RhioConstructConfig, count_of_heads
from athlos.methods.rhio.detect import HEADS, detected
from athlos.methods.rhio.negatives import Drop, dropped, entity_swap, relation_perturb
from athlos.models.head_scores import Head, random_heads
from athlos.parts import Made, PartContext
from athlos.stages import Stage
from athlos.text.citations import read_citations
from athlos.text.prompts import build_prompt, completion, stop_strings

VERSION = 1
"""Raised when the same weights and config give other negatives."""
NEGATIVES = "negatives.jsonl"
DECIDES = ("construct", "prompt_style", "seed")
"""Keys of the run that change a negative or what is said of it."""
Asked = QuestionRecord | LongAnswerRecord


@dataclass(frozen=True, kw_only=True)
class Negative:
    """An unfaithful answer to a question, what the judge says of both, and why it goes, if it does."""

    question: str
    text: str
    reference: str
    faith: float | None
    reference_faith: float | None
    drop: str | None


class RhioConstruct:
    def __init__(self, config: RhioConstructConfig) -> None:
        self.config = config

    def build(self, *, context: PartContext) -> Made:
        """A pair for each question whose negative is kept, in order.

        Raises `DataError` for data without questions over documents, where no head can be found, and for fewer pairs
        than `min_pairs`, with the counts by reason.
        """
        run = context.config
        records = self._records(context)
        files: list[Path] = []
        metrics: dict[str, float] = {}
        heads: list[Head] = []
        inputs = {"model": context.model_fingerprint}
        asked = self._asked(context)
        if self.config.negatives.source.is_masked:
            scores, product = detected(self.config.detect, context=asked)
            count = count_of_heads(self.config.mask.num_heads, whole=scores.mean_LH.numel())
            heads = scores.ranked()[:count]
            if self.config.negatives.source is Negatives.random_mask:
                heads = random_heads(heads, num_heads=scores.mean_LH.shape[1], rng=random.Random(run.seed))
            files.append(product.path / HEADS)
            inputs["heads"] = product.key
            metrics |= {
                "detect/top_share": scores.top_share(count),
                "detect/split_overlap": scores.split_overlap(count),
                "detect/kept_runs": float(len(scores.kept)),
            }
        assert context.data is not None
        split = run.data.train_split
        assert split is not None
        values = plain(run)
        stage = Stage(
            name="rhio_negatives",
            version=VERSION,
            inputs={**inputs, "data": context.data.source.fingerprint(split)},
            config={
                "limit": context.data.limit(split),
                **{name: values[name] for name in DECIDES},
                **({"generator": values["generator"]} if self._is_others else {}),
            },
            build=lambda folder: self._write(folder / NEGATIVES, records, heads, context=asked),
        )
        product = context.stages.get(stage)
        path = product.path / NEGATIVES
        rows = [Negative(**row) for row in read_rows(path)]
        pairs = list(self._pairs(records, rows, context=context))
        counts = Counter(row.drop for row in rows)
        reasons = ", ".join(f"{counts[drop]} {drop}" for drop in Drop)
        if len(pairs) < self.config.min_pairs:
            raise DataError(
                f"construct.min_pairs: got {len(pairs)} pairs of {len(records)} questions, expected at least "
                f"{self.config.min_pairs}; left out: {reasons}"
            )
        judge = build_judge(self.config.judge, stages=context.stages).id
        known = [row.faith for row in rows if row.faith is not None]
        return Made(
            key=product.key,
            records=pairs,
            files=[*files, path],
            report=PartReport(
                summary=f"rhio: {len(pairs)} pairs of {len(records)} questions by {self.config.negatives.source}, left "
                f"out: {reasons}; judged by {judge}",
                metrics={
                    **metrics,
                    "construct/pairs": float(len(pairs)),
                    "construct/negative_faith": sum(known) / max(1, len(known)),
                    **{f"construct/drop_{drop}": float(counts[drop]) for drop in Drop},
                },
            ),
        )

    @property
    def _is_others(self) -> bool:
        return self.config.negatives.source is Negatives.other_model

    def _records(self, context: PartContext) -> list[Asked]:
        assert context.data is not None
        split = context.config.data.train_split
        assert split is not None
        records = [
            record
            for record in context.data.records(split)
            if isinstance(record, Asked) and record.passages and completion(record, context.config.prompt_style).strip()
        ][: self.config.num_questions]
        if not records:
            name = context.config.data.name
            raise DataError(
                f"construct=rhio: split '{split}' of data={name} has no question with documents and an answer"
            )
        return records

    def _asked(self, context: PartContext) -> PartContext:
        """The context whose model writes the negatives: as it is, or before any phase."""
        if self.config.negatives.model is Answerer.sft or not self.config.negatives.source.asks_model:
            return context
        _ = context.base_model
        assert context.base is not None
        return dataclasses.replace(context, start=context.base)

    def _write(self, path: Path, records: Sequence[Asked], heads: Sequence[Head], *, context: PartContext) -> None:
        judge_config = self.config.judge
        assert isinstance(judge_config, ScoringJudgeConfig)
        judge = build_judge(judge_config, stages=context.stages)
        style = context.config.prompt_style
        references = [completion(record, style).strip() for record in records]
        texts = [text.strip() for text in self._texts(records, references, heads, context=context)]
        faiths = faith_of(texts, records, judge=judge, threshold=judge_config.threshold)
        of_references = faith_of(references, records, judge=judge, threshold=judge_config.threshold)
        with path.open("w", encoding="utf-8") as file:
            for record, text, reference, faith, reference_faith in zip(
                records, texts, references, faiths, of_references, strict=True
            ):
                drop = dropped(
                    text,
                    reference,
                    faith=faith,
                    reference_faith=reference_faith,
                    language=record.language,
                    filters=self.config.negatives.filters,
                    by_rule=self.config.negatives.source in (Negatives.entity_swap, Negatives.relation_perturb),
                )
                row = Negative(
                    question=record.identifier,
                    text=text,
                    reference=reference,
                    faith=None if faith != faith else faith,
                    reference_faith=None if reference_faith != reference_faith else reference_faith,
                    drop=drop,
                )
                add_row(file, dataclasses.asdict(row))

    def _texts(
        self, records: Sequence[Asked], references: Sequence[str], heads: Sequence[Head], *, context: PartContext
    ) -> list[str]:
        """A negative for each question, unfiltered."""
        negatives, run = self.config.negatives, context.config
        if negatives.source is Negatives.entity_swap:
            return [
                entity_swap(
                    reference,
                    [passage.text for passage in record.passages],
                    language=record.language,
                    rng=random.Random(f"{run.seed}/{record.identifier}"),
                )
                for record, reference in zip(records, references, strict=True)
            ]
        if negatives.source is Negatives.relation_perturb:
            return [
                relation_perturb(reference, language=record.language)
                for record, reference in zip(records, references, strict=True)
            ]
        requests = [self._request(record, style=run.prompt_style) for record in records]
        stop = sorted({stop for record in records for stop in stop_strings(record, run.prompt_style)})
        if negatives.source is Negatives.other_model:
            assert context.generator is not None
            prompts = [
                encoded(context.generator, request, max_new_tokens=negatives.max_new_tokens) for request in requests
            ]
            answers = context.generator.generate(prompts, rule=SamplingRule(), stop=stop)
            return [sample.text for [sample] in answers]
        samples = answers_without_heads(
            self._engine(context),
            requests,
            heads=heads,
            max_new_tokens=negatives.max_new_tokens,
            stop=stop,
            **self.config.mask.options,
        )
        return [sample.text for sample in samples]

    def _request(self, record: Asked, *, style: str) -> Request:
        shown = record
        front = ""
        if self.config.negatives.source is Negatives.prompt:
            shown = dataclasses.replace(record, passages=[])
            front = self.config.negatives.instruction
        prompt = front + build_prompt(shown, shots=(), style=style)
        return Request(identifier=record.identifier, prompt=prompt, record=record)

    def _engine(self, context: PartContext) -> Engine:
        assert context.start is not None
        config = NativeConfig(_target_="", batch_size=self.config.negatives.batch_size)
        return NativeEngine(config, model=context.start.model, tokenizer=context.start.tokenizer)

    def _pairs(
        self, records: Sequence[Asked], rows: Sequence[Negative], *, context: PartContext
    ) -> Iterator[PreferenceRecord]:
        style = context.config.prompt_style
        for record, row in zip(records, rows, strict=True):
            if row.drop is None:
                gap = completion(record, style)[: -len(completion(record, style).lstrip())]
                yield PreferenceRecord(
                    identifier=record.identifier,
                    language=record.language,
                    prompt=build_prompt(record, shots=(), style=style),
                    chosen=gap + row.reference,
                    rejected=gap + row.text,
                )


def faith_of(texts: Sequence[str], records: Sequence[Asked], *, judge: Judge, threshold: float) -> list[float]:
    """Share of each text's sentences that its documents, joined, support; nan for refusals and empty texts."""
    answers = [
        read_citations(text, num_documents=len(record.passages), language=record.language)
        for text, record in zip(texts, records, strict=True)
    ]
    documents = [[passage_text(passage) for passage in record.passages] for record in records]
    return [
        faithfulness(scores, class_of(answer, language=record.language), threshold=threshold)
        for scores, answer, record in zip(joint_scores(judge, answers, documents), answers, records, strict=True)
    ]
