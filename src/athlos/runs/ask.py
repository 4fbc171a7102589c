"""One question through the pipeline of a config."""

from athlos.config.schema import RunConfig
from athlos.data.records import QuestionRecord
from athlos.generation.interface import Prediction, Request
from athlos.runs import assemble, chain
from athlos.stages import StageStore, cache_dir


def ask(run: RunConfig, question: str, *, language: str) -> Prediction:
    """The answer with its trace; the same question to the same passages, model and settings is answered once."""
    stages = StageStore(cache_dir(run.cache_dir))
    run = chain.served(run, stages=stages)
    start = None if run.engine.is_remote else chain.start_of(run, stages=stages)
    loaded = None if start is None else assemble.load(run, start.model, stages=stages)
    module = assemble.for_evaluation(
        run, loaded, applies_surgery=start is not None and start.needs_surgery(run), load_base=None, stages=stages
    ).module
    record = QuestionRecord(identifier="question", language=language, question=question, answers=[])
    (prediction,) = module.answer([Request(identifier=record.identifier, prompt=question, record=record)])
    return prediction
