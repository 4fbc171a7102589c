"""`construct=kmkc`: profile -> assign -> augment, each a stage product.

The profile is that of the weights that the phase starts from, on the training questions. All assigners share it, and
all augmentations of one assignment share that. Without `augments` the training data stay, and the regions are made.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from athlos.config.compose import plain
from athlos.config.part_report import PartReport
from athlos.data.fact_variants import REGION
from athlos.data.json_lines import read_rows, write_rows
from athlos.data.records import InstructionRecord, QuestionRecord
from athlos.data.regions import Assigned, Region, read_regions, write_regions
from athlos.errors import DataError
from athlos.methods.kmkc.assign import assigned
from athlos.methods.kmkc.augment import (
    PLAIN,
    STRATEGY_OF,
    Variant,
    check_seeds,
    filtered,
    model_variants,
    rival,
    template_variants,
)
from athlos.methods.kmkc.config import Assigner, Augmenter, KmkcConstructConfig
from athlos.methods.kmkc.profile import profiled, read_profiles, write_profiles
from athlos.methods.kmkc.regions import BIN_SIZE, FEWEST_BINS, Law, Profile, fit_law, macro_f1
from athlos.parts import Made, PartContext
from athlos.stages import Product, Stage, tenths_logged

VERSION = 1
"""Raised when the same stage makes something else."""
PROFILE, DECAY, REGIONS, CGKE = "profile.jsonl", "decay.json", "regions.jsonl", "cgke.jsonl"
DECIDES = ("generator", "prompt_style", "seed")
"""Keys of the run that change an answer."""


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the weights that a phase starts from know of its questions."""

    regions: dict[str, Assigned]
    entropies: list[float]
    """Mean entropies of all sampled answers; empty from a server."""


