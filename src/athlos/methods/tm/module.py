"""TMPLM: y = argmax P(y | f_ref(x1, y1, ..., xk, yk, x)), by the run's own decoding on its engine.

The algorithm in its order: `memory.py` splits memory and test, `retrieval.py` ranks pairs for a sentence, `prompts.py`
writes the prompt and reads the answer; here they are put together. Nothing is trained. Source: arXiv 2305.17367.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from athlos.config.compose import plain
from athlos.data.json_lines import read_rows, write_rows
from athlos.data.records import ParallelRecord
from athlos.errors import ConfigError, DataError
from athlos.generation.config import CadConfig
from athlos.generation.interface import Prediction, Request
from athlos.generation.local import LocalEngine
from athlos.generation.pipeline import in_chat_form
from athlos.methods.tm.config import Hypothesis, Rank, Shortlist, Template, TmConfig
from athlos.methods.tm.memory import Memory, read_memory, shown_targets
from athlos.methods.tm.prompts import Written, echo_of, ordered, read_code, read_instruction, write_prompt
from athlos.methods.tm.retrieval import Found, Matcher, exact_matches
from athlos.parts import PartContext
from athlos.stages import Stage, StageStore, content_hash
from athlos.training.module import Measured, MethodModule

ZERO_SHOT_VERSION = 2
"""Raised when the same prompts are answered or read in another way."""
ANSWERS = "answers.jsonl"
MOST_RECALL_SENTENCES = 200
"""Sentences whose best match is also looked for in the whole memory, for `retrieval/prefilter_recall`."""


@dataclass(frozen=True, kw_only=True)
class Matched:
    """What the memory has for a sentence."""

    shown: list[Found]
    """The pairs of its prompt, best first."""
    best: Found | None
    """The most alike by fuzzy match score, whatever ranking the prompt uses; it decides the bucket."""


class TmModule(MethodModule[TmConfig]):
    """Puts pairs of the memory into prompts; decoding and engine are those of the run."""

    def prepare(self, *, context: PartContext) -> None:
        self.context = context
        # Each process of a run answers sentences of its own, so each is the writer of its products.
        self._stages = StageStore(context.stages.root)
        self._stages.history = context.stages.history
        self._asked: dict[str, tuple[ParallelRecord, Matched]] = {}
        self._answered: list[Prediction] = []

    @cached_property
    def memory(self) -> Memory:
        """Raises `ConfigError` where it holds fewer than k pairs."""
        memory = read_memory(self.method, context=self.context)
        if self.method.k > len(memory.pairs):
            raise ConfigError(f"method.k: got {self.method.k}, but the memory holds {len(memory.pairs)} pairs")
        return memory

    @cached_property
    def _targets(self) -> dict[str, str]:
        method = self.method
        return shown_targets(self.memory.pairs, kind=method.tm_corrupt, noise=method.noise, seed=self.config.seed)

    def matched(self, records: Sequence[ParallelRecord]) -> list[Matched]:
        """Shown pairs and best match of each sentence.

        Raises `DataError` for a pair of the memory that is a sentence with a reference itself: a leak.
        """
        if not records:
            return []
        method, matcher = self.method, self._matcher(records)
        by_fms = matcher.matches(records, rank=Rank.fms, prefilter=method.prefilter)
        ranked = by_fms
        if method.rank is not Rank.fms:
            ranked = matcher.matches(records, rank=method.rank, prefilter=method.prefilter)
        return [
            Matched(shown=self._shown(record, of_rank), best=next(iter(self._allowed(record, of_fms)), None))
            for record, of_rank, of_fms in zip(records, ranked, by_fms, strict=True)
        ]

    def _matcher(self, records: Sequence[ParallelRecord]) -> Matcher:
        languages = {record.source_language for record in records}
        if len(languages) > 1:
            raise DataError(
                f"tm: sentences in {', '.join(sorted(languages))} at once; a memory has one source language"
            )
        tokenize = self.engine.encode if isinstance(self.engine, LocalEngine) else None
        return Matcher(
            method=self.method,
            memory=self.memory,
            language=languages.pop(),
            stages=self._stages,
            seed=self.config.seed,
            tokenize=tokenize,
        )

    def _allowed(self, record: ParallelRecord, matches: Sequence[Found]) -> list[Found]:
        exact = exact_matches(record, matches)
        if exact and record.target:
            raise DataError(
                f"sentence '{record.identifier}': the memory holds it as '{exact[0].pair.identifier}', "
                f"'{exact[0].pair.source}'; an evaluation with its own answer in the memory says nothing"
            )
        return list(matches) if self.method.allow_exact else [match for match in matches if match not in exact]

    def _shown(self, record: ParallelRecord, matches: Sequence[Found]) -> list[Found]:
        allowed = self._allowed(record, matches)
        return [match for match in allowed if match.score >= self.method.min_score][: self.method.k]

    def answer(self, requests: Sequence[Request], *, progress: Callable[..., None] | None = None) -> list[Prediction]:
        """One translation a request, in order. The trace tells the matches, the prompt and the raw reply."""
        records = [_sentence(request) for request in requests]
        matched = self.matched(records)
        pairs = [self._pairs(record, matches.shown) for record, matches in zip(records, matched, strict=True)]
        predictions = self._translated(requests, pairs, progress=progress)
        for record, matches, prediction in zip(records, matched, predictions, strict=True):
            self._asked[record.identifier] = record, matches
            prediction.trace.insert(0, self._told(matches))
        self._answered += predictions
        return predictions

    def zero_shot(
        self, requests: Sequence[Request], *, progress: Callable[..., None] | None = None
    ) -> list[Prediction]:
        """The same requests without the memory: a stage product, so that all arms of a study share it."""

        def build(folder: Path) -> None:
            predictions = self._translated(requests, [[] for _ in requests], progress=progress)
            write_rows(folder / ANSWERS, map(dataclasses.asdict, predictions))

        prompts = [self._written(request, []).text for request in requests]
        values = plain(self.config)
        engine = {key: value for key, value in values["engine"].items() if key not in self.config.engine.operational}
        stage = Stage(
            name="tm_zero_shot",
            version=ZERO_SHOT_VERSION,
            inputs={
                "prompts": content_hash(
                    [[prompt, request.seed] for prompt, request in zip(prompts, requests, strict=True)]
                ),
                "model": "" if self.context.start is None else self.context.model_fingerprint,
            },
            config={
                "surgery": values["surgery"],
                "decoding": values["decoding"],
                "engine": engine,
                "template": values["method"]["template"],
                "dtype": values["model"]["dtype"],
                "precision": self.config.hardware.precision,
            },
            build=build,
        )
        return [Prediction(**row) for row in read_rows(self._stages.get(stage).path / ANSWERS)]

    def _pairs(self, record: ParallelRecord, shown: Sequence[Found]) -> list[tuple[str, str]]:
        pairs = [(match.pair.source, self._targets[match.pair.identifier]) for match in shown]
        return ordered(pairs, order=self.method.order, seed=f"{self.config.seed}:{record.identifier}")

    def _written(self, request: Request, pairs: Sequence[tuple[str, str]]) -> Written:
        record, method = _sentence(request), self.method
        draft = str(record.meta.get(method.hypothesis_field, "")) if method.hypothesis is Hypothesis.nmt else ""
        written = write_prompt(
            method,
            record.source,
            pairs,
            source_language=record.source_language,
            target_language=record.language,
            draft=draft,
        )
        if method.template is Template.code:
            return written
        return dataclasses.replace(written, text=in_chat_form(self.engine, written.text))

    def _translated(
        self,
        requests: Sequence[Request],
        pairs: Sequence[Sequence[tuple[str, str]]],
        *,
        progress: Callable[..., None] | None,
    ) -> list[Prediction]:
        written = [self._written(request, of_request) for request, of_request in zip(requests, pairs, strict=True)]
        is_contrast = isinstance(self.config.decoding, CadConfig)
        rewritten = [
            dataclasses.replace(
                request,
                prompt=prompt.text,
                stop=list(prompt.stop),
                without=self._written(request, []).text if is_contrast else "",
            )
            for request, prompt in zip(requests, written, strict=True)
        ]
        replies = super().answer(rewritten, progress=progress)
        return [
            dataclasses.replace(
                reply,
                text=self._read(reply.text, _sentence(request), prompt),
                trace=[{"purpose": "translate", "prompt": prompt.text, "reply": reply.text}],
            )
            for reply, request, prompt in zip(replies, requests, written, strict=True)
        ]

    def _read(self, text: str, record: ParallelRecord, prompt: Written) -> str:
        if self.method.template is Template.code:
            return read_code(text, is_open=prompt.is_open)
        echo = echo_of(
            self.method.instruction,
            record.source,
            source_language=record.source_language,
            target_language=record.language,
        )
        return read_instruction(text, prompt=prompt.text, echo=echo)

    def _told(self, matches: Matched) -> dict[str, Any]:
        """The row of the trace about the memory."""
        best = matches.best
        shown = [
            {
                "id": match.pair.identifier,
                "score": match.score,
                "source": match.pair.source,
                "target": self._targets[match.pair.identifier],
            }
            for match in matches.shown
        ]
        closest = (
            None if best is None else {"id": best.pair.identifier, "score": best.score, "target": best.pair.target}
        )
        return {"purpose": "match", "shown": shown, "best": closest}

    def measurements(self) -> Measured:
        """What a sentence cost, what the memory holds, and how often the shortlist has the best match of all."""
        if not self._answered:
            return {}, {}
        count = len(self._answered)
        scores = [matches.best.score if matches.best else 0.0 for _, matches in self._asked.values()]
        measured = {
            "cost/prompt_tokens": sum(prediction.num_prompt_tokens for prediction in self._answered) / count,
            "cost/new_tokens": sum(prediction.num_tokens for prediction in self._answered) / count,
            "retrieval/best_fms": math.fsum(scores) / len(scores),
            "retrieval/shown_pairs": sum(len(matches.shown) for _, matches in self._asked.values()) / len(scores),
            "retrieval/prefilter_recall": self._recall(),
            **{f"retrieval/pairs_{reason}": float(number) for reason, number in self.memory.counts.items()},
        }
        return measured, {}

    def _recall(self) -> float:
        """Share of the sentences whose best match by the shortlist scores as high as the best of the whole memory."""
        asked = list(self._asked.values())[:MOST_RECALL_SENTENCES]
        if self.method.prefilter is Shortlist.all:
            return 1.0
        records = [record for record, _ in asked]
        exhaustive = self._matcher(records).matches(records, rank=Rank.fms, prefilter=Shortlist.all)
        hits = [
            (best.score if (best := matches.best) else 0.0) >= (ranked[0].score if ranked else 0.0)
            for (_, matches), ranked in zip(asked, exhaustive, strict=True)
        ]
        return sum(hits) / len(hits)


def _sentence(request: Request) -> ParallelRecord:
    if not isinstance(request.record, ParallelRecord):
        raise DataError(f"request '{request.identifier}': method=tm translates, and this is no pair of sentences")
    return request.record
