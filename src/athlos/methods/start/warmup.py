"""The warm-up set of START as a stage product: `warmup.jsonl` and `synth_report.json`, made by `synthesis.py`."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

from athlos.config.compose import decisive, plain
from athlos.config.part_report import PartReport
from athlos.data.json_lines import read_rows, write_rows
from athlos.data.near_passages import OtherPassages
from athlos.data.records import LongAnswerRecord, Passage
from athlos.errors import DataError
from athlos.generation.config import SelfGeneratorConfig
from athlos.generation.interface import Prediction, Request
from athlos.generation.pipeline import Solver, solve_together
from athlos.methods.start.asking import own_engine, queries, rng_of, tokens_of
from athlos.methods.start.config import CiteConfig, Claims, SynthesisConfig, WarmupDataConfig
from athlos.methods.start.rewards import judge_values, prepared_reward
from athlos.methods.start.synthesis import Draft, DropError, Item, Tally, cited_item, drafted, written
from athlos.parts import Made, PartContext
from athlos.stages import Product, Stage, content_hash, tenths_logged

VERSION = 1
"""Raised when the same stage makes something else."""
WARMUP, SYNTH_REPORT = "warmup.jsonl", "synth_report.json"


class SynthesisConstruct:
    """The warm-up set."""

    def __init__(self, config: SynthesisConfig) -> None:
        self.config = config

    def build(self, *, context: PartContext) -> Made:
        """One cited answer for each query that comes through. Raises `DataError` where none does."""
        product = synthesised(context, warmup=self.config.warmup, cite=self.config.cite)
        records, too_long = warmup_records(context, product)
        report = json.loads((product.path / SYNTH_REPORT).read_text(encoding="utf-8"))
        drops = {**report["drops"], "too_long": too_long}
        if not records:
            raise DataError(f"warm-up: no answer came through; drops: {drops}")
        metrics = {
            "construct/warmup_items": float(len(records)),
            "construct/synth_fail_share": report["failed_documents"] / report["documents"],
            "construct/synth_unsupported_share": report["failed_sentences"] / report["sentences"],
            "construct/synth_multi_share": report["multi_cited"] / report["sentences"],
            **{f"construct/drop_{reason}": float(count) for reason, count in drops.items()},
        }
        return Made(
            key=product.key,
            records=records,
            files=[product.path / WARMUP, product.path / SYNTH_REPORT],
            report=PartReport(
                summary=f"warm-up: {len(records)} cited answers, {sum(drops.values())} dropped", metrics=metrics
            ),
        )


def synthesised(context: PartContext, *, warmup: WarmupDataConfig, cite: CiteConfig) -> Product:
    """The stage of the warm-up set. Where the model itself writes, that is the run's model before any phase."""
    run = context.config
    records = queries(context, most=warmup.num_queries)
    values = plain(run)
    inputs = {"records": content_hash([asdict(record) for record in records])}
    decides = {
        "warmup": {key: value for key, value in plain(warmup).items() if key not in ("in_flight", "num_queries")},
        "cite": plain(cite),
        "judge": judge_values(run.reward),
        "seed": run.seed,
    }
    if warmup.claims is Claims.model:
        decides["generator"] = decisive(values["generator"], config=run.generator)
        if isinstance(run.generator, SelfGeneratorConfig):
            if context.load_base is not None:
                context = replace(context, start=context.load_base())
                context = replace(context, generator=own_engine(context))
            inputs["model"] = context.model_fingerprint
    stage = Stage(
        name="start_warmup",
        version=VERSION,
        inputs=inputs,
        config=decides,
        build=lambda folder: _write_warmup(folder, records, warmup=warmup, cite=cite, context=context),
    )
    return context.stages.get(stage)


def _write_warmup(
    folder: Path,
    records: Sequence[LongAnswerRecord],
    *,
    warmup: WarmupDataConfig,
    cite: CiteConfig,
    context: PartContext,
) -> None:
    reward, tally = prepared_reward(context), Tally()
    others = OtherPassages(records)
    items = []
    for record, draft in _drafts(records, warmup, context=context):
        try:
            if isinstance(draft, DropError):
                raise draft
            items.append(
                cited_item(
                    record,
                    draft,
                    config=warmup,
                    cite=cite,
                    others=others,
                    reward=reward,
                    tally=tally,
                    rng=rng_of(context, "shuffle", record),
                )
            )
        except DropError as dropped:
            tally.drops[str(dropped)] += 1
    tally.kept = len(items)
    write_rows(folder / WARMUP, map(asdict, items))
    (folder / SYNTH_REPORT).write_text(json.dumps(tally.report(), indent=1) + "\n", encoding="utf-8")


def _drafts(
    records: Sequence[LongAnswerRecord], warmup: WarmupDataConfig, *, context: PartContext
) -> Iterator[tuple[LongAnswerRecord, Draft | DropError]]:
    """The draft of each record, in order, or why there is none."""
    if warmup.claims is not Claims.model:
        for record in records:
            try:
                yield record, drafted(record, warmup, rng=rng_of(context, "draft", record))
            except DropError as dropped:
                yield record, dropped
        return
    assert context.generator is not None
    assert context.index is not None

    def solver(request: Request) -> Solver:
        try:
            draft = yield from written(request.record, warmup, rng=rng_of(context, "draft", request.record))
        except DropError as dropped:
            return json.dumps({"dropped": str(dropped)})
        return json.dumps(asdict(draft), ensure_ascii=False)

    requests = [Request(identifier=record.identifier, prompt="", record=record) for record in records]
    replies, progress = dict[int, Prediction](), tenths_logged("warm-up: answers written")
    for place, prediction in solve_together(
        requests, solver, generator=context.generator, index=context.index, in_flight=warmup.in_flight
    ):
        replies[place] = prediction
        progress(len(replies), len(requests))
    for place, prediction in sorted(replies.items()):
        values = json.loads(prediction.text)
        if "dropped" in values:
            yield records[place], DropError(values["dropped"])
        else:
            documents = [Passage(**document) for document in values["documents"]]
            yield records[place], Draft(**{**values, "documents": documents})


def warmup_records(context: PartContext, product: Product) -> tuple[list[LongAnswerRecord], int]:
    """The warm-up set as records to train on, and how many do not fit into a row."""
    records = [Item(**row).record() for row in read_rows(product.path / WARMUP)]
    kept = [record for record in records if tokens_of(record, context=context) <= context.config.train.max_length]
    return kept, len(records) - len(kept)
