"""`athlos`: parses the command line and turns errors into one line and an exit code. Imports nothing heavy."""

import argparse
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from athlos import __version__
from athlos.errors import INTERRUPTED, AthlosError, ConfigError

EXAMPLES = """examples:
  athlos run                                        a tiny model learns Shakespeare, on any laptop
  athlos run experiment=finetune/tiny train.lr=3e-4   an experiment, one value changed
  athlos run -m experiment=finetune/tiny seed=1,2,3   a sweep: three runs in one wandb group
  athlos run scale=paper model=paper/llama2_7b dry_run=true   parameters, memory and FLOPs, no weights needed
  athlos run --cfg experiment=finetune/tiny         print the composed config and stop
  athlos ask "Who?" corpus=files corpus.path=notes model=small/smollm2_135m    a question over one's own files
  athlos index corpus=files corpus.path=notes       make one's own text files ready to be searched
  athlos judge pairs.jsonl judge=lexical            does each premise support its hypothesis?
  athlos list experiments                           what there is to run
  athlos doctor                                     what this machine can do
  athlos export results/finetune_tiny/<run> --out my-model   Hugging Face weights of a run
  athlos report results --out report.html           one page: table, curves, costs, predictions of all runs
  athlos claims lisa                                the paper's numbers beside ours, computed from runs
  athlos cache                                      what the cache holds, and which run folders use it
  athlos record results/lang_lab --study lang       keep runs in experiments/lang/records.jsonl.gz, without weights
  athlos lab sample                                 a look at the controlled world: five languages, facts, sums ...
"""


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="athlos",
        description="Twelve published language-model methods as stackable parts on one trainer.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"athlos {__version__}")
    commands = top.add_subparsers(dest="command", metavar="command", required=True)
    # The same flag stands on every command, so that it may be written where the user thinks of it.
    debug = argparse.ArgumentParser(add_help=False)
    debug.add_argument("--debug", action="store_true", help="show the traceback of an error")

    run = commands.add_parser(
        "run",
        parents=[debug],
        help="make, resume or skip a run; -m for a sweep",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    run.add_argument("-m", "--multirun", action="store_true", help="sweep over comma-separated values")
    run.add_argument("--cfg", action="store_true", help="print the composed config and stop")
    run.add_argument("--config-dir", metavar="DIR", help="a folder with more YAML files, laid out like conf/")
    run.add_argument("overrides", nargs="*", metavar="key=value", help="Hydra overrides")

    ask = commands.add_parser("ask", parents=[debug], help="one question through a pipeline, step by step")
    ask.add_argument("question", metavar="QUESTION", help="the question, in quotes")
    ask.add_argument("--language", metavar="CODE", help="its language (that of the corpus, else en)")
    ask.add_argument(
        "overrides", nargs="*", metavar="key=value", help="Hydra overrides: corpus, model, method.variant, ..."
    )

    index = commands.add_parser("index", parents=[debug], help="build the index of a corpus, and say its size and key")
    index.add_argument(
        "overrides", nargs="*", metavar="key=value", help="Hydra overrides: corpus, index and their keys"
    )

    judge = commands.add_parser("judge", parents=[debug], help="does each premise support its hypothesis?")
    judge.add_argument(
        "words",
        nargs="+",
        metavar="FILE|key=value",
        help="JSON lines of premise, hypothesis and, if people judged them, label (true or false); or data=... whose "
        "claims people judged; and Hydra overrides: judge=... (lexical)",
    )
    judge.add_argument("--out", metavar="FILE", help="write the pairs with their scores there, as JSON lines")
    judge.add_argument("--table", metavar="FILE", help="put the judge's row into a table of judges on the same pairs")
    judge.add_argument("--limit", type=int, metavar="N", help="at most N pairs of each label, by the hash of the texts")

    listing = commands.add_parser("list", parents=[debug], help="methods, parts, models, data or experiments")
    listing.add_argument("kind", metavar="methods|parts|models|data|experiments")
    listing.add_argument("--json", action="store_true", help="print JSON")

    doctor = commands.add_parser(
        "doctor", parents=[debug], help="what is installed and reachable, and what that allows"
    )
    doctor.add_argument("--json", action="store_true", help="print JSON")

    export = commands.add_parser("export", parents=[debug], help="Hugging Face weights of a finished run")
    export.add_argument("run", metavar="RUN", help="a run folder")
    export.add_argument("--out", required=True, metavar="DIR", help="folder to write; must not exist or be empty")

    report = commands.add_parser("report", parents=[debug], help="one self-contained page that compares runs")
    report.add_argument("results", metavar="RESULTS", help="a folder with runs anywhere below it, or a records file")
    report.add_argument("--out", default="report.html", metavar="FILE", help="the page to write (report.html)")
    report.add_argument(
        "--predictions", type=int, default=50, metavar="N", help="rows shown of each prediction file (50); 0 = none"
    )
    report.add_argument("--title", metavar="TEXT", help="heading of the page")
    report.add_argument(
        "--wandb", nargs="+", default=[], metavar="DIR", help="folders with offline runs of wandb to show as well"
    )
    report.add_argument(
        "--with-records", action="store_true", help="also the claims that the committed records of experiments/ tell"
    )

    claims = commands.add_parser("claims", parents=[debug], help="papers' claims beside what runs show")
    claims.add_argument("methods", nargs="*", metavar="METHOD", help="any of the methods that list claims (all)")
    claims.add_argument(
        "--runs",
        nargs="+",
        default=[],
        metavar="PATH",
        help="results or records files, beside those of experiments/",
    )
    form = claims.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_const", dest="form", const="json", help="print JSON")
    form.add_argument("--markdown", action="store_const", dest="form", const="markdown", help="print Markdown")
    form.add_argument(
        "--summary", action="store_const", dest="form", const="summary", help="print the number of each verdict"
    )

    cache = commands.add_parser(
        "cache", parents=[debug], help="what the cache holds; `athlos cache prune` removes from it"
    )
    cache.add_argument(
        "action", nargs="?", choices=("list", "prune"), default="list", help="list (the default) or prune"
    )
    cache.add_argument("--older-than", metavar="AGE", help="products made longer ago than that: 30d, 12h")
    kind = cache.add_mutually_exclusive_group()
    kind.add_argument("--unused", action="store_true", help="finished products that no run folder uses any more")
    kind.add_argument("--unfinished", action="store_true", help="what stopped builds left, and damaged products")
    cache.add_argument("--stage", metavar="NAME", help="products of one stage")
    cache.add_argument("--dry-run", action="store_true", help="with prune: remove nothing, show what would go")
    cache.add_argument("--verbose", action="store_true", help="name the run folders")
    cache.add_argument("--cache-dir", metavar="DIR", help="the cache folder ($ATHLOS_CACHE, else ~/.cache/athlos)")
    cache.add_argument("--json", action="store_true", help="print JSON")

    record = commands.add_parser("record", parents=[debug], help="keep runs for good, without weights and predictions")
    record.add_argument("runs", nargs="+", metavar="RUN", help="a run folder, or a folder with some below it")
    record.add_argument("--study", required=True, metavar="SLUG", help="the folder of experiments/ to write to")
    record.add_argument("--new", action="store_true", help="make the folder of a new study")

    lab = commands.add_parser("lab", help="the controlled world: `athlos lab sample` shows it")
    # No `debug` on `lab` itself: the flag of `sample` would put it back to its default.
    actions = lab.add_subparsers(dest="action", metavar="action", required=True)
    sample = actions.add_parser("sample", parents=[debug], help="a readable sample of each kind of lab data")
    sample.add_argument(
        "--language", nargs="+", default=[], metavar="CODE", help="any of latn, cyrl, grek, thai, hani (all)"
    )
    sample.add_argument(
        "--kind",
        nargs="+",
        default=[],
        metavar="KIND",
        help="any of languages, facts, chains, documents, sums, memory, pictures, streams (all)",
    )
    sample.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the world (0)")
    sample.add_argument("--count", type=int, metavar="N", help="at most so many samples of each kind (a few)")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code (see the contract of a run in the README)."""
    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("athlos").setLevel(logging.INFO)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # Threads that spin while they wait cost a factor of ten once another job wants the same cores; read by OpenMP when
    # torch is imported, so it stands here.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _take_sigterm_as_ctrl_c()
    try:
        return _dispatch(options)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        return INTERRUPTED
    except AthlosError as error:
        if options.debug:
            raise
        _print_error(error)
        return error.exit_code
    except BrokenPipeError:
        # The reader went away (`athlos list ... | head`): nothing to say, and stdout must not be flushed again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if options.debug:
            raise
        text = f"internal: {type(error).__name__}: {error}; run again with --debug for the traceback"
        _print_error(AthlosError(text))
        return 1


def _take_sigterm_as_ctrl_c() -> None:
    """A run that is told to end writes its state first. Slurm's jobs are left alone, which the trainer requeues."""
    is_ours = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL and "SLURM_JOB_ID" not in os.environ
    if is_ours and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)


