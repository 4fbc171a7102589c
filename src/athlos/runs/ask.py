"""One question through a config, and what the documents that were read say of its answer."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from athlos.config.schema import RunConfig
from athlos.data.records import LongAnswerRecord, Passage, QuestionRecord
from athlos.evaluation.asking import ask as asked_of
from athlos.evaluation.faithfulness import AnswerClass, class_of
from athlos.evaluation.judges import evaluation_judge
from athlos.generation.interface import Prediction, Request
from athlos.judging.answers import passage_text
from athlos.judging.config import ScoringJudgeConfig
from athlos.judging.support import cited_support, joint_scores
from athlos.parts import PartContext
from athlos.runs import assemble, chain
from athlos.stages import StageStore, cache_dir
from athlos.text.citations import CitedSentence, read_citations
from athlos.training.pipeline_module import PipelineModule

NUM_DOCUMENTS = 5
"""Passages that a method without a pipeline of its own is shown. Source: ALCE's prompts."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """A sentence of an answer, and whether it is supported: by what it cites, or, where it cites nothing, by all."""

    sentence: CitedSentence
    is_supported: bool


@dataclass(frozen=True, kw_only=True)
class Answered:
    prediction: Prediction
    judge: str = ""
    """The id of the judge and what it is worth; empty where nothing was judged."""
    marks: list[Mark] = field(default_factory=list)


def ask(run: RunConfig, question: str, *, language: str) -> Answered:
    """The answer with its trace; the same question to the same passages, model and settings is answered once.

    A method that has no pipeline answers by the run's decoding rule and prompt style from the best passages.
    """
    stages = StageStore(cache_dir(run.cache_dir))
    run = chain.served(run, stages=stages)
    start = None if run.engine.is_remote else chain.start_of(run, stages=stages)
    loaded = None if start is None else assemble.load(run, start.model, stages=stages)
    assembly = assemble.for_evaluation(
        run, loaded, applies_surgery=start is not None and start.needs_surgery(run), load_base=None, stages=stages
    )
    module = assembly.module
    if isinstance(module, PipelineModule):
        record = QuestionRecord(identifier="question", language=language, question=question, answers=[])
        (prediction,) = module.answer([Request(identifier=record.identifier, prompt=question, record=record)])
        (documents,) = module.documents([prediction])
    else:
        prediction, documents = _from_found(module, question, language=language, context=assembly.context)
    return judged(run, prediction, documents, language=language)


def judged(run: RunConfig, prediction: Prediction, documents: Sequence[Passage], *, language: str) -> Answered:
    """The answer with a mark at each sentence; without any where it refuses, nothing was read, or nobody judges."""
    answer = read_citations(prediction.text, num_documents=len(documents), language=language)
    is_answer = class_of(answer, language=language) is AnswerClass.answered
    if not (isinstance(run.judge, ScoringJudgeConfig) and documents and is_answer):
        return Answered(prediction=prediction)
    judge = evaluation_judge(run)
    texts = [passage_text(passage) for passage in documents]
    (supports,) = cited_support(judge.judge, [answer], [texts], threshold=judge.threshold)
    (joint,) = joint_scores(judge.judge, [answer], [texts])
    return Answered(
        prediction=prediction,
        judge=f"{judge.judge.id}: {judge.signatures['judge_agreement']}",
        marks=[
            Mark(
                sentence=support.sentence,
                is_supported=support.is_supported if support.num_cited else score >= judge.threshold,
            )
            for support, score in zip(supports, joint, strict=True)
        ],
    )


def _from_found(module: Any, question: str, *, language: str, context: PartContext) -> tuple[Prediction, list[Passage]]:
    """The answer from the best passages, traced as a pipeline would trace it, and these passages."""
    assert context.index is not None
    searched = language if len(context.index.languages) > 1 else None
    (hits,) = context.index.search([question], k=NUM_DOCUMENTS, language=searched)
    documents = [Passage(title=passage.title, text=passage.text, identifier=passage.identifier) for passage in hits]
    record = LongAnswerRecord(
        identifier="question", language=language, question=question, answer="", passages=documents
    )
    asked = asked_of(
        context.config, module, [record], record_type=LongAnswerRecord, suite="ask", shots_pool=(), progress=None
    )
    (prediction,), (request,), (text,) = asked.predictions, asked.requests, asked.answers
    passages = [
        {"id": passage.identifier, "rank": rank, "score": passage.score}
        | ({"title": passage.title} if passage.title else {})
        for rank, passage in enumerate(hits, start=1)
    ]
    trace: list[dict[str, Any]] = [
        {"purpose": "search", "query": question, "language": searched, "k": NUM_DOCUMENTS, "passages": passages},
        {
            "purpose": "read",
            "question": question,
            "prompt": request.prompt,
            "reply": text,
            "read": [passage.identifier for passage in hits],
            "num_prompt_tokens": prediction.num_prompt_tokens,
            "num_tokens": prediction.num_tokens,
            "finished": prediction.finished,
        },
    ]
    return replace(prediction, text=text, trace=trace), documents
