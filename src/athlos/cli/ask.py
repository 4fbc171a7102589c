"""`athlos ask`: one question over passages: each step towards the answer, and what the passages say of it."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from hydra.utils import get_class

from athlos.cli.panels import readable_metric, visible
from athlos.config.compose import run_config
from athlos.config.schema import RunConfig
from athlos.errors import ConfigError
from athlos.generation.config import SelfGeneratorConfig
from athlos.models.source import check_source
from athlos.retrieval.config import FilesCorpusConfig, NoIndexConfig, PassagesCorpusConfig
from athlos.training.pipeline_config import PipelineMethodConfig

if TYPE_CHECKING:
    from athlos.runs.ask import Answered

DEFAULTS = {"method": "rag", "corpus": "none", "index": "lexical", "eval": "none", "judge": "lexical"}
"""What answers where the command names nothing else; a folder of files is to be named."""
MAX_PASSAGES = 10
"""Passages shown of one search; the rest are counted."""


def print_answer(question: str, overrides: Sequence[str], *, language: str | None = None) -> None:
    """Print the steps, the answer, its sources and what it cost.

    Raises `ConfigError` for a question without words, for a run without passages to search or a model, and for a
    folder that is not there, before anything heavy is loaded.
    """
    if not question.strip():
        raise ConfigError('the question is empty; athlos ask "What is ...?" corpus=files corpus.path=<folder>')
    chosen = {override.lstrip("+").partition("=")[0] for override in overrides}
    defaults = [
        f"{group}={name}" for group, name in DEFAULTS.items() if group not in chosen and "experiment" not in chosen
    ]
    run = run_config([*defaults, "train.max_steps=0", *overrides])
    check(run)
    language = language or vars(run.corpus).get("language", "en")

    from athlos.runs.ask import ask

    answered = ask(run, question.strip(), language=language)
    for line in told(question.strip(), answered, is_in_files=in_files(run)):
        print(visible(line))


def in_files(run: RunConfig) -> bool:
    return isinstance(run.corpus, FilesCorpusConfig)


def check(run: RunConfig) -> None:
    """Raises `ConfigError`, or `ModelError` for a folder without weights, where torch would be loaded in vain."""
    if not isinstance(run.method, PipelineMethodConfig) and isinstance(run.index, NoIndexConfig):
        raise ConfigError("index: got none, but this method answers from passages that are searched; index=lexical")
    if isinstance(run.corpus, FilesCorpusConfig | PassagesCorpusConfig):
        get_class(run.corpus._target_)(run.corpus).fingerprint()
    is_own = isinstance(run.generator, SelfGeneratorConfig) and not run.engine.is_remote
    if is_own and run.model.source == "random":
        raise ConfigError(
            f"model: got {run.model.name}, whose weights are random; choose one that can read, such as "
            "model=small/smollm2_135m or model=own model.source=dir:<folder>, or engine=openai"
        )
    if is_own:
        check_source(run.model)


def told(question: str, answered: "Answered", *, is_in_files: bool) -> Iterator[str]:
    """The lines of an answer: each step of the pipeline, then the answer, its support, its sources and the cost."""
    trace = answered.prediction.trace
    yield f"question   {question}"
    for row in trace:
        yield ""
        if "query" in row:
            yield from _search(row, is_in_files=is_in_files)
        elif "reply" in row:
            yield from _call(row)
        else:
            yield f"{row['purpose']}"
            yield from (f"  {key}: {value}" for key, value in row.items() if key != "purpose")
    yield ""
    yield f"answer     {answered.prediction.text}"
    read = next((row["read"] for row in reversed(trace) if "reply" in row and row.get("read")), ())
    yield from _support(answered, read)
    yield f"sources    {', '.join(dict.fromkeys(read)) or 'none: no passage was read'}"
    replies = [row for row in trace if "reply" in row]
    prompt_tokens, new_tokens = (sum(row[name] for row in replies) for name in ("num_prompt_tokens", "num_tokens"))
    num_searches = len([row for row in trace if "query" in row])
    yield (
        f"cost       {len(replies)} calls, {num_searches} searches, {prompt_tokens:,} prompt tokens, "
        f"{new_tokens:,} new tokens"
    )


def _support(answered: "Answered", read: Sequence[str]) -> Iterator[str]:
    """Each sentence as the judge saw it, with the passages that it cites; one of no passage is named by its number."""
    for mark in answered.marks:
        cited = [
            f"[{number}] {read[number - 1] if 1 <= number <= len(read) else '(no such passage)'}"
            for number in mark.sentence.cited
        ]
        verdict = "supported" if mark.is_supported else "not supported"
        yield f"  {verdict} by {', '.join(cited) or 'the passages together'}: {mark.sentence.text}"
    if answered.judge:
        yield f"judge      {answered.judge}"


def _search(row: dict[str, Any], *, is_in_files: bool) -> Iterator[str]:
    passages = row["passages"]
    language = f" ({row['language']})" if row["language"] else ""
    yield f"{row['purpose']}{language}   {row['query']}"
    for passage in passages[:MAX_PASSAGES]:
        file = f"   file {passage['id'].rpartition('#')[0]}" if is_in_files else ""
        title = f"   {passage['title']}" if "title" in passage else ""
        yield f"  {passage['rank']:>2}  {passage['id']}{title}   score {readable_metric(passage['score'])}{file}"
    if len(passages) > MAX_PASSAGES:
        yield f"      and {len(passages) - MAX_PASSAGES} more"
    if not passages:
        yield "      nothing found"


def _call(row: dict[str, Any]) -> Iterator[str]:
    passages = f", from {len(row['read'])} passages" if "read" in row else ""
    yield f"{row['purpose']}{passages}   {row.get('question', '')}".rstrip()
    yield from (f"  {line}" for line in row["reply"].splitlines() or ["(no reply)"])
