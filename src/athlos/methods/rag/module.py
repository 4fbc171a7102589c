"""rag: the variants of `pipeline.py` behind the run's generator and index; nothing is trained."""

from functools import cache
from typing import Any

from hydra.utils import get_class

from athlos.data.records import QuestionRecord
from athlos.errors import DataError
from athlos.generation.interface import Request
from athlos.generation.pipeline import Solver
from athlos.methods.rag.config import RagConfig, Variant
from athlos.methods.rag.graph import NameGraph
from athlos.methods.rag.pipeline import UNFILLED, WHOLE, Rag
from athlos.parts import PartContext
from athlos.retrieval.corpus import Corpus
from athlos.training.module import Measured
from athlos.training.pipeline_module import PipelineModule


class RagModule(PipelineModule[RagConfig]):
    def prepare(self, *, context: PartContext) -> None:
        super().prepare(context=context)
        run = self.config
        self.rag = Rag(
            config=self.method,
            answer_tokens=run.decoding.max_new_tokens,
            stop=tuple(run.decoding.stop),
            is_bare=run.prompt_style == "bare",
            graph=cache(self._graph) if self.method.variant is Variant.graph else None,
        )

    def _graph(self, language: str) -> NameGraph:
        """The graph of the run's corpus in a language, from the passages that the index searches."""
        run, context = self.config, self.context
        assert context.data is not None
        corpus: Corpus[Any] = get_class(run.corpus._target_)(run.corpus, source=context.data.source)
        passages = corpus.store(context.stages).passages(language)
        return NameGraph(passages, language=language, config=self.method.graph)

    def solver(self, request: Request) -> Solver:
        if not isinstance(request.record, QuestionRecord):
            raise DataError(f"method=rag: '{request.identifier}' is a {type(request.record).__name__}, not a question")
        return self.rag.solver(request.record)

    def measurements(self) -> Measured:
        """Beside what every pipeline counts, how often a plan of sub-questions failed, a question."""
        metrics, figures = super().measurements()
        if self.method.variant is Variant.sequential:
            metrics |= self.means(
                {
                    "pipeline/unsplit": lambda trace: any(row["purpose"] == WHOLE for row in trace),
                    "pipeline/unfilled": lambda trace: sum(row["purpose"] == UNFILLED for row in trace),
                }
            )
        return metrics, figures
