"""`suite=kmkc`: how well a model knows, and knows what it knows.

Each question is asked greedily, which is the answer that counts, and K times at temperature 1, which says what the
model knows: known = at least half of the K answers are right. A share of the facts is held out: on them the temperature
and the threshold of refusal are fitted, and nothing is measured.
"""

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from athlos.config.schema import RunConfig
from athlos.data.fact_variants import REGION
from athlos.data.records import QuestionRecord, Record
from athlos.data.regions import Region
from athlos.evaluation.asking import Asked, ask
from athlos.evaluation.calibration import refusal_threshold, self_knowledge
from athlos.evaluation.metrics import MacroMean
from athlos.evaluation.sharding import in_shares
from athlos.evaluation.suite import Answerer, MetricDetail, SuiteResult
from athlos.evaluation.suites.calibration import add_calibration, is_held_out, sequence_confidence
from athlos.generation.interface import Prompt, Request
from athlos.generation.openai_engine import OpenAIEngine
from athlos.methods.kmkc.answers import is_right
from athlos.methods.kmkc.config import ConfidenceKind, KmkcSuiteConfig, Refusal
from athlos.methods.kmkc.construct import law_of
from athlos.methods.kmkc.profile import profiled
from athlos.methods.kmkc.regions import Profile, bounds, macro_f1, rule

KNOWN = 0.5
"""Share of right answers among K from which a question is known."""
HOW_SURE = "How sure are you that it is right, from 0 to 100? Say one number.\nSure:"
IS_IT_TRUE = "Is the proposed answer right? Say yes or no.\nReply:"
MAY_REFUSE = "If you do not know the answer, say: I do not know.\n"
_REFUSES = re.compile(r"\b(?:do not|don't|cannot|can't) (?:know|answer)\b", re.IGNORECASE)
_NUMBER = re.compile(r"\d+(?:\.\d+)?")


