"""The samples of an iteration as stage products, and what is trained on of them: the best of each query, or pairs.

`answers.jsonl` holds the answers as drawn, `samples_t.jsonl` of iteration t the same read and scored, `masked.jsonl`
answers written without some heads, `pairs_t.jsonl` the pairs.
"""

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from athlos.config.compose import decisive, plain
from athlos.config.part_report import PartReport
from athlos.data.json_lines import add_row, read_rows, write_rows
from athlos.data.near_passages import with_documents
from athlos.data.records import LongAnswerRecord, PreferenceRecord, Record
from athlos.errors import DataError
from athlos.generation.decoding import encoded
from athlos.generation.interface import Request, SamplingRule
from athlos.generation.masked_heads import answers_without_heads
from athlos.methods.start.asking import checked, own_engine, queries
from athlos.methods.start.config import SamplesConfig, StartRewardConfig
from athlos.methods.start.likelihood import set_robust
from athlos.methods.start.rewards import Sampled, combined, judge_values, prepared_reward, read_sample, sample_metrics
from athlos.methods.start.selection import ATTR, COMP, best, worse
from athlos.methods.start.warmup import synthesised, warmup_records
from athlos.parts import Made, PartContext
from athlos.stages import Product, Stage, content_hash, tenths_logged
from athlos.text.citations import CitedSentence
from athlos.text.prompts import stop_strings

VERSION = 1
"""Raised when the same stage makes something else."""
ANSWERS, MASKED = "answers.jsonl", "masked.jsonl"
QUERIES_AT_ONCE = 16
"""Queries whose samples are drawn together: a stopped run loses at most these."""


class SamplesConstruct:
    """The samples of an iteration: the best of each query and the warm-up set, or pairs."""

    def __init__(self, config: SamplesConfig) -> None:
        self.config = config

    def build(self, *, context: PartContext) -> Made:
        """Raises `DataError` where no sample, or no pair, can be trained on, with what was found.

        Without a sample that can be chosen the first phase of an iteration ends already, warm-up set or not: it would
        only repeat the warm-up, and the second would have no pair.
        """
        config, number = self.config, self.config.iteration
        records = with_documents(
            queries(context, most=config.sample.num_queries), num_documents=config.warmup.num_documents
        )
        scores = scored(context, config, records)
        path = scores.path / samples_name(number)
        groups = [read_samples(row) for row in read_rows(path)]
        chosen = [best(samples) for samples in groups]
        metrics = sample_metrics(groups, chosen, number=number)
        passed = f"samples {number}: {metrics[f'construct/pass_rate@{number}']:.0%} pass"
        if all(sample is None for sample in chosen):
            raise DataError(f"{passed}: nothing to imitate; try reward.gate=soft")
        if config.kinds:
            others, masked_files = self._without_heads(context, records)
            pairs = preferred(records, chosen, groups, others, config=config, context=context)
            if not pairs:
                raise DataError(f"{passed}: no pair; try reward.gate=soft or method.preference.pairs=none")
            counts = Counter(pair.meta["type"] for pair in pairs)
            metrics |= {f"construct/pairs_{kind}@{number}": float(counts[kind]) for kind in (ATTR, COMP)}
            product = _pairs_stage(context, pairs, name=f"pairs_{number}.jsonl")
            listed = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
            return Made(
                key=product.key,
                records=pairs,
                files=[path, *masked_files, product.path / f"pairs_{number}.jsonl"],
                report=PartReport(summary=f"{passed}; pairs: {listed}", metrics=metrics),
            )
        made: list[Record] = [
            checked(replace(record, answer=sample.text), context=context)
            for record, sample in zip(records, chosen, strict=True)
            if sample is not None
        ]
        summary = f"{passed}, {len(made)} of {len(records)} queries"
        key = scores.key
        if config.warmup.num_queries:
            warm = synthesised(context, cite=config.cite, warmup=config.warmup)
            key = content_hash([key, warm.key])
            made += warmup_records(context, warm)[0]
        return Made(key=key, records=made, files=[path], report=PartReport(summary=summary, metrics=metrics))

    def _without_heads(
        self, context: PartContext, records: Sequence[LongAnswerRecord]
    ) -> tuple[list[list[Sampled]], list[Path]]:
        """Of each record the answers without `masked_heads`, none where no head is named; and the file of them."""
        if not self.config.masked_heads or ATTR not in self.config.kinds:
            return [[] for _ in records], []
        path = without_heads(context, self.config, records).path / MASKED
        return [read_samples(row) for row in read_rows(path)], [path]


