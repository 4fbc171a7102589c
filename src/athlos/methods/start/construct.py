"""What the phases of START train on: `SynthesisConstruct` writes the warm-up set, `SamplesConstruct` samples answers,
scores them, and gives the best of each query, or pairs of a better and a worse one.

Products: `warmup.jsonl` and `synth_report.json`; `samples_t.jsonl` and `pairs_t.jsonl` of iteration t.
"""

import json
import random
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from athlos.config.compose import decisive, plain
from athlos.config.part_report import PartReport
from athlos.data.encoding import encode_pair
from athlos.data.near_passages import OtherPassages, with_documents
from athlos.data.records import LongAnswerRecord, Passage, PreferenceRecord, Record
from athlos.errors import DataError
from athlos.generation.config import NativeConfig, SelfGeneratorConfig
from athlos.generation.decoding import encoded
from athlos.generation.interface import Engine, Request, SamplingRule
from athlos.generation.masked_heads import answers_without_heads
from athlos.generation.native import NativeEngine
from athlos.generation.pipeline import Solver, solve_together
from athlos.judging.config import ScoringJudgeConfig, scoring_values
from athlos.methods.start.config import Claims, SamplesConfig, StartRewardConfig, SynthesisConfig
from athlos.methods.start.likelihood import set_robust
from athlos.methods.start.rewards import Sampled, StartReward, combined, read_sample
from athlos.methods.start.selection import ATTR, COMP, best, worse
from athlos.methods.start.synthesis import Draft, DropError, Item, Tally, cited_item, drafted, written
from athlos.parts import Made, PartContext
from athlos.stages import Product, Stage, content_hash
from athlos.text.citations import CitedSentence
from athlos.text.prompts import stop_strings

VERSION = 1
"""Raised when the same stage makes something else."""
WARMUP, SYNTH_REPORT = "warmup.jsonl", "synth_report.json"
ANSWERS, MASKED = "answers.jsonl", "masked.jsonl"
QUERIES_AT_ONCE = 16
"""Queries whose samples are drawn together: a stopped run loses at most these."""


