"""`dry_run=true`: what a run would need, from a model on the meta device."""

import dataclasses
import logging

from athlos.cli.panels import visible
from athlos.cli.pretrained import base_run, is_trained_here
from athlos.config.schema import RunConfig
from athlos.models.budget import budget

log = logging.getLogger(__name__)


def print_budget(config: RunConfig) -> None:
    """Print parameters, trainable share, memory by kind, FLOPs a step and the hardware that needs, on stdout."""
    chunk = vars(config.objective).get("chunk_tokens")  # of the objectives whose logits exist in chunks
    if is_trained_here(config.model):
        config = dataclasses.replace(config, model=base_run(config).model)
    rows = budget(config, logit_tokens=chunk).rows()
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name.ljust(width)}  {visible(value)}")
    log.info("dry run: nothing was loaded, trained or written")
