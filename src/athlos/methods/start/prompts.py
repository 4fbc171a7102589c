"""What the generator is asked while warm-up data are written, in our own words; the paper's prompts are not known."""

from collections.abc import Sequence


def answer_prompt(question: str) -> str:
    return (
        "Answer the question in two to four sentences. Every sentence states facts, and none speaks of the answer "
        f"itself or of sources.\n\nQuestion: {question}"
    )


def claims_prompt(question: str, sentence: str) -> str:
    return (
        "List the facts that the sentence states, one a line, as a numbered list. Each line is one short sentence that "
        f"can be understood by itself. Add nothing.\n\nThe question was: {question}\nSentence: {sentence}"
    )


def document_prompt(question: str, claims: Sequence[str]) -> str:
    listed = "\n".join(f"- {claim}" for claim in claims)
    return (
        "Write a paragraph of an encyclopedia, of three to five sentences, with a title on the first line. It states "
        "all of these facts, in any order, and beside them only what the reader needs to understand them.\n\n"
        f"Topic: {question}\nFacts:\n{listed}"
    )
