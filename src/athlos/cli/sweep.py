"""A multirun: all jobs are checked before the first starts, a failed job stops no other, each is named at the end."""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from athlos.config.compose import checked, expand_sweep, leave_architecture_to_folder, sweep_configs
from athlos.config.overrides import readable
from athlos.config.registry import conf_dir, registry
from athlos.config.schema import RunConfig
from athlos.errors import AthlosError, ConfigError
from athlos.runs.folder import RunFolder, run_dir

log = logging.getLogger(__name__)


def sweep(overrides: Sequence[str]) -> int:
    """Run all jobs through Hydra's launcher; prints a line a job and returns the first failed job's exit code, or 0.

    A sweep with `dry_run=true` prints what each job would need instead.
    """
    configs = sweep_configs(overrides)
    if any(config.dry_run for config in configs):
        return _dry(configs, jobs=expand_sweep(overrides))
    finished = [RunFolder(config).is_finished for config in configs]
    if all(finished):
        log.info("all %d runs are finished already, nothing to do", len(configs))
    else:
        _launch(overrides)
    return _summary(configs, finished)


def _dry(configs: Sequence[RunConfig], *, jobs: Sequence[Sequence[str]]) -> int:
    """What each job would need, below its overrides; nothing is launched. Raises `ConfigError` where some would run."""
    from athlos.cli.dry_run import print_budget

    if not all(config.dry_run for config in configs):
        raise ConfigError("dry_run: got true for some jobs of the sweep and false for others, expected one value")
    for config, job in zip(configs, jobs, strict=True):
        print(f"[{' '.join(job)}]")
        print_budget(config)
    return 0


def _launch(overrides: Sequence[str]) -> None:
    """Hand the jobs to Hydra, so that `hydra/launcher=` (joblib, submitit) works as its users know it."""
    registry()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints a traceback of its own and ends the process
    arguments, sys.argv = sys.argv, [sys.argv[0], "--multirun", *readable(overrides)]
    try:
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="run")(_job)()
    except Exception as error:
        # Jobs keep their errors to themselves, see `_job`: what arrives here is the launcher's.
        launcher = next((item for item in reversed(overrides) if item.startswith("hydra/launcher=")), "hydra/launcher")
        raise ConfigError(f"{launcher}: {' '.join(str(error).split()) or type(error).__name__}") from error
    finally:
        sys.argv = arguments


def _job(config: DictConfig) -> int:
    """One job in whatever process the launcher chose; its errors stay in its run folder and in the return value."""
    from athlos.cli.panels import Terminal, print_error
    from athlos.runs.execute import execute

    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("athlos").setLevel(logging.INFO)
    registry()
    overrides = HydraConfig.get().overrides.task
    try:
        leave_architecture_to_folder(config, overrides)
        run = checked(config)
        execute(run, watcher=Terminal() if run.progress else None, overrides=overrides)
    except AthlosError as error:
        print_error(error)
        return error.exit_code
    except Exception as error:
        print_error(AthlosError(f"internal: {type(error).__name__}: {error}"))
        return 1
    return 0


def _summary(configs: Sequence[RunConfig], finished: Sequence[bool]) -> int:
    """Print state and folder of every job, read from the run folders: launchers may have run them anywhere."""
    code = 0
    for config, was_finished in zip(configs, finished, strict=True):
        folder = RunFolder(config)
        path: Path = run_dir(config)
        if was_finished:
            print(f"skipped   {path}")
        elif folder.is_finished:
            print(f"finished  {path}")
        else:
            status = folder.status
            print(f"failed    {path}  {status.get('error', 'no record')}: {status.get('message', 'the job left none')}")
            code = code or status.get("exit_code", 1)
    return code
