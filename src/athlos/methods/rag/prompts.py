"""What the model is asked, in words of our own.

Instructions for answers are in the language of the question where `ANSWER` has it, since English ones make a model
answer in English; the others are in English and name the language that is wanted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from athlos.errors import ConfigError
from athlos.retrieval.interface import Passage
from athlos.text.language import base_language
from athlos.text.prompt_styles import language_name
from athlos.text.replies import FINAL, NEXT, UNKNOWN

ENGLISH = "en"


@dataclass(frozen=True, kw_only=True)
class Words:
    """Instructions and labels of one language."""

    read: str
    closed: str
    passage: str
    question: str
    answer: str


ANSWER = {
    "en": Words(
        read="Answer the question from the passages alone, with the shortest words that answer it. "
        f"If the passages do not tell, write {UNKNOWN}.",
        closed=f"Answer the question with the shortest words that answer it. If you do not know, write {UNKNOWN}.",
        passage="Passage",
        question="Question",
        answer="Answer",
    ),
    "de": Words(
        read="Beantworte die Frage allein aus den Textstellen und so kurz wie möglich. "
        f"Sagen die Textstellen nichts dazu, schreibe {UNKNOWN}.",
        closed=f"Beantworte die Frage so kurz wie möglich. Weißt du es nicht, schreibe {UNKNOWN}.",
        passage="Textstelle",
        question="Frage",
        answer="Antwort",
    ),
    "es": Words(
        read="Responde a la pregunta solo con lo que dicen los pasajes y con las palabras mínimas. "
        f"Si los pasajes no lo dicen, escribe {UNKNOWN}.",
        closed=f"Responde a la pregunta con las palabras mínimas. Si no lo sabes, escribe {UNKNOWN}.",
        passage="Pasaje",
        question="Pregunta",
        answer="Respuesta",
    ),
    "fr": Words(
        read="Réponds à la question d'après les passages seuls et avec le moins de mots possible. "
        f"Si les passages ne le disent pas, écris {UNKNOWN}.",
        closed=f"Réponds à la question avec le moins de mots possible. Si tu ne le sais pas, écris {UNKNOWN}.",
        passage="Passage",
        question="Question",
        answer="Réponse",
    ),
    "zh": Words(
        read=f"请只根据下列段落回答问题，答案越短越好。如果段落没有说明，请写 {UNKNOWN}。",
        closed=f"请回答问题，答案越短越好。如果不知道，请写 {UNKNOWN}。",
        passage="段落",
        question="问题",
        answer="答案",
    ),
    "ja": Words(
        read="次の文章だけをもとに、できるだけ短く質問に答えてください。"
        f"文章に書かれていなければ {UNKNOWN} と書いてください。",
        closed=f"できるだけ短く質問に答えてください。知らなければ {UNKNOWN} と書いてください。",
        passage="文章",
        question="質問",
        answer="答え",
    ),
}


def named(language: str) -> str:
    """The English name of a language; its code where it has none, as in the lab."""
    try:
        return language_name(language)
    except ConfigError:
        return language


def listed(passages: Sequence[Passage], label: str) -> str:
    """The passages of a prompt, one a line: number, title, text."""
    return "".join(
        f"{label} {number}{f' ({passage.title})' if passage.title else ''}: {' '.join(passage.text.split())}\n"
        for number, passage in enumerate(passages, start=1)
    )


def read(question: str, passages: Sequence[Passage], *, asked_in: str, language: str, said: Sequence[str] = ()) -> str:
    """Answer from passages. The question is `asked_in` one language, its answer is wanted in `language`."""
    words = ANSWER[words_of(asked_in)]
    in_language = "" if base_language(language) == words_of(asked_in) else f" Answer in {named(language)}."
    thoughts = "".join(f"- {sentence}\n" for sentence in said)
    return (
        f"{words.read if passages else words.closed}{in_language}\n\n{listed(passages, words.passage)}{thoughts}"
        f"{words.question}: {question}\n{words.answer}:"
    )


def words_of(language: str) -> str:
    """The language that instructions for an answer to a question in this one are in."""
    base = base_language(language)
    return base if base in ANSWER else ENGLISH


def translate(question: str, *, source: str, target: str) -> str:
    return (
        f"Translate the question from {named(source)} to {named(target)}. Keep every name as it is known there, and "
        f"write the translation alone.\n\n{named(source)}: {question}\n{named(target)}:"
    )


def decompose(question: str, *, language: str, most: int) -> str:
    return (
        f"Split the question into the fewest questions, at most {most}, that one passage each can answer. Write them "
        f"in {named(language)}, one a line behind its number, in the order in which they can be answered. Write #1 "
        "for the answer to the first, #2 for the answer to the second, and so on. The last one's answer is the "
        "answer to the whole. Answer none of them.\n\n"
        "Question: In which country does the river rise that flows through the capital of Austria?\n"
        "1. What is the capital of Austria?\n2. Which river flows through #1?\n3. In which country does #2 rise?\n\n"
        f"Question: {question}\n"
    )


def follow_up(question: str, solved: Sequence[tuple[str, str]], *, language: str) -> str:
    """The next question to ask, or the answer."""
    steps = "".join(f"{NEXT} {asked}\nIts answer: {answer}\n" for asked, answer in solved)
    return (
        f"Answer the question by simpler ones. Write one line: either '{NEXT}' and the next simple question to look "
        f"up, or, when nothing more is needed, '{FINAL}' and the shortest answer. Write in {named(language)} behind "
        "these words.\n\n"
        f"Question: Who was the mayor of the city where Ada Krone was born?\n{NEXT} Where was Ada Krone born?\n"
        f"Its answer: Ulm\n{NEXT} Who was the mayor of Ulm?\nIts answer: Emil Sander\n{FINAL} Emil Sander\n\n"
        f"Question: {question}\n{steps}"
    )


def think(question: str, passages: Sequence[Passage], thoughts: Sequence[str], *, language: str) -> str:
    """The next sentence of a chain of thought."""
    steps = "".join(f"{sentence}\n" for sentence in thoughts)
    return (
        "Reason towards the answer of the question, one fact from the passages in each sentence. Write the next "
        f"sentence alone, in {named(language)}. When all facts are there, write '{FINAL}' and the shortest answer in "
        f"its place.\n\n{listed(passages, ANSWER[ENGLISH].passage)}Question: {question}\nReasoning:\n{steps}"
    )