class KmkcConstruct:
    def __init__(self, config: KmkcConstructConfig) -> None:
        self.config = config

    def build(self, *, context: PartContext) -> Made:
        """Raises `DataError` for data without questions, or whose training questions are test questions."""
        assert context.data is not None
        split = context.config.data.train_split
        assert split is not None
        seeds = _questions(context, split)
        tests = _tests(context)
        check_seeds(seeds, tests)
        profile = self._profile(seeds, split, context=context)
        regions = self._regions(profile, seeds, context=context)
        profiles = read_profiles(profile.path / PROFILE)
        known = Known(
            regions=read_regions(regions.path / REGIONS),
            entropies=[entropy for profile in profiles for entropy in profile.entropies],
        )
        files = [profile.path / PROFILE, profile.path / DECAY, regions.path / REGIONS]
        report = self._report(seeds, known, product=profile)
        if not self.config.augments:
            return Made(key=regions.key, product=known, files=files, report=report)
        cgke = self._augmented(regions, seeds, profiles, known, tests=tests, context=context)
        path = cgke.path / CGKE
        variants = [Variant(**row) for row in read_rows(path)]
        results = Counter(variant.result for variant in variants)
        if not results["kept"]:
            raise DataError(f"augmentation: none of {len(variants)} variants was kept ({dict(results)})")
        report.summary += f", {results['kept']} of {len(variants)} variants kept"
        report.metrics["data/cgke_kept"] = results["kept"] / len(variants)
        languages = {seed.identifier: seed.language for seed in seeds}
        return Made(
            key=cgke.key,
            records=[
                InstructionRecord(
                    identifier=f"{variant.seed}#{number}",
                    language=languages[variant.seed],
                    prompt=variant.prompt,
                    completion=variant.completion,
                )
                for number, variant in enumerate(variants)
                if variant.result == "kept"
            ],
            product=known,
            files=[*files, path],
            report=report,
        )

    def _profile(self, seeds: Sequence[QuestionRecord], split: str, *, context: PartContext) -> Product:
        run, data = context.config, context.data
        assert data is not None
        values = plain(run)

        def build(folder: Path) -> None:
            assert context.generator is not None
            profiles = profiled(
                context.generator,
                seeds,
                [data.text_of(seed)[0] for seed in seeds],
                config=self.config.profile,
                style=run.prompt_style,
                seed=run.seed,
                has_entropies=True,
                progress=tenths_logged("profile: answers"),
            )
            write_profiles(folder / PROFILE, profiles)
            law = law_of(profiles, seed=run.seed)
            (folder / DECAY).write_text(json.dumps(None if law is None else asdict(law)), encoding="utf-8")

        return context.stages.get(
            Stage(
                name="kmkc_profile",
                version=VERSION,
                inputs={"model": context.model_fingerprint, "data": data.source.fingerprint(split)},
                config={
                    "profile": values["construct"]["profile"],
                    "limit": data.limit(split),
                    **{name: values[name] for name in DECIDES},
                },
                build=build,
            )
        )

    def _regions(self, profile: Product, seeds: Sequence[QuestionRecord], *, context: PartContext) -> Product:
        run = context.config
        values = plain(run)["construct"]

        def build(folder: Path) -> None:
            regions, num_unread = assigned(
                read_profiles(profile.path / PROFILE),
                read_law(profile.path / DECAY),
                config=self.config,
                seed=run.seed,
                engine=context.generator,
                records=seeds,
            )
            write_regions(folder / REGIONS, regions)
            (folder / "votes.json").write_text(json.dumps({"unread": num_unread}), encoding="utf-8")

        is_llm = self.config.assigner is Assigner.llm
        return context.stages.get(
            Stage(
                name="kmkc_regions",
                version=VERSION,
                inputs={"profile": profile.key},
                config={
                    "assigner": values["assigner"],
                    "region": values["region"],
                    "votes": self.config.num_votes if is_llm else 0,
                },
                build=build,
            )
        )

    def _augmented(
        self,
        regions: Product,
        seeds: Sequence[QuestionRecord],
        profiles: Sequence[Profile],
        known: Known,
        *,
        tests: Sequence[QuestionRecord],
        context: PartContext,
    ) -> Product:
        config, style, seed = self.config, context.config.prompt_style, context.config.seed

        def build(folder: Path) -> None:
            chosen = [
                (record, strategy, rival(profile))
                for record, profile in zip(seeds, profiles, strict=True)
                if (strategy := self.strategy(known.regions[record.identifier].region)) is not None
            ]
            if config.augmenter is Augmenter.model:
                assert context.generator is not None
                made = model_variants(context.generator, chosen, style=style, seed=seed)
            else:
                made = [
                    variant
                    for record, strategy, wrong in chosen
                    for variant in template_variants(record, strategy, wrong=wrong, style=style)
                ]
            by_id = {record.identifier: record for record in seeds}
            write_rows(folder / CGKE, map(asdict, filtered(made, seeds=by_id, tests=tests)))

        values = plain(context.config)["construct"]
        assert context.data is not None
        split = context.config.data.test_split
        return context.stages.get(
            Stage(
                name="kmkc_cgke",
                version=VERSION,
                # Other test items might stand in what was written.
                inputs={"regions": regions.key, "tests": context.data.source.fingerprint(split) if split else ""},
                config={name: values[name] for name in ("augmenter", "use_regions", "strategies")},
                build=build,
            )
        )

    def strategy(self, region: Region) -> str | None:
        """How a question of a region is taught; None where the ablation leaves it out."""
        if not self.config.use_regions:
            return PLAIN
        strategy = STRATEGY_OF[region]
        return strategy if strategy in self.config.strategies else None

    def _report(self, seeds: Sequence[QuestionRecord], known: Known, *, product: Product) -> PartReport:
        profiles = [known.regions[seed.identifier] for seed in seeds]
        shares = {
            region.value: sum(profile.region is region for profile in profiles) / len(profiles) for region in Region
        }
        metrics = {f"profile/share_{region}": share for region, share in shares.items()}
        metrics["profile/acc"] = float(np.mean([profile.acc for profile in profiles]))
        metrics["profile/nats"] = float(np.nanmean([profile.nats for profile in profiles]))
        law = read_law(product.path / DECAY)
        if law is not None:
            metrics |= {f"profile/decay_{name}": getattr(law, name) for name in ("a", "b", "c", "r2")}
            metrics["profile/decay_valid"] = float(law.is_valid)
        if all(REGION in seed.meta for seed in seeds):
            truth = [seed.meta[REGION] for seed in seeds]
            metrics["profile/region_f1"] = macro_f1(truth, [profile.region for profile in profiles])
        told = ", ".join(f"{share:.0%} {region}" for region, share in shares.items())
        return PartReport(summary=f"kmkc: {len(profiles)} questions, {told}", metrics=metrics)


def law_of(profiles: Sequence[Profile], *, seed: int) -> Law | None:
    """The decay law of a profile; None for too few questions to fit one."""
    if len(profiles) < FEWEST_BINS * BIN_SIZE:
        return None
    return fit_law(np.array([p.ubar for p in profiles]), np.array([p.acc for p in profiles]), seed=seed)


def read_law(path: Path) -> Law | None:
    values = json.loads(path.read_text(encoding="utf-8"))
    return None if values is None else replace(Law(**values), intervals=dict(values["intervals"]))


def _questions(context: PartContext, split: str) -> list[QuestionRecord]:
    assert context.data is not None
    records = list(context.data.records(split))
    questions = [record for record in records if isinstance(record, QuestionRecord) and record.answers]
    if len(questions) < len(records) or not questions:
        raise DataError(
            f"construct=kmkc: data={context.config.data.name} has {len(questions)} questions with a gold answer among "
            f"the {len(records)} records of split '{split}'"
        )
    return questions


def _tests(context: PartContext) -> list[QuestionRecord]:
    """All test questions, whatever `data.limit_test` says."""
    assert context.data is not None
    split = context.config.data.test_split
    records = context.data.source.records(split) if split else ()
    return [record for record in records if isinstance(record, QuestionRecord)]
