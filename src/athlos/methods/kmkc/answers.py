"""What counts as a right answer, for profiles, rewards and evaluation alike."""

from athlos.data.records import MathRecord, QuestionRecord, Record
from athlos.text.matching import answer_length, cover_em
from athlos.text.maths import answers_equal, extract_answer
from athlos.text.normalisation import default_normaliser, normalise
from athlos.text.prompt_styles import gold_answers


def normalised(text: str, record: Record) -> str:
    """The answer as answers are compared: of a word problem its number, of a question its normalised words."""
    if isinstance(record, MathRecord):
        return extract_answer(text) or ""
    return normalise(text, normaliser=default_normaliser(record.language), language=record.language)


def is_well_formed(text: str, record: Record, *, max_tokens: int) -> bool:
    """Whether there is an answer, of at most `max_tokens` words."""
    answer = normalised(text, record)
    length = answer_length(answer, language=record.language, normaliser=default_normaliser(record.language))
    return 1 <= length <= max_tokens


def is_right(text: str, record: Record, *, max_tokens: int) -> bool:
    """Whether an answer covers a gold one; more than `max_tokens` words list answers, and are wrong."""
    if not is_well_formed(text, record, max_tokens=max_tokens):
        return False
    if isinstance(record, MathRecord):
        return answers_equal(extract_answer(text), record.answer)
    assert isinstance(record, QuestionRecord)
    normaliser = default_normaliser(record.language)
    return cover_em(text, gold_answers(record), language=record.language, normaliser=normaliser) == 1
