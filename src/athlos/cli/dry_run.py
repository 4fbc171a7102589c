"""`dry_run=true`: what a run would need, from models on the meta device."""

import logging

from athlos.cli.panels import visible
from athlos.config.schema import RunConfig

log = logging.getLogger(__name__)


def print_budget(run: RunConfig) -> None:
    """Print what each training of a run needs, on stdout: those that make its model, then the phases of its method.

    Each has parameters, trainable share, memory by kind, FLOPs a step and the hardware that it needs.
    """
    from athlos.runs.budget import budget
    from athlos.runs.chain import planned

    trainings = planned(run)
    for name, training in trainings:
        if len(trainings) > 1:
            print(f"{visible(name)}: {training.num_steps} steps")
        chunk = vars(training.objective).get("chunk_tokens")  # of the objectives whose logits exist in chunks
        rows = budget(training, logit_tokens=chunk).rows()
        width = max(len(name) for name, _ in rows)
        for label, value in rows:
            print(f"{label.ljust(width)}  {visible(value)}")
    log.info("dry run: nothing was loaded, trained or written")