class KmkcSuite:
    is_seeded = True

    def __init__(self, config: KmkcSuiteConfig, run: RunConfig) -> None:
        self.config, self.run = config, run

    def evaluate(
        self, answerer: Answerer, records: Sequence[Record], *, shots_pool: Sequence[Record] = (), progress: Any = None
    ) -> SuiteResult:
        config = self.config
        asked = ask(
            self.run,
            answerer,
            records,
            record_type=QuestionRecord,
            suite="kmkc",
            shots_pool=shots_pool,
            progress=progress,
        )
        most = config.profile.max_answer_tokens
        right = [
            float(is_right(answer, record, max_tokens=most))
            for answer, record in zip(asked.answers, asked.records, strict=True)
        ]
        profiles = self._profiles(answerer, asked, progress=progress)
        conf = self._confidences(answerer, asked, profiles)
        held = np.array([is_held_out(record, config.held_out) for record in asked.records])
        result = SuiteResult(
            signatures={
                **asked.signatures,
                "kmkc": f"confidence:{config.confidence}|right:cover_em, {most} words|bins:{config.num_bins}"
                f"|samples:{config.profile.num_samples}|held_out:{config.held_out:g}|refusal:{config.refusal}",
            }
        )
        add_calibration(result, config, run=self.run, records=asked.records, conf=conf, correct=right)
        acc = MacroMean("acc", evaluation=self.run.eval)
        acc.update([value for value, out in zip(right, held, strict=True) if not out], np.array(asked.languages)[~held])
        metrics, details = acc.compute()
        result.add({"acc": metrics["acc"]}, {"acc": details["acc"]})
        regions = self._add_regions(result, asked.records, profiles, held)
        answered = self._add_self_knowledge(result, answerer, asked, np.array(conf), np.array(right), profiles, held)
        result.predictions = asked.rows(
            [record.answers for record in asked.records],
            right=right,
            confidence=conf,
            acc=[profile.acc for profile in profiles],
            ubar=[profile.ubar for profile in profiles],
            kappa=[profile.kappa for profile in profiles],
            omega=[profile.omega for profile in profiles],
            region=regions,
            answered=answered.tolist(),
            held_out=held.tolist(),
        )
        return result

    def _profiles(self, answerer: Answerer, asked: Asked[QuestionRecord], *, progress: Any) -> list[Profile]:
        pairs = list(zip(asked.records, (request.prompt for request in asked.requests), strict=True))
        return in_shares(
            pairs,
            lambda share: profiled(
                answerer.engine,
                [record for record, _ in share],
                [prompt for _, prompt in share],
                config=self.config.profile,
                style=self.run.prompt_style,
                seed=self.run.seed,
                progress=progress,
            ),
        )

    def _confidences(
        self, answerer: Answerer, asked: Asked[QuestionRecord], profiles: Sequence[Profile]
    ) -> list[float]:
        """One an item, in [0, 1]; nan where the model's own number cannot be read."""
        kind = self.config.confidence
        if kind is ConfidenceKind.majority:
            return [profile.kappa for profile in profiles]
        if kind is ConfidenceKind.seq_prob:
            return [sequence_confidence(answer.log_prob, answer.num_tokens) for answer in asked.predictions]
        pairs = list(zip(asked.records, asked.answers, strict=True))
        if kind is ConfidenceKind.p_true:
            return in_shares(pairs, lambda share: _probabilities_of_true(answerer, share))
        return in_shares(pairs, lambda share: _verbalised(answerer, share))

    def _add_regions(
        self, result: SuiteResult, records: Sequence[QuestionRecord], profiles: Sequence[Profile], held: np.ndarray
    ) -> list[str]:
        """The decay law, the shares of the regions by the rule, and how well these agree with the truth."""
        high, low = self.config.region.high, self.config.region.low
        law = law_of(profiles, seed=self.run.seed)
        u_lo, u_hi = bounds(profiles, law, high=high, low=low)
        regions = [rule(profile, u_lo=u_lo, u_hi=u_hi, high=high, low=low) for profile in profiles]
        metrics = {f"region_share/{name}": regions.count(name) / len(regions) for name in Region}
        intervals: dict[str, tuple[float, float]] = {}
        if law is not None:
            metrics |= {f"decay_{name}": getattr(law, name) for name in ("a", "b", "c", "r2")}
            intervals = {f"decay_{name}": ends for name, ends in law.intervals.items()}
        metrics |= {"u_lo": u_lo, "u_hi": u_hi, "sample_acc": float(np.mean([p.acc for p in profiles]))}
        if all(REGION in record.meta for record in records):
            truth = [record.meta[REGION] for record in records]
            metrics["region_f1"] = macro_f1(truth, regions)
            for true in Region:
                of_true = [name for name, is_true in zip(regions, truth, strict=True) if is_true == true]
                for name in Region:
                    metrics[f"region_of_{true}/{name}"] = of_true.count(name) / len(of_true) if of_true else math.nan
        spans = {name: intervals.get(name, (None, None)) for name in metrics}
        details = {name: MetricDetail(n=len(profiles), low=low, high=high) for name, (low, high) in spans.items()}
        result.add(metrics, details)
        return [region.value for region in regions]

    def _add_self_knowledge(
        self,
        result: SuiteResult,
        answerer: Answerer,
        asked: Asked[QuestionRecord],
        conf: np.ndarray,
        right: np.ndarray,
        profiles: Sequence[Profile],
        held: np.ndarray,
    ) -> np.ndarray:
        """Whether each question is answered; a question without a confidence is refused."""
        known = np.array([profile.acc >= KNOWN for profile in profiles])
        if self.config.refusal is Refusal.prompt:
            answered = ~np.array(in_shares(asked.requests, lambda share: _refusals(answerer, share)))
        else:
            fits = held & ~np.isnan(conf)
            threshold = refusal_threshold(conf[fits], right[fits], known[fits])
            result.add({"refusal_threshold": threshold}, {"refusal_threshold": MetricDetail(n=int(fits.sum()))})
            answered = np.nan_to_num(conf, nan=-1.0) >= threshold
        metrics = self_knowledge(answered[~held], right[~held], known[~held])
        metrics |= {"answered_share": float(answered[~held].mean()), "known_share": float(known[~held].mean())}
        result.add(metrics, {name: MetricDetail(n=int((~held).sum())) for name in metrics})
        return answered


def _proposed(record: QuestionRecord, answer: str) -> str:
    return f"Question: {record.question}\nProposed answer: {answer}\n"


def _verbalised(answerer: Answerer, pairs: Sequence[tuple[QuestionRecord, str]]) -> list[float]:
    requests = [
        Request(
            identifier=record.identifier,
            prompt=_proposed(record, answer) + HOW_SURE,
            record=record,
        )
        for record, answer in pairs
    ]
    return [read_percent(prediction.text) for prediction in answerer.answer(requests)]


def read_percent(text: str) -> float:
    """The first number of a reply over 100; nan where there is none in [0, 100]."""
    match = _NUMBER.search(text)
    value = float(match.group()) if match else math.nan
    return value / 100 if 0 <= value <= 100 else math.nan


def _probabilities_of_true(answerer: Answerer, pairs: Sequence[tuple[QuestionRecord, str]]) -> list[float]:
    assert isinstance(answerer.engine, OpenAIEngine)  # the check of the config saw to it
    prompts = [Prompt(text=_proposed(record, answer) + IS_IT_TRUE, max_new_tokens=1) for record, answer in pairs]
    probs = answerer.engine.first_token_probs(prompts, options=("yes", "no"))
    return [yes / (yes + no) if yes + no else math.nan for yes, no in probs]


def _refusals(answerer: Answerer, requests: Sequence[Request]) -> list[bool]:
    asked = [
        Request(
            identifier=request.identifier,
            prompt=MAY_REFUSE + request.prompt,
            record=request.record,
            seed=request.seed,
            stop=request.stop,
        )
        for request in requests
    ]
    return [is_refusal(prediction.text) for prediction in answerer.answer(asked)]


def is_refusal(text: str) -> bool:
    """Whether an answer says that it is not known."""
    return bool(_REFUSES.search(text))
