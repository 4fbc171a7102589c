"""`construct=plast`: the training questions as pairs, kept as JSON lines; pictures are joined to them by item.

A pair asks, the picture in view, for the question in the reference language; other kinds ask for the answer in it, or
for an answer in the question's own language.
"""

import random
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from athlos.config.part_report import PartReport
from athlos.data.json_lines import read_rows, write_rows
from athlos.data.picture_prompts import IMAGE_TOKEN, LETTERS, asked, listed, to_translate
from athlos.data.records import ChoiceRecord, InstructionRecord
from athlos.errors import DataError, ModelError
from athlos.lab.languages import CODES
from athlos.methods.plast.config import Kind, PlastConstructConfig
from athlos.methods.plast.reading import source_of
from athlos.models.forward import causal_model
from athlos.models.vision_language import is_vision_language
from athlos.parts import Made, PartContext
from athlos.stages import Stage
from athlos.text.prompt_styles import language_name

PAIRS_VERSION = 1
PAIRS = "pairs.jsonl"


class PlastConstruct:
    def __init__(self, config: PlastConstructConfig) -> None:
        self.config = config

    def build(self, *, context: PartContext) -> Made:
        """The pairs, which the run trains on in place of its training split."""
        assert context.data is not None
        assert context.start is not None
        source, split = source_of(context), context.config.data.train_split
        assert split is not None
        if self.config.with_image and not is_vision_language(causal_model(context.start.model)):
            raise ModelError(
                f"construct.with_image: got true, but the model {context.config.model.name} sees no pictures; "
                "use a vision-language model or construct.with_image=false"
            )
        languages = self.config.languages or [x for x in source.config.languages if x != source.config.reference]
        stage = Stage(
            name="plast_pairs",
            version=PAIRS_VERSION,
            inputs={"data": source.fingerprint(split)},
            config={
                **{key: value for key, value in asdict(self.config).items() if key != "_target_"},
                "kind": self.config.kind.value,
                "languages": languages,
                "split": split,
                "instruction": source.config.instruction,
                "seed": context.config.seed,
            },
            build=lambda folder: self._write(folder, list(source.questions(split)), languages, context=context),
        )
        product = context.stages.get(stage)
        pixels = {record.item: record.pixels for record in source.questions(split)}
        records = [self._record(row, pixels) for row in read_rows(product.path / PAIRS)]
        counts = {language: sum(record.language == language for record in records) for language in languages}
        replayed = len(records) - sum(counts.values())
        listing = ", ".join(f"{language} {count}" for language, count in counts.items())
        metrics = {f"data/pairs/{language}": float(count) for language, count in counts.items()}
        return Made(
            key=product.key,
            records=records,
            files=[product.path / PAIRS],
            report=PartReport(
                summary=f"{self.config.kind}: {listing}" + (f", replayed {replayed}" if replayed else ""),
                metrics={**metrics, "data/replayed": float(replayed)},
            ),
        )

    def _write(self, folder: Path, records: list[ChoiceRecord], languages: list[str], *, context: PartContext) -> None:
        source, rng = source_of(context), random.Random(context.config.seed)
        of_language = {
            language: [record for record in records if record.language == language] for language in languages
        }
        english = {record.item: record for record in records if record.language == source.config.reference}
        limit = self.config.pairs_per_language
        rows: list[dict[str, str]] = []
        for language, own in of_language.items():
            if not own:
                raise DataError(f"construct.languages: data={context.config.data.name} has no question in '{language}'")
            for record in rng.sample(own, min(limit, len(own))):
                if record.item not in english:
                    raise DataError(f"'{record.identifier}' has no question in {source.config.reference}")
                rows += self._pairs(record, english[record.item], instruction=source.config.instruction)
        ratio = self.config.replay_ratio
        number = round(len(rows) * ratio / (1 - ratio))
        pool = sorted(english)
        for item in (pool[int(rng.random() * len(pool))] for _ in range(number)):
            rows.append(_answered(english[item], wants_letter=rng.random() < source.config.letter_share))
        rng.shuffle(rows)
        write_rows(folder / PAIRS, rows)

    def _pairs(self, record: ChoiceRecord, english: ChoiceRecord, *, instruction: str) -> Iterator[dict[str, str]]:
        """The rows of one question; the options of both are in the same order."""
        if self.config.kind is Kind.multilingual_vqa:
            wants_letter = random.Random(f"form:{record.identifier}").random() < 0.5
            yield self._without_image(_answered(record, wants_letter=wants_letter))
            return
        if self.config.kind is Kind.answer_translation:
            source, target = record.choices[record.answer_index], english.choices[english.answer_index]
            yield self._row(
                record, to_translate(source, (), instruction=instruction, has_picture=self.config.with_image), target
            )
            if self.config.reverse:
                yield self._row(record, self._reversed(target, (), record.language), source)
            return
        prompt = to_translate(
            record.question, record.choices, instruction=instruction, has_picture=self.config.with_image
        )
        yield self._row(record, prompt, english.question + listed(english.choices))
        if self.config.reverse:
            yield self._row(
                record,
                self._reversed(english.question, english.choices, record.language),
                record.question + listed(record.choices),
            )

    def _reversed(self, text: str, options: Any, language: str) -> str:
        name = language if language in CODES else language_name(language)
        instruction = self.config.reverse_instruction.format(language=name)
        return to_translate(text, options, instruction=instruction, has_picture=self.config.with_image)

    def _row(self, record: ChoiceRecord, prompt: str, completion: str) -> dict[str, str]:
        return {"item": record.item, "language": record.language, "prompt": prompt, "completion": completion}

    def _without_image(self, row: dict[str, str]) -> dict[str, str]:
        if self.config.with_image:
            return row
        return {**row, "prompt": row["prompt"].removeprefix(f"{IMAGE_TOKEN} ")}

    def _record(self, row: dict[str, str], pixels: dict[str, Any]) -> InstructionRecord:
        if row["item"] not in pixels:
            raise DataError(f"pair of item '{row['item']}': its picture is missing")
        return InstructionRecord(
            identifier=f"{row['language']}-{row['item']}",
            language=row["language"],
            prompt=row["prompt"],
            completion=row["completion"],
            pixels=pixels[row["item"]] if self.config.with_image else None,
        )


def _answered(record: ChoiceRecord, *, wants_letter: bool) -> dict[str, str]:
    """A question with its answer, as the base model was taught them."""
    prompt = asked(record.question, record.choices if wants_letter else ())
    completion = LETTERS[record.answer_index] if wants_letter else record.choices[record.answer_index]
    return {"item": record.item, "language": record.language, "prompt": prompt, "completion": completion}
