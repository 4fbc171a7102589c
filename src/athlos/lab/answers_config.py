"""The dials of questions with answers from a known source, apart from the source itself: no numpy here."""

from dataclasses import dataclass

from athlos.errors import ConfigError


@dataclass(kw_only=True)
class AnswersConfig:
    """Questions whose answers come from a known source."""

    seed: int = 0
    """Seed of the source and of the samples, >= 0; splits do not depend on it."""
    num_symbols: int = 32
    """Symbols of questions and answers, in 2..1024."""
    num_topics: int = 4
    """Topics, in 1..64. A question begins with its topic's own symbol."""
    question_length: int = 4
    """Symbols of a question, the topic among them, in 3..32."""
    answers_per_question: int = 4
    """Answers drawn to each question, in 1..8."""
    concentration: float = 0.1
    """Dirichlet parameter of the chains, in (0, 1e6]: near 0 the next symbol is certain."""
    topic_weight: float = 0.5
    """Share of the topic's own chain in the next symbol, in [0, 1]; the rest is one chain for all. 0 = the question
    does not matter."""
    num_openers: int = 3
    """Openers that any answer may begin with, evenly chosen, in 1..1000."""
    opener_length: int = 2
    """Symbols of an opener, in 0..16: the prefix that answers to different questions share."""
    end_prob: float = 0.15
    """Chance of the end after each symbol from the opener on, in (0, 1)."""
    max_answer: int = 12
    """Most symbols of an answer, above `opener_length`; there the end is certain."""

    @property
    def vocab_size(self) -> int:
        """Symbols, topics and the end."""
        return self.num_symbols + self.num_topics + 1


def check_answers(config: AnswersConfig) -> None:
    """Raises `ConfigError` for values out of range."""
    ranges = {
        "num_symbols": (2, 1024), "num_topics": (1, 64), "question_length": (3, 32), "answers_per_question": (1, 8),
        "concentration": (1e-6, 1e6), "topic_weight": (0, 1), "num_openers": (1, 1000), "opener_length": (0, 16),
        "end_prob": (1e-6, 1 - 1e-6), "max_answer": (config.opener_length + 1, 1000),
    }  # fmt: skip
    for key, (low, high) in ranges.items():
        if not low <= getattr(config, key) <= high:
            raise ConfigError(f"lab.answers.{key}: got {getattr(config, key)}, expected {low} .. {high}")
