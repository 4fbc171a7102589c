"""Evaluation shared out among processes: the results of one process, in order, and no process that waits for ever."""

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tests.assembled import suite_of
from tests.evaluation import test_completions as completions
from tests.evaluation import test_margin as margin
from tests.evaluation import test_picture_choices as pictures
from tests.evaluation import test_streams as streams
from tests.evaluation.test_picture_choices import answerer as answerer
from tests.evaluation.test_suites import MATHS, SAID, Scripted, suite
from tests.models.conftest import tiny as tiny
from tests.tolerances import FLOAT32

from athlos.config.compose import run_config
from athlos.data.source import build_source
from athlos.errors import TrainingError
from athlos.evaluation import sharding
from athlos.evaluation.sharding import alone, in_shares, one_by_one
from athlos.evaluation.suites import picture_choices
from athlos.evaluation.suites.perplexity import stream_nll
from athlos.models.vision_language import encode_pictures


class ThreadGroup:
    """Stands for `torch.distributed` with a process a thread."""

    def __init__(self, size: int) -> None:
        self.size, self.barrier, self.said = size, threading.Barrier(size, timeout=20), [None] * size
        self.place = threading.local()
        self.group = self
        self.WORLD = None

    def is_initialized(self) -> bool:
        return True

    def get_world_size(self) -> int:
        return self.size

    def get_rank(self) -> int:
        return int(self.place.rank)

    def new_group(self, **_: Any) -> None:
        return None

    def all_gather_object(self, said: list[Any], words: Any, *, group: Any) -> None:
        self.said[self.get_rank()] = words
        self.barrier.wait()
        said[:] = self.said
        self.barrier.wait()

    def run(self, program: Callable[[int], Any]) -> list[Any]:
        """What each process returns, or the error that it ends with."""

        def process(rank: int) -> Any:
            self.place.rank = rank
            try:
                return program(rank)
            except Exception as error:
                return error

        with ThreadPoolExecutor(self.size) as threads:
            return list(threads.map(process, range(self.size)))


@pytest.fixture
def group(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadGroup]:
    threads = ThreadGroup(getattr(request, "param", 2))
    monkeypatch.setattr(sharding, "dist", threads)
    sharding._cpu_group.cache_clear()
    yield threads
    sharding._cpu_group.cache_clear()


@pytest.mark.parametrize("group", [2, 3], indirect=True)
@pytest.mark.parametrize("number", [0, 1, 2, 5, 6])
def test_every_process_has_all_results_in_order_and_did_its_part(group: ThreadGroup, number: int) -> None:
    shares: dict[int, list[int]] = {}

    def program(rank: int) -> list[int]:
        def work(share: Any) -> list[int]:
            shares[rank] = list(share)
            return [10 * item for item in share]

        return in_shares(range(number), work)

    assert group.run(program) == [[10 * item for item in range(number)]] * group.size
    assert shares == {rank: list(range(rank, number, group.size)) for rank in range(min(group.size, number))}


def test_progress_tells_of_the_own_share(group: ThreadGroup) -> None:
    told: dict[int, list[Any]] = {0: [], 1: []}

    def program(rank: int) -> list[int]:
        return one_by_one(
            [1, 2, 3], lambda item: item, progress=lambda *counts: told[rank].append(counts), num_tokens=lambda n: n
        )

    assert group.run(program) == [[1, 2, 3]] * 2
    assert told == {0: [(1, 2, 1), (2, 2, 4)], 1: [(1, 1, 2)]}