def samples_name(iteration: int) -> str:
    return f"samples_{iteration}.jsonl"


def preferred(
    records: Sequence[LongAnswerRecord],
    chosen: Sequence[Sampled | None],
    groups: Sequence[Sequence[Sampled]],
    others: Sequence[Sequence[Sampled]],
    *,
    config: SamplesConfig,
    context: PartContext,
) -> list[PreferenceRecord]:
    """The pairs of all queries that have a best sample, in order."""
    return [
        preference(record, better, other, kind=kind, context=context)
        for record, better, samples, more in zip(records, chosen, groups, others, strict=True)
        if better is not None
        for kind, other in worse(better, samples, kinds=config.kinds, min_gap=config.min_gap, others=more).items()
    ]


def preference(
    record: LongAnswerRecord, better: Sampled, other: Sampled, *, kind: str, context: PartContext
) -> PreferenceRecord:
    """Both answers behind the prompt of the record. Raises `DataError` where one does not fit into a row."""
    assert context.data is not None
    texts = [
        context.data.text_of(checked(replace(record, answer=sample.text), context=context))
        for sample in (better, other)
    ]
    return PreferenceRecord(
        identifier=f"{record.identifier}#{kind}",
        language=record.language,
        prompt=texts[0][0],
        chosen=texts[0][1],
        rejected=texts[1][1],
        meta={"type": kind},
    )


def _pairs_stage(context: PartContext, pairs: Sequence[PreferenceRecord], *, name: str) -> Product:
    rows = [asdict(pair) for pair in pairs]
    return context.stages.get(
        Stage(
            name="start_pairs",
            version=VERSION,
            inputs={"pairs": content_hash(rows)},
            config={"file": name},
            build=lambda folder: write_rows(folder / name, rows),
        )
    )


# -- sampling and scoring ----------------------------------------------------------------------------------------------


def scored(context: PartContext, config: SamplesConfig, records: Sequence[LongAnswerRecord]) -> Product:
    """The stage of `samples_t.jsonl`: the answers of a stage of their own, read and scored."""
    run = context.config
    values = plain(run)
    numbers = {"dtype": values["model"]["dtype"], "precision": run.hardware.precision}
    asked = {
        "records": content_hash([asdict(record) for record in records]),
        "model": context.model_fingerprint,
    }
    sample = {key: value for key, value in plain(config.sample).items() if key != "num_queries"}
    answers = context.stages.get(
        Stage(
            name="start_answers",
            version=VERSION,
            inputs=asked,
            config={"sample": sample, "seed": run.seed, "prompt_style": run.prompt_style, **numbers},
            is_resumable=True,
            build=lambda folder: _write_answers(folder / ANSWERS, records, config, context=context),
        )
    )
    reward = {key: value for key, value in decisive(values["reward"], config=run.reward).items() if key != "judge"}
    return context.stages.get(
        Stage(
            name="start_samples",
            version=VERSION,
            inputs={"answers": answers.key},
            config={
                "reward": reward,
                "judge": judge_values(run.reward),
                "cite": plain(config.cite),
                "iteration": config.iteration,
            },
            build=lambda folder: _write_scored(
                folder / f"samples_{config.iteration}.jsonl", answers, records, config, context=context
            ),
        )
    )


