"""The dials of questions with answers from a known source, apart from the source itself: no numpy here."""

from dataclasses import dataclass

from athlos.config.fields import bounded, wrong_values
from athlos.errors import ConfigError, ConfigErrors


@dataclass(kw_only=True)
class AnswersConfig:
    """Questions whose answers come from a known source."""

    seed: int = 0
    """Seed of the source and of the samples; splits do not depend on it."""
    num_symbols: int = bounded("[2, 1024]", default=32)
    """Symbols of questions and answers."""
    num_topics: int = bounded("[1, 64]", default=4)
    """Topics. A question begins with its topic's own symbol."""
    question_length: int = bounded("[3, 32]", default=4)
    """Symbols of a question, the topic among them."""
    answers_per_question: int = bounded("[1, 8]", default=4)
    """Answers drawn to each question."""
    concentration: float = bounded("[1e-6, 1e6]", default=0.1)
    """Dirichlet parameter of the chains: near 0 the next symbol is certain."""
    topic_weight: float = bounded("[0, 1]", default=0.5)
    """Share of the topic's own chain in the next symbol; the rest is one chain for all. 0 = the question does not
    matter."""
    num_openers: int = bounded("[1, 1000]", default=3)
    """Openers that any answer may begin with, evenly chosen."""
    opener_length: int = bounded("[0, 16]", default=2)
    """Symbols of an opener: the prefix that answers to different questions share."""
    end_prob: float = bounded("[1e-6, 0.999999]", default=0.15)
    """Chance of the end after each symbol from the opener on."""
    max_answer: int = bounded("[1, 1000]", default=12)
    """Most symbols of an answer, above `opener_length`; there the end is certain."""

    @property
    def vocab_size(self) -> int:
        """Symbols, topics and the end."""
        return self.num_symbols + self.num_topics + 1


def check_answers(config: AnswersConfig) -> None:
    """Raises `ConfigError` for values out of range."""
    if errors := list(wrong_values(config, path="lab.answers")):
        raise ConfigErrors(errors)
    if config.max_answer <= config.opener_length:
        raise ConfigError(
            f"lab.answers.max_answer: got {config.max_answer}, expected more than opener_length = "
            f"{config.opener_length}"
        )
