"""Citations after the fact, the baseline: each sentence cites the one document that shares most of its words."""

from athlos.data.records import LongAnswerRecord
from athlos.retrieval.analysers import analyser
from athlos.text.citations import read_citations, with_citations


def with_best_match(text: str, record: LongAnswerRecord) -> str:
    """The answer with one citation a sentence in place of its own; of documents that share as many words the first.

    Without documents nothing can be cited, and the sentences stand without citations.
    ALCE's baseline takes the best of a dense retriever among a hundred documents; ours has the prompt's alone.
    """
    words = analyser(record.language)
    documents = [frozenset(words(f"{passage.title} {passage.text}")) for passage in record.passages]
    answer = read_citations(text, num_documents=len(documents), language=record.language)
    cited = []
    for sentence in answer.sentences:
        shared = [len(document.intersection(words(sentence.text))) for document in documents]
        cited.append(with_citations(sentence.text, [shared.index(max(shared)) + 1] if shared else []))
    return " ".join(cited)
