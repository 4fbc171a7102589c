"""`suite=heads`: the heads of a model by score, and what is left of its answers when some of them are silent.

`detect_top_share` and `detect_split_overlap` are of the run's own detection; `faith@mask{n}_retrieval` of answers
without the n best heads, `@mask{n}_random` without as many others in each layer, a mean over draws; `@mask0` of the
whole model. `em`, `f1` and `rouge_l` likewise; `needle` is the recall of needles that are asked for.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Any

from athlos.config.schema import RunConfig
from athlos.data.records import LongAnswerRecord, QuestionRecord, Record
from athlos.errors import DataError
from athlos.evaluation.answers import score_answers
from athlos.evaluation.metrics import MacroMean
from athlos.evaluation.suite import Answerer, MetricDetail, SuiteResult
from athlos.generation.config import NativeConfig
from athlos.generation.interface import Prompt, Request, Sample, SamplingRule, Silence
from athlos.generation.masked_heads import answers_without_heads
from athlos.generation.native import NativeEngine
from athlos.judging.building import build_judge
from athlos.judging.config import ScoringJudgeConfig
from athlos.methods.rhio.config import HeadsSuiteConfig, count_of_heads
from athlos.methods.rhio.construct import faith_of
from athlos.methods.rhio.detect import Task, detected, prompts_of, task_of
from athlos.methods.rhio.module import RhioModule
from athlos.models.head_scores import Head, HeadScores, random_heads
from athlos.text.overlap import rouge_1, rouge_l
from athlos.text.prompts import build_prompt, completion, read_answer, stop_strings


class HeadsSuite:
    is_seeded = True

    def __init__(self, config: HeadsSuiteConfig, run: RunConfig) -> None:
        self.config, self.run = config, run

    def evaluate(
        self, answerer: Answerer, records: Sequence[Record], *, shots_pool: Sequence[Record] = (), progress: Any = None
    ) -> SuiteResult:
        """Raises `DataError` for data without questions over documents."""
        assert isinstance(answerer, RhioModule)
        config, context = self.config, answerer.context
        asked = [
            record for record in records if isinstance(record, QuestionRecord | LongAnswerRecord) and record.passages
        ]
        if not asked:
            raise DataError(f"suite=heads: data={self.run.data.name} has no question with documents")
        scores, _ = detected(config.detect, context=context)
        count = count_of_heads(config.mask.num_heads, whole=scores.mean_LH.numel())
        result = SuiteResult(signatures={"heads": f"{config.detect.mode}|{config.detect.score}|{config.mask.mode}"})
        result.add(*_of_scores(scores, count))
        engine = NativeEngine(
            NativeConfig(_target_="", batch_size=self.run.eval.batch_size),
            model=answerer.model,
            tokenizer=answerer.tokenizer,
        )
        task = task_of(config.detect, context=context)
        for name, draws in self._silenced(scores):
            texts = [self._answers(engine, asked, heads) for heads in draws]
            self._add_answers(result, name, asked, texts, context=context)
            if config.num_needles:
                recalls = [recall for heads in draws for recall in self._needles(engine, task, heads)]
                self._add(result, f"needle@{name}", recalls, [task.language] * len(recalls))
        result.predictions = [
            {"id": f"{layer}-{head}", "language": "en", "score": float(scores.mean_LH[layer, head])}
            for layer, head in scores.ranked()
        ]
        return result

    def _silenced(self, scores: HeadScores) -> Iterator[tuple[str, list[list[Head]]]]:
        """Name and draws of heads: none; the best; as many others."""
        best, num_heads = scores.ranked(), scores.mean_LH.shape[1]
        for count in self.config.counts:
            heads = best[:count]
            if not heads:
                yield "mask0", [[]]
                continue
            yield f"mask{count}_retrieval", [heads]
            yield (
                f"mask{count}_random",
                [
                    random_heads(heads, num_heads=num_heads, rng=random.Random(f"{self.run.seed}/{count}/{draw}"))
                    for draw in range(self.config.num_draws)
                ],
            )

    def _answers(
        self, engine: NativeEngine, records: Sequence[QuestionRecord | LongAnswerRecord], heads: Sequence[Head]
    ) -> list[str]:
        style = self.run.prompt_style
        requests = [
            Request(identifier=record.identifier, prompt=build_prompt(record, shots=(), style=style), record=record)
            for record in records
        ]
        samples = answers_without_heads(
            engine,
            requests,
            heads=heads,
            max_new_tokens=self.config.max_new_tokens,
            stop=sorted({stop for record in records for stop in stop_strings(record, style)}),
            **self.config.mask.options,
        )
        return [read_answer(sample.text, record, style=style) for sample, record in zip(samples, records, strict=True)]

    def _needles(self, engine: NativeEngine, task: Task, heads: Sequence[Head]) -> list[float]:
        """Recall of each needle at the shortest length, in [0, 1], by greedy answers of one line."""
        detect = self.config.detect
        shortest = min(detect.lengths)
        prompts = [
            prompt
            for prompt in prompts_of(task, engine.tokenizer, config=detect, seed=self.run.seed)
            if prompt.length == shortest
        ][: self.config.num_needles]
        answers: list[list[Sample]] = engine.generate(
            [Prompt(token_ids=prompt.ids, max_new_tokens=detect.max_new_tokens) for prompt in prompts],
            rule=SamplingRule(),
            stop=["\n"],
            silence=Silence(heads=tuple(heads), **self.config.mask.options),
        )
        return [
            rouge_1(sample.text, task.needles[prompt.needle].text, language=task.language).recall
            for prompt, [sample] in zip(prompts, answers, strict=True)
        ]

    def _add_answers(
        self,
        result: SuiteResult,
        name: str,
        records: Sequence[QuestionRecord | LongAnswerRecord],
        texts: Sequence[Sequence[str]],
        *,
        context: Any,
    ) -> None:
        judge_config = self.run.judge
        assert isinstance(judge_config, ScoringJudgeConfig)
        judge = build_judge(judge_config, stages=context.stages)
        answers = [text for of_draw in texts for text in of_draw]
        again = [record for _ in texts for record in records]
        languages = [record.language for record in again]
        self._add(
            result, f"faith@{name}", faith_of(answers, again, judge=judge, threshold=judge_config.threshold), languages
        )
        references = [completion(record, self.run.prompt_style).strip() for record in again]
        overlaps = [
            rouge_l(answer, reference, language=language).f1
            for answer, reference, language in zip(answers, references, languages, strict=True)
        ]
        self._add(result, f"rouge_l@{name}", overlaps, languages)
        golds = [record.answers for record in again if isinstance(record, QuestionRecord)]
        if len(golds) == len(again):
            scores = score_answers(answers, golds, languages)
            for metric in ("em", "f1", "cover_em"):
                self._add(result, f"{metric}@{name}", scores[metric], languages)

    def _add(self, result: SuiteResult, name: str, values: Sequence[float], languages: Sequence[str]) -> None:
        mean = MacroMean(name, evaluation=self.run.eval)
        mean.update(values, languages)
        metrics, details = mean.compute()
        result.add({name: metrics[name]}, {name: details[name]})


def _of_scores(scores: HeadScores, count: int) -> tuple[dict[str, float], dict[str, MetricDetail]]:
    best = scores.mean_LH.flatten()
    metrics = {
        "detect_top_share": scores.top_share(count),
        "detect_split_overlap": scores.split_overlap(count),
        "detect_strong": float((best >= 0.1).sum()),
        "detect_best": float(best.max()),
    }
    return metrics, {name: MetricDetail(n=len(scores.kept)) for name in metrics}