def _write_answers(
    path: Path, records: Sequence[LongAnswerRecord], config: SamplesConfig, *, context: PartContext
) -> None:
    """N answers of each query; those that the file holds already are not drawn again."""
    done = len(read_rows(path))
    engine, run, sample = own_engine(context), context.config, config.sample
    assert context.data is not None
    rule = SamplingRule(temperature=sample.temperature, top_p=sample.top_p)
    progress = tenths_logged("samples: queries answered")
    with path.open("a", encoding="utf-8") as file:
        for first in range(done, len(records), QUERIES_AT_ONCE):
            asked = records[first : first + QUERIES_AT_ONCE]
            requests = [
                Request(
                    identifier=record.identifier,
                    prompt=context.data.text_of(record)[0],
                    record=record,
                    seed=zlib.crc32(f"{run.seed}/{record.identifier}".encode()),
                )
                for record in asked
            ]
            groups = engine.generate(
                [encoded(engine, request, max_new_tokens=sample.max_new_tokens) for request in requests],
                rule=rule,
                num_samples=sample.num_samples,
                stop=sorted({stop for record in asked for stop in stop_strings(record, run.prompt_style)}),
            )
            for record, samples in zip(asked, groups, strict=True):
                texts = [{"text": sample.text.strip(), "finished": sample.finished} for sample in samples]
                add_row(file, {"id": record.identifier, "samples": texts})
            file.flush()
            progress(first + len(asked), len(records))


def _write_scored(
    path: Path,
    answers: Product,
    records: Sequence[LongAnswerRecord],
    config: SamplesConfig,
    *,
    context: PartContext,
) -> None:
    assert isinstance(context.config.reward, StartRewardConfig)
    assert context.data is not None
    assert context.start is not None
    reward = prepared_reward(context)
    rows = []
    for record, row in zip(records, read_rows(answers.path / ANSWERS), strict=True):
        samples = [read_sample(answer["text"], finished=answer["finished"], record=record) for answer in row["samples"]]
        reward.score(record, samples, most=config.cite.max_per_sentence)
        if reward.config.robust:
            set_robust(
                context.start.model,
                context.tokenizer,
                record,
                samples,
                text_of=context.data.text_of,
                normalise=reward.config.normalise,
            )
        for sample in samples:
            sample.reward = combined(sample.attr, sample.compre, sample.robust, config=reward.config)
        rows.append({"id": record.identifier, "question": record.question, "samples": list(map(asdict, samples))})
    write_rows(path, rows)


def without_heads(context: PartContext, config: SamplesConfig, records: Sequence[LongAnswerRecord]) -> Product:
    """The stage of `masked.jsonl`: one answer a query without `masked_heads`, greedily, with its Attr and Compre."""
    run = context.config
    stage = Stage(
        name="start_masked",
        version=VERSION,
        inputs={
            "records": content_hash([asdict(record) for record in records]),
            "model": context.model_fingerprint,
        },
        config={
            "heads": config.masked_heads,
            "max_new_tokens": config.sample.max_new_tokens,
            "prompt_style": run.prompt_style,
            "claims": run.reward.claims if isinstance(run.reward, StartRewardConfig) else "",
            "judge": judge_values(run.reward),
            "cite": plain(config.cite),
        },
        build=lambda folder: _write_masked(folder / MASKED, records, config, context=context),
    )
    return context.stages.get(stage)


def _write_masked(
    path: Path, records: Sequence[LongAnswerRecord], config: SamplesConfig, *, context: PartContext
) -> None:
    assert context.data is not None
    reward, style = prepared_reward(context), context.config.prompt_style
    answers = answers_without_heads(
        own_engine(context),
        [
            Request(identifier=record.identifier, prompt=context.data.text_of(record)[0], record=record)
            for record in records
        ],
        heads=[(layer, head) for layer, head in config.masked_heads],
        max_new_tokens=config.sample.max_new_tokens,
        stop=sorted({stop for record in records for stop in stop_strings(record, style)}),
    )
    rows = []
    for record, sample in zip(records, answers, strict=True):
        read = read_sample(sample.text.strip(), finished=sample.finished, record=record)
        reward.score(record, [read], most=config.cite.max_per_sentence)
        rows.append({"id": record.identifier, "samples": [asdict(read)]})
    write_rows(path, rows)


def read_samples(row: Mapping[str, Any]) -> list[Sampled]:
    """The samples of a row of `samples_t.jsonl`."""
    return [
        Sampled(
            **{
                **sample,
                "sentences": [CitedSentence(piece["text"], tuple(piece["cited"])) for piece in sample["sentences"]],
            }
        )
        for sample in row["samples"]
    ]
