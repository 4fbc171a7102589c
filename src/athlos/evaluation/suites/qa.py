"""Questions with short gold answers: exact match, token F1, containment, and the length that containment rewards.

Each metric is a macro mean over languages, with `name/<language>` beside it. Each language has its default normaliser:
`squad` for English, else `mkqa_unicode`. The gold answer of an unanswerable question is `noanswer`.
"""

from collections.abc import Sequence
from typing import Any

from athlos.config.schema import RunConfig
from athlos.data.records import QuestionRecord, Record
from athlos.evaluation.answers import em_gap, em_std, score_answers
from athlos.evaluation.asking import ask
from athlos.evaluation.config import QuestionsConfig
from athlos.evaluation.metrics import MacroMean
from athlos.evaluation.suite import Answerer, MetricDetail, SuiteResult
from athlos.text.normalisation import default_normaliser
from athlos.text.prompt_styles import gold_answers


class QuestionSuite:
    is_seeded = True
    normaliser: str | None = None
    """One for all languages; None = each language's default."""

    def __init__(self, config: QuestionsConfig, run: RunConfig) -> None:
        self.config, self.run = config, run

    def evaluate(
        self, answerer: Answerer, records: Sequence[Record], *, shots_pool: Sequence[Record] = (), progress: Any = None
    ) -> SuiteResult:
        asked = ask(
            self.run,
            answerer,
            records,
            record_type=QuestionRecord,
            suite="qa",
            shots_pool=shots_pool,
            progress=progress,
        )
        golds = [gold_answers(record) for record in asked.records]
        scores = score_answers(asked.answers, golds, asked.languages, normaliser=self.normaliser)
        languages = list(dict.fromkeys(asked.languages))
        result = SuiteResult(
            predictions=asked.rows(golds, **scores),
            signatures={
                **asked.signatures,
                "normaliser": self.normaliser
                or "|".join(f"{language}:{default_normaliser(language)}" for language in sorted(languages)),
            },
        )
        for name, items in {**scores, "runaway_rate": asked.runaway}.items():
            mean = MacroMean(name, evaluation=self.run.eval)
            mean.update(items, asked.languages)
            result.add(*mean.compute())
        if len(languages) > 1:
            em_of_language = {language: result.metrics[f"em/{language}"] for language in languages}
            for name, spread in (("em_gap", em_gap), ("em_std", em_std)):
                result.metrics[name] = spread(em_of_language)
                result.details[name] = MetricDetail(n=len(languages))
        return result
