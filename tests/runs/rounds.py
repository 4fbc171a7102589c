"""A method of three phases for tests: a warm-up, then rounds on answers that the newest weights gave.

`python -m tests.runs.rounds <folder> [override ...]` does the run whose results and cache stand in the folder.
"""

import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from athlos.config.compose import run_config
from athlos.config.part_report import PartReport
from athlos.config.schema import ConstructConfig, MethodConfig, Phase, RunConfig
from athlos.data.batches import Batch
from athlos.generation.interface import Prompt, SamplingRule
from athlos.parts import Made, PartContext
from athlos.runs.execute import execute
from athlos.stages import content_hash
from athlos.training.module import MethodModule

RUN = [
    "data=lab_sums",
    "model=lab/lang",
    "prompt_style=bare",
    "eval=math",
    "eval.shots=0",
    "eval.suites.math.language_detector=lab",
    "eval.bootstrap=0",
    "data.num_train=24",
    "data.num_test=2",
    "data.num_val=2",
    "train.max_steps=6",
    "train.batch_size=4",
    "train.micro_batch_size=2",
    "train.max_length=160",
    "train.batching=bucket",
    "train.val_every=3",
    "train.val_batches=1",
    "train.checkpoint_every=2",
    "train.log_every=1",
    "decoding.max_new_tokens=6",
    "tracking=none",
    "progress=false",
    "study=rounds",
]
STEP_SECONDS = "ATHLOS_TEST_STEP_SECONDS"
"""Variable of the environment: how long a step sleeps, so that a test can kill it there."""


@dataclass(kw_only=True)
class SamplesConfig(ConstructConfig):
    _target_: str = "tests.runs.rounds.Samples"
    num_questions: int = 8


@dataclass(kw_only=True)
class RoundsConfig(MethodConfig):
    _target_: str = "tests.runs.rounds.RoundsModule"
    rounds: int = 2
    last_lr: float = 1e-3

    def phases(self, run: RunConfig) -> Iterator[Phase]:
        # What a phase trains does not hang on how many rounds there are, nor on the rate of the last one.
        run = replace(run, method=replace(self, rounds=0, last_lr=0.0))
        yield Phase(name="warmup", run=run, is_evaluated=True)
        for number in range(1, self.rounds + 1):
            lr = self.last_lr if number == self.rounds else run.train.lr
            train = replace(run.train, max_steps=4, lr=lr)
            yield Phase(name=f"round-{number}", run=replace(run, construct=SamplesConfig(), train=train))


class Samples:
    """Questions of the training split with the answers that the newest weights give to them."""

    def __init__(self, config: SamplesConfig) -> None:
        self.config = config

    def build(self, *, context: PartContext) -> Made:
        assert context.data is not None
        assert context.generator is not None
        split = context.config.data.train_split
        assert split is not None
        records = list(context.data.records(split))[: self.config.num_questions]
        prompts = [
            Prompt(token_ids=context.tokenizer.encode(context.data.text_of(record)[0]), max_new_tokens=5, seed=place)
            for place, record in enumerate(records)
        ]
        answers = context.generator.generate(prompts, rule=SamplingRule(temperature=1.0))
        made = [replace(record, solution=sample.text) for record, [sample] in zip(records, answers, strict=True)]  # type: ignore[type-var]
        key = content_hash([record.solution for record in made])
        length = sum(len(record.solution) for record in made)
        return Made(
            key=key, records=made, report=PartReport(summary="samples", metrics={"data/characters": float(length)})
        )


class RoundsModule(MethodModule[RoundsConfig]):
    def training_step(self, batch: Batch, batch_index: int):  # type: ignore[no-untyped-def]
        time.sleep(float(os.environ.get(STEP_SECONDS, "0")))
        return self.step_loss(self.objective.loss(self.model, batch), batch)


def rounds_run(folder: Path, *overrides: str, rounds: int = 2, last_lr: float = 1e-3) -> RunConfig:
    run = run_config([*RUN, f"results_dir={folder / 'results'}", f"cache_dir={folder / 'cache'}", *overrides])
    return replace(run, method=RoundsConfig(rounds=rounds, last_lr=last_lr))


if __name__ == "__main__":
    place, *more = sys.argv[1:]
    sys.stdout.write(f"{execute(rounds_run(Path(place), *more))}\n")