def test_an_error_in_one_share_ends_all_processes(group: ThreadGroup) -> None:
    def program(rank: int) -> list[int]:
        return in_shares([1, 0, 2], lambda share: [1 // item for item in share])

    first, second = group.run(program)
    assert isinstance(first, TrainingError)
    assert "process 1 of 2 failed in its share of the evaluation: ZeroDivisionError" in str(first)
    assert isinstance(second, ZeroDivisionError)


def test_a_share_of_another_length_is_no_result(group: ThreadGroup) -> None:
    assert all(isinstance(error, ValueError) for error in group.run(lambda _: in_shares([1, 2, 3], lambda _: [1])))


def test_alone_nothing_is_shared(group: ThreadGroup) -> None:
    def program(rank: int) -> list[int]:
        if rank == 1:
            return []
        with alone():
            return in_shares([1, 2, 3], list)

    assert group.run(program) == [[1, 2, 3], []]


def test_suites_ask_each_question_once_and_agree(group: ThreadGroup) -> None:
    answerers, maths = [Scripted(SAID) for _ in range(2)], suite("math")
    first, second = group.run(lambda rank: maths.evaluate(answerers[rank], MATHS))
    with alone():
        whole = maths.evaluate(Scripted(SAID), MATHS)
    assert first == second == whole
    assert [[request.identifier for request in one.requests] for one in answerers] == [["en1", "de1"], ["en2", "de2"]]


def passes_of(model: Any) -> list[None]:
    """Grows by one with every forward pass of a model, in whichever process."""
    passes: list[None] = []
    model.get_input_embeddings().register_forward_pre_hook(lambda *_: passes.append(None))
    return passes


@pytest.mark.parametrize("group", [3], indirect=True)
def test_sums_over_batches_are_those_of_one_process_to_the_last_digit(group: ThreadGroup) -> None:
    holder: Any = completions.Holder()
    sharing: dict[str, Callable[[], Any]] = {}
    by_completion = completions.suite("data.num_test=10", "eval.bootstrap=50")
    answers = list(build_source(by_completion.run).records("test"))
    sharing["completions"] = lambda: by_completion.evaluate(holder, answers)
    config = run_config([*streams.CHAIN, "eval.batch_size=5"])
    rows = list(build_source(config).records("test"))
    sharing["streams"] = lambda: suite_of(config).evaluate(holder, rows)
    sharing["perplexity"] = lambda: stream_nll(
        holder.model, torch.arange(60) * 7 % 30, length=7, stride=5, batch_size=2
    )
    passes = passes_of(holder.model)
    for name, program in sharing.items():
        passes.clear()
        with alone():
            whole = program()
        num_passes = len(passes)
        assert group.run(lambda _, program=program: program()) == [whole] * 3, name
        assert len(passes) == 2 * num_passes > 6, name


@pytest.mark.parametrize("group", [2, 3], indirect=True)
def test_problems_scored_by_likelihood_are_shared(group: ThreadGroup, tiny: Any) -> None:
    suite = suite_of(run_config(["data=mgsm", "eval=margin", "train.max_steps=0", "eval.bootstrap=20"]))
    answerer: Any = SimpleNamespace(model=tiny("llama"), tokenizer=margin.Bytes())
    problems = [margin.problem(language, answer) for language in ("en", "de") for answer in ("2", "31", "8")]
    with alone():
        whole = suite.evaluate(answerer, problems)
    passes = passes_of(answerer.model)
    assert group.run(lambda _: suite.evaluate(answerer, problems)) == [whole] * group.size
    assert len(passes) == len(problems)


@pytest.mark.parametrize("group", [2, 3], indirect=True)
def test_a_picture_is_encoded_by_one_process(
    group: ThreadGroup, answerer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []

    def noted(model: Any, shown: Any) -> torch.Tensor:
        encoded.extend(int(picture[0, 0, 0]) for picture in shown)
        return encode_pictures(model, shown)

    items = [
        pictures.choice(number, language, answer=number % 3) for language in ("en", "fr") for number in (1, 2, 3, 4)
    ]
    circular = pictures.suite("eval.suites.picture_choices.circular=true")
    with alone():
        whole = circular.evaluate(answerer, items)
    monkeypatch.setattr(picture_choices, "encode_pictures", noted)
    results = group.run(lambda _: circular.evaluate(answerer, items))
    assert sorted(encoded) == [20, 40, 60, 80]
    for result in results:
        assert result.metrics == pytest.approx(whole.metrics, abs=FLOAT32)
        assert [row["id"] for row in result.predictions] == [item.identifier for item in items]
        assert [row["letter"] for row in result.predictions] == [row["letter"] for row in whole.predictions]


PROGRAM = """
import datetime, os, sys, time
import torch.distributed as dist
from athlos.errors import TrainingError
from athlos.evaluation import sharding
from athlos.evaluation.sharding import in_shares
rank, store, ending = int(sys.argv[1]), sys.argv[2], sys.argv[3]
if ending == "hangs":
    sharding.LONGEST_WAIT = datetime.timedelta(seconds=5)
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
print(in_shares(list("abc"), lambda share: [item.upper() for item in share]), flush=True)
if rank == 1:
    in_shares([1, 2], lambda _: os._exit(9) if ending == "dies" else time.sleep(60))
try:
    in_shares([1, 2], list)
except TrainingError as error:
    print(error, flush=True)
os._exit(0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["dies", "hangs"])
def test_nobody_waits_for_ever(tmp_path: Path, ending: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(rank), str(tmp_path / "store"), ending],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said, errors = processes[0].communicate(timeout=120)
    assert processes[0].returncode == 0, errors
    if ending == "hangs":
        assert processes[1].poll() is None
        processes[1].kill()
    heard, _ = processes[1].communicate(timeout=120)
    assert said.startswith("['A', 'B', 'C']\nevaluation: another process died or took longer than ")
    assert heard == "['A', 'B', 'C']\n"