def _print_error(error: AthlosError) -> None:
    from athlos.cli.panels import print_error

    print_error(error)


def _dispatch(options: argparse.Namespace) -> int:
    if options.command == "run":
        return _run(options)
    if options.command == "ask":
        from athlos.cli.ask import print_answer

        print_answer(options.question, options.overrides, language=options.language)
        return 0
    if options.command == "index":
        from athlos.cli.index import print_index

        print_index(options.overrides)
        return 0
    if options.command == "judge":
        _judge(options)
        return 0
    if options.command == "list":
        from athlos.cli.listing import print_list

        print_list(options.kind, as_json=options.json)
        return 0
    if options.command == "doctor":
        from athlos.cli.doctor import print_doctor

        return print_doctor(as_json=options.json)
    if options.command == "report":
        return _report(options)
    if options.command == "claims":
        from athlos.cli.claims import print_claims

        print_claims(
            options.methods, runs=[Path(folder).expanduser() for folder in options.runs], form=options.form or "table"
        )
        return 0
    if options.command == "cache":
        _cache(options)
        return 0
    if options.command == "record":
        from athlos.cli.record import record_runs

        runs = [Path(folder).expanduser() for folder in options.runs]
        print(record_runs(runs, study=options.study, is_new=options.new))
        return 0
    if options.command == "lab":
        from athlos.cli.lab import print_sample

        print_sample(languages=options.language, kinds=options.kind, seed=options.seed, count=options.count)
        return 0
    from athlos.runs.export import export_run

    print(export_run(Path(options.run), out=Path(options.out)))
    return 0


