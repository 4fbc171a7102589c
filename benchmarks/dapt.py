"""What DaPT gains by asking together, with a small model of random weights on this machine.

    python benchmarks/dapt.py [--questions N]

two_graphs_ratio   both decompositions of a question in one batch, over one after the other: processor seconds of ten
                   questions, each by itself
one_depth_ratio    N questions (200) of two steps under way together, over question by question
same_answers       whether both ways gave the same answers

A second merge asks for no graph again: that is a test, for nothing is left to be timed. Ends in one JSON line.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from transformers import LlamaConfig, LlamaForCausalLM, set_seed

from athlos.config.compose import run_config
from athlos.data.records import PARALLEL, QuestionRecord, Step
from athlos.generation.config import NativeConfig
from athlos.generation.interface import Prediction, Request
from athlos.generation.native import NativeEngine
from athlos.generation.pipeline import Solver, solve_together
from athlos.methods.dapt.components import Components, Question
from athlos.methods.dapt.config import DaptConfig
from athlos.methods.dapt.config import Path as Graphs
from athlos.methods.dapt.pipeline import DaptSolver, Decomposed, decompose
from athlos.models.tokenizers import byte_tokenizer
from athlos.retrieval.config import LexicalIndexConfig
from athlos.retrieval.corpus import GivenCorpus
from athlos.retrieval.interface import CorpusPassage
from athlos.retrieval.lexical import LexicalIndex
from athlos.stages import StageStore

NUM_PAIRS, NUM_PASSAGES = 10, 400
CONTEXT, NEW_TOKENS = 4096, 256


def question(number: int) -> QuestionRecord:
    steps = [
        Step(question=f"Wo wohnt w{number}?", answer="?"),
        Step(question="Welcher Fluss fließt durch #1?", answer="?"),
    ]
    english = {"question": f"Which river is at home with w{number}?", "steps": [["Where?", "?"], ["River of #1?", "?"]]}
    return QuestionRecord(
        identifier=f"q{number}",
        language="de",
        question=f"Welcher Fluss fließt durch den Ort, in dem w{number} wohnt?",
        answers=["?"],
        steps=steps,
        meta={PARALLEL: english},
    )


class Bench:
    def __init__(self, folder: Path) -> None:
        set_seed(1)
        sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
        model = LlamaForCausalLM(LlamaConfig(vocab_size=259, max_position_embeddings=CONTEXT, **sizes)).eval()
        self.engine = NativeEngine(NativeConfig(_target_="", batch_size=64), model=model, tokenizer=byte_tokenizer())
        passages = [
            CorpusPassage(identifier=f"p{row}", text=f"w{row} wohnt at home in v{row}", language=language)
            for row in range(NUM_PASSAGES)
            for language in ("de", "en")
        ]
        self.index = LexicalIndex(
            LexicalIndexConfig(k1=1.2, b=0.75), corpus=GivenCorpus(passages), stages=StageStore(folder)
        )
        method = run_config(["method=dapt", "corpus=contexts", "index=lexical", "train.max_steps=0"]).method
        assert isinstance(method, DaptConfig)
        self.method = replace(method, max_new_tokens=NEW_TOKENS, k=1, translator="oracle")

    def decomposed(self, record: QuestionRecord, *, path: Graphs) -> None:
        method = replace(self.method, path=path)
        parts = Components(method, seed=1, exact=None)
        self.run([record], lambda asked: decompose(asked, method=method, parts=parts), in_flight=1)

    def solved(self, records: Sequence[QuestionRecord], *, in_flight: int) -> list[str]:
        """The answers by gold graphs, whose nodes match in their order, and the model as reader."""
        method = replace(self.method, decomposer="gold")
        parts = Components(method, seed=1, exact=None)
        solver = DaptSolver(method=method, parts=parts, tau=0.5, compare=lambda s, e: np.eye(len(s), len(e)))

        def both(asked: Question) -> Solver:
            first = Decomposed.loaded((yield from decompose(asked, method=method, parts=parts)))
            return (yield from solver.solve(asked, first))

        return [prediction.text for prediction in self.run(records, both, in_flight=in_flight)]

    def run(
        self, records: Sequence[QuestionRecord], solver: Callable[[Question], Solver], *, in_flight: int
    ) -> list[Prediction]:
        requests = [Request(identifier=record.identifier, prompt=record.question, record=record) for record in records]
        found = dict(
            solve_together(
                requests,
                lambda request: solver(Question.of(request.record, pivot="en")),
                generator=self.engine,
                index=self.index,
                in_flight=in_flight,
            )
        )
        return [found[place] for place in range(len(records))]


def seconds(work: Callable[[], object]) -> float:
    """Of the processor: other work on the machine does not count."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        records = [question(number) for number in range(arguments.questions)]
        pairs = records[:NUM_PAIRS]
        bench.decomposed(pairs[0], path=Graphs.dual)  # the first call of an engine is slower
        took = {
            path: seconds(lambda path=path: [bench.decomposed(record, path=path) for record in pairs])  # type: ignore[misc]
            for path in Graphs
        }
        answers: dict[str, list[str]] = {}

        def solve(name: str, in_flight: int) -> None:
            answers[name] = bench.solved(records, in_flight=in_flight)

        together = seconds(lambda: solve("together", len(records)))
        alone = seconds(lambda: solve("alone", 1))
    figures = {
        "questions": len(records),
        "two_graphs_ratio": round(took[Graphs.dual] / (took[Graphs.src] + took[Graphs.en]), 3),
        "one_depth_ratio": round(together / alone, 3),
        "same_answers": answers["together"] == answers["alone"],
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