class SynthesisConstruct:
    """The warm-up set."""

    def __init__(self, config: SynthesisConfig) -> None:
        self.config = config

    def build(self, *, context: PartContext) -> Made:
        """One cited answer for each query that comes through. Raises `DataError` where none does."""
        product = synthesised(context, self.config)
        records, too_long = warmup_records(context, product)
        report = json.loads((product.path / SYNTH_REPORT).read_text(encoding="utf-8"))
        drops = {**report["drops"], "too_long": too_long}
        if not records:
            raise DataError(f"warm-up: no answer came through; drops: {drops}")
        metrics = {
            "construct/warmup_items": float(len(records)),
            "construct/synth_fail_share": share(report["failed_documents"], report["documents"]),
            "construct/synth_unsupported_share": share(report["failed_sentences"], report["sentences"]),
            "construct/synth_multi_share": share(report["multi_cited"], report["sentences"]),
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


class SamplesConstruct:
    """The samples of an iteration: the best of each query and the warm-up set, or pairs."""

    def __init__(self, config: SamplesConfig) -> None:
        self.config = config

    def build(self, *, context: PartContext) -> Made:
        """Raises `DataError` where no sample, or no pair, can be trained on, with what was found."""
        config, number = self.config, self.config.iteration
        records = sampled_queries(context, config)
        product = scored(context, config, records)
        groups = [read_samples(row) for row in read_rows(product.path / f"samples_{number}.jsonl")]
        chosen = [best(samples) for samples in groups]
        metrics = sample_metrics(groups, chosen, number=number)
        files = [product.path / f"samples_{number}.jsonl"]
        if config.kinds:
            return self._pairs(context, product, records, groups, chosen, metrics=metrics, files=files)
        made: list[Record] = [
            checked(replace(record, answer=sample.text), context=context)
            for record, sample in zip(records, chosen, strict=True)
            if sample is not None
        ]
        key, num_best = product.key, len(made)
        if config.warmup.num_queries:
            warm = synthesised(context, config)
            key = content_hash([key, warm.key])
            made += warmup_records(context, warm)[0]
        if not made:
            raise DataError(f"{_found(metrics, number)}: nothing to imitate; try reward.gate=soft")
        return Made(
            key=key,
            records=made,
            files=files,
            report=PartReport(
                summary=f"{_found(metrics, number)}, {num_best} of {len(records)} queries", metrics=metrics
            ),
        )

    def _pairs(
        self,
        context: PartContext,
        product: Product,
        records: Sequence[LongAnswerRecord],
        groups: Sequence[Sequence[Sampled]],
        chosen: Sequence[Sampled | None],
        *,
        metrics: dict[str, float],
        files: list[Path],
    ) -> Made:
        config, number = self.config, self.config.iteration
        others: list[list[Sampled]] = [[] for _ in records]
        if config.masked_heads and ATTR in config.kinds:
            masked = without_heads(context, config, records)
            files = [*files, masked.path / MASKED]
            others = [read_samples(row) for row in read_rows(masked.path / MASKED)]
        pairs = [
            preference(record, better, other, kind=kind, context=context)
            for record, better, samples, more in zip(records, chosen, groups, others, strict=True)
            if better is not None
            for kind, other in worse(better, samples, kinds=config.kinds, min_gap=config.min_gap, others=more).items()
        ]
        counts = Counter(pair.meta["type"] for pair in pairs)
        metrics |= {f"construct/pairs_{kind}@{number}": float(counts[kind]) for kind in (ATTR, COMP)}
        if not pairs:
            raise DataError(f"{_found(metrics, number)}: no pair; try reward.gate=soft or method.preference.pairs=none")
        name = f"pairs_{number}.jsonl"
        stage = Stage(
            name="start_pairs",
            version=VERSION,
            inputs={"pairs": content_hash([asdict(pair) for pair in pairs])},
            config={},
            build=lambda folder: write_rows(folder / name, map(asdict, pairs)),
        )
        made = context.stages.get(stage)
        told = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
        return Made(
            key=made.key,
            records=pairs,
            files=[*files, made.path / name],
            report=PartReport(summary=f"{_found(metrics, number)}; pairs: {told}", metrics=metrics),
        )


# -- queries -----------------------------------------------------------------------------------------------------------


def queries(context: PartContext, *, most: int) -> list[LongAnswerRecord]:
    """The first questions of the training split, less those that the test split asks too.

    Raises `DataError` for records of another kind, and where none is left.
    """
    assert context.data is not None
    run = context.config
    split, test = run.data.train_split, run.data.test_split
    if split is None:
        raise DataError(f"method=start: data={run.data.name} names no training split to take queries from")
    asked = {_normal(record) for record in context.data.source.records(test)} if test else set()
    found: list[LongAnswerRecord] = []
    for record in context.data.records(split):
        if not isinstance(record, LongAnswerRecord):
            raise DataError(f"method=start: data={run.data.name} holds records that are no questions for long answers")
        if len(found) == most:
            break
        if _normal(record) not in asked:
            found.append(record)
    if not found:
        raise DataError(f"method=start: split '{split}' of data={run.data.name} has no query that its test lacks")
    return found


def _normal(record: Record) -> str:
    return " ".join(record.question.casefold().split()) if isinstance(record, LongAnswerRecord) else ""


def sampled_queries(context: PartContext, config: SamplesConfig) -> list[LongAnswerRecord]:
    records = queries(context, most=config.sample.num_queries)
    return with_documents(records, num_documents=config.warmup.num_documents)


def tokens_of(record: LongAnswerRecord, *, context: PartContext) -> int:
    """Tokens of a record as it is trained on."""
    assert context.data is not None
    return sum(map(len, encode_pair(context.tokenizer, *context.data.text_of(record))))


def checked(record: LongAnswerRecord, *, context: PartContext) -> LongAnswerRecord:
    """The record. Raises `DataError` where it does not fit into a row: documents that it cites would be cut away."""
    wanted, room = tokens_of(record, context=context), context.config.train.max_length
    if wanted > room:
        raise DataError(
            f"train.max_length: got {room}, expected at least {wanted}: documents of question '{record.identifier}' "
            "would be cut, and its answer cites them"
        )
    return record


# -- warm-up -----------------------------------------------------------------------------------------------------------


def synthesised(context: PartContext, config: SynthesisConfig | SamplesConfig) -> Product:
    """The stage of the warm-up set. Where the model itself writes, that is the run's model before any phase."""
    run, warmup = context.config, config.warmup
    records = queries(context, most=warmup.num_queries)
    values = plain(run)
    inputs = {"records": content_hash([asdict(record) for record in records])}
    decides = {
        "warmup": {key: value for key, value in plain(warmup).items() if key not in ("in_flight", "num_queries")},
        "cite": plain(config.cite),
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
        build=lambda folder: _write_warmup(folder, records, config, context=context),
    )
    return context.stages.get(stage)


def _write_warmup(
    folder: Path,
    records: Sequence[LongAnswerRecord],
    config: SynthesisConfig | SamplesConfig,
    *,
    context: PartContext,
) -> None:
    reward, tally = prepared_reward(context), Tally()
    others = OtherPassages(records)
    items = []
    for record, draft in _drafts(records, config, context=context):
        try:
            if isinstance(draft, DropError):
                raise draft
            items.append(
                cited_item(
                    record,
                    draft,
                    config=config.warmup,
                    cite=config.cite,
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
    records: Sequence[LongAnswerRecord], config: SynthesisConfig | SamplesConfig, *, context: PartContext
) -> Iterator[tuple[LongAnswerRecord, Draft | DropError]]:
    """The draft of each record, in order, or why there is none."""
    warmup = config.warmup
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
    replies = solve_together(
        requests, solver, generator=context.generator, index=context.index, in_flight=warmup.in_flight
    )
    for place, prediction in sorted(replies, key=lambda reply: reply[0]):
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


def rng_of(context: PartContext, purpose: str, record: LongAnswerRecord) -> random.Random:
    return random.Random(f"{context.config.seed}/{purpose}/{record.identifier}")


# -- samples -----------------------------------------------------------------------------------------------------------


def own_engine(context: PartContext) -> Engine:
    """What samples: the weights that the context has, whoever writes the warm-up."""
    assert context.start is not None
    if isinstance(context.config.generator, SelfGeneratorConfig) and context.generator is not None:
        return context.generator
    config = NativeConfig(_target_="", batch_size=context.config.eval.batch_size)
    return NativeEngine(config, model=context.start.model, tokenizer=context.start.tokenizer)


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
    done = len(read_rows(path)) if path.is_file() else 0
    engine, run, sample = own_engine(context), context.config, config.sample
    assert context.data is not None
    rule = SamplingRule(temperature=sample.temperature, top_p=sample.top_p)
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
                texts = [{"text": one.text.strip(), "finished": one.finished} for one in samples]
                file.write(json.dumps({"id": record.identifier, "samples": texts}, ensure_ascii=False) + "\n")
            file.flush()


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
        samples = [read_sample(one["text"], finished=one["finished"], record=record) for one in row["samples"]]
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
        for one in samples:
            one.reward = combined(one.attr, one.compre, one.robust, config=reward.config)
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
    found = answers_without_heads(
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
    for record, sample in zip(records, found, strict=True):
        read = read_sample(sample.text.strip(), finished=sample.finished, record=record)
        reward.score(record, [read], most=config.cite.max_per_sentence)
        rows.append({"id": record.identifier, "samples": [asdict(read)]})
    write_rows(path, rows)


def read_samples(row: Mapping[str, Any]) -> list[Sampled]:
    """The samples of a row of `samples_t.jsonl`."""
    return [
        Sampled(
            **{**one, "sentences": [CitedSentence(piece["text"], tuple(piece["cited"])) for piece in one["sentences"]]}
        )
        for one in row["samples"]
    ]


def prepared_reward(context: PartContext) -> StartReward:
    assert isinstance(context.config.reward, StartRewardConfig)
    reward = StartReward(context.config.reward)
    reward.prepare(context=context)
    return reward


def judge_values(reward: Any) -> dict[str, Any]:
    """What decides the verdicts of the reward's judge."""
    assert isinstance(reward, StartRewardConfig)
    assert isinstance(reward.judge, ScoringJudgeConfig)
    return {**scoring_values(reward.judge), "threshold": reward.judge.threshold}


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


def sample_metrics(
    groups: Sequence[Sequence[Sampled]], chosen: Sequence[Sampled | None], *, number: int
) -> dict[str, float]:
    """Of an iteration: shares of samples that pass, of queries that have one, means of the rewards, and forms."""
    samples = [one for of_query in groups for one in of_query]
    texts = [one for one in samples if one.sentences]

    def mean(values: Iterable[float]) -> float:
        numbers = list(values)
        return share(sum(numbers), len(numbers))

    found = {
        "construct/pass_rate": mean(float(one.is_read and one.attr == 1) for one in samples),
        "construct/query_pass_rate": mean(float(any(one.is_read and one.attr == 1 for one in of)) for of in groups),
        "construct/chosen_rate": mean(float(one is not None) for one in chosen),
        "construct/format_rate": mean(float(one.is_read and not one.counts["none"]) for one in samples),
        "construct/sentences": mean(float(len(one.sentences)) for one in texts),
        "construct/words": mean(float(len(one.told.split())) for one in texts),
        "construct/distinct": mean(len({one.text for one in of}) / len(of) for of in groups),
        "reward/attr": mean(one.attr for one in samples),
        "reward/compre": mean(one.compre for one in samples),
        "reward/robust": mean(one.robust for one in samples),
        "reward/reward": mean(one.reward for one in samples),
    }
    for name in ("normalised", "orphan", "out_of_range", "over3", "none"):
        found[f"cite/{name}"] = float(sum(one.counts[name] for one in samples))
    return {f"{name}@{number}": value for name, value in found.items()}


def _found(metrics: dict[str, float], number: int) -> str:
    return f"samples {number}: {metrics[f'construct/pass_rate@{number}']:.0%} pass"


# -- files -------------------------------------------------------------------------------------------------------------


def share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


def write_rows(path: Path, rows: Iterable[Any]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def read_rows(path: Path) -> list[Any]:
    """The rows of a file; a last line that a kill cut off is taken away."""
    whole = path.read_bytes()
    kept = whole[: whole.rfind(b"\n") + 1]
    if len(kept) < len(whole):
        path.write_bytes(kept)
    return [json.loads(line) for line in kept.decode("utf-8").splitlines()]