def _judge(options: argparse.Namespace) -> None:
    from athlos.cli.judge import print_judged

    out, table = (Path(path).expanduser() if path else None for path in (options.out, options.table))
    print_judged(options.words, out=out, table=table, limit=options.limit)


def _cache(options: argparse.Namespace) -> None:
    from athlos.cache_contents import Criteria, age_seconds
    from athlos.cli.cache import print_cache, print_pruned
    from athlos.stages import cache_dir

    root = cache_dir(options.cache_dir)
    criteria = Criteria(
        older_than_s=None if options.older_than is None else age_seconds(options.older_than),
        is_unused=options.unused,
        is_unfinished=options.unfinished,
        stage=options.stage,
    )
    if options.action == "prune":
        print_pruned(root, criteria=criteria, is_dry=options.dry_run, as_json=options.json)
    elif options.dry_run:
        raise ConfigError("--dry-run: goes with `athlos cache prune`; `athlos cache` removes nothing")
    else:
        print_cache(root, criteria=criteria, is_verbose=options.verbose, as_json=options.json)


def _report(options: argparse.Namespace) -> int:
    from athlos.cli.report import write_report

    print(
        write_report(
            Path(options.results).expanduser(),
            out=Path(options.out).expanduser(),
            num_predictions=options.predictions,
            title=options.title,
            wandb_folders=[Path(folder).expanduser() for folder in options.wandb],
            with_records=options.with_records,
        )
    )
    return 0


def _run(options: argparse.Namespace) -> int:
    from athlos.config.compose import compose_dict, run_config
    from athlos.config.overrides import quoted

    overrides = list(options.overrides)
    if options.config_dir:
        folder = Path(options.config_dir).expanduser().resolve()
        if not folder.is_dir():
            raise ConfigError(f"--config-dir: '{options.config_dir}' is not a folder")
        overrides.append(f"hydra.searchpath=[{quoted(f'file://{folder}')}]")
    if options.multirun and options.cfg:
        raise ConfigError("--cfg: shows the config of one run; leave -m out, and dry_run=true shows all of a sweep")
    if options.multirun:
        from athlos.cli.sweep import sweep

        return sweep(overrides)
    if options.cfg:
        from omegaconf import OmegaConf

        run_config(overrides)
        print(OmegaConf.to_yaml(compose_dict(overrides), resolve=True), end="")
        return 0
    config = run_config(overrides)
    if config.dry_run:
        from athlos.cli.dry_run import print_budget

        print_budget(config)
        return 0
    from athlos.cli.panels import Terminal
    from athlos.runs.execute import execute, process_rank

    folder = execute(config, watcher=Terminal() if config.progress else None, overrides=options.overrides)
    if process_rank() == 0:
        print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
