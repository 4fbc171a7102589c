"""The prompts of DaPT, written afresh in each language: a prompt in English makes a model answer in English.

`demonstrations` of the decomposer are of no data set, so no gold decomposition of a test question stands in a prompt.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from athlos.errors import ConfigError, choices
from athlos.retrieval.interface import Passage
from athlos.text.language import base_language

ENGLISH = "en"
MAX_PASSAGE_CHARACTERS = 1200
"""Of one passage in a prompt."""


@dataclass(frozen=True, kw_only=True)
class Wording:
    """What is said in one language; `{...}` stands for a value."""

    name: str
    """Of the language, in English: prompts of the translator are written in English."""
    decompose: str
    read: str
    compose: str
    question: str
    passages: str
    unknown: str
    demonstrations: tuple[tuple[str, tuple[str, ...]], ...]
    """A bridge, a comparison and a chain of three: question, and the sub-questions."""


WORDINGS = {
    "en": Wording(
        name="English",
        decompose=(
            "Split the question into the fewest sub-questions that each ask for a single fact and can be looked up "
            "by themselves. Write #1 for the answer to sub-question 1, #2 for the answer to sub-question 2. Do not "
            "answer anything. A question that compares ends with a sub-question that compares. At most {max_nodes} "
            'sub-questions. Reply with a JSON list of objects with "id", "question" and "depends_on".'
        ),
        read=(
            'Answer the question from the passages alone, in as few words as possible, or with "unknown" if they do '
            'not say. Reply with JSON alone: {"answer": "..."}'
        ),
        compose="Give the final answer to the question from these solved steps, in as few words as possible.",
        question="Question",
        passages="Passages",
        unknown="unknown",
        demonstrations=(
            (
                "In which town was the author of The Glass Harbour born?",
                ("Who is the author of The Glass Harbour?", "In which town was #1 born?"),
            ),
            (
                "Which river is longer, the Arven or the Lisk?",
                (
                    "How long is the Arven?",
                    "How long is the Lisk?",
                    "Which is longer, the Arven (#1) or the Lisk (#2)?",
                ),
            ),
            (
                "What is the currency of the country in which the founder of Norvel Motors was born?",
                (
                    "Who founded Norvel Motors?",
                    "In which country was #1 born?",
                    "What is the currency of #2?",
                ),
            ),
        ),
    ),
    "de": Wording(
        name="German",
        decompose=(
            "Zerlege die Frage in möglichst wenige Teilfragen, die jeweils nach einer einzigen Tatsache fragen und für "
            "sich nachgeschlagen werden können. Schreibe #1 für die Antwort auf Teilfrage 1, #2 für die auf Teilfrage "
            "2. Beantworte nichts. Eine Frage, die vergleicht, endet mit einer Teilfrage, die vergleicht. Höchstens "
            '{max_nodes} Teilfragen. Antworte mit einer JSON-Liste von Objekten mit "id", "question" und "depends_on".'
        ),
        read=(
            "Beantworte die Frage allein aus den Textstellen, auch solchen in einer anderen Sprache, mit so wenigen "
            'Wörtern wie möglich, oder mit "unbekannt", wenn sie nichts dazu sagen. Antworte nur mit JSON: '
            '{"answer": "... auf Deutsch", "english": "... auf Englisch"}'
        ),
        compose="Gib aus diesen gelösten Schritten die endgültige Antwort auf die Frage, so kurz wie möglich.",
        question="Frage",
        passages="Textstellen",
        unknown="unbekannt",
        demonstrations=(
            (
                "In welcher Stadt wurde der Autor von Der gläserne Hafen geboren?",
                ("Wer ist der Autor von Der gläserne Hafen?", "In welcher Stadt wurde #1 geboren?"),
            ),
            (
                "Welcher Fluss ist länger, die Arven oder die Lisk?",
                (
                    "Wie lang ist die Arven?",
                    "Wie lang ist die Lisk?",
                    "Was ist länger, die Arven (#1) oder die Lisk (#2)?",
                ),
            ),
            (
                "Welche Währung hat das Land, in dem der Gründer von Norvel Motors geboren wurde?",
                (
                    "Wer hat Norvel Motors gegründet?",
                    "In welchem Land wurde #1 geboren?",
                    "Welche Währung hat #2?",
                ),
            ),
        ),
    ),
    "es": Wording(
        name="Spanish",
        decompose=(
            "Divide la pregunta en el menor número posible de subpreguntas que pidan un solo dato cada una y que se "
            "puedan buscar por separado. Escribe #1 por la respuesta a la subpregunta 1, #2 por la respuesta a la 2. "
            "No respondas nada. Una pregunta que compara termina con una subpregunta que compara. Como máximo "
            '{max_nodes} subpreguntas. Responde con una lista JSON de objetos con "id", "question" y "depends_on".'
        ),
        read=(
            "Responde a la pregunta solo con los pasajes, aunque estén en otro idioma, con las menos palabras "
            'posibles, o con "desconocido" si no lo dicen. Responde solo con JSON: '
            '{"answer": "... en español", "english": "... en inglés"}'
        ),
        compose="Da la respuesta final a la pregunta a partir de estos pasos resueltos, lo más breve posible.",
        question="Pregunta",
        passages="Pasajes",
        unknown="desconocido",
        demonstrations=(
            (
                "¿En qué ciudad nació el autor de El puerto de cristal?",
                ("¿Quién es el autor de El puerto de cristal?", "¿En qué ciudad nació #1?"),
            ),
            (
                "¿Qué río es más largo, el Arven o el Lisk?",
                (
                    "¿Cuánto mide el Arven?",
                    "¿Cuánto mide el Lisk?",
                    "¿Cuál es más largo, el Arven (#1) o el Lisk (#2)?",
                ),
            ),
            (
                "¿Cuál es la moneda del país donde nació el fundador de Norvel Motors?",
                ("¿Quién fundó Norvel Motors?", "¿En qué país nació #1?", "¿Cuál es la moneda de #2?"),
            ),
        ),
    ),
    "fr": Wording(
        name="French",
        decompose=(
            "Découpe la question en le moins de sous-questions possible, dont chacune demande un seul fait et peut "
            "être cherchée seule. Écris #1 pour la réponse à la sous-question 1, #2 pour la réponse à la 2. Ne réponds "
            "à rien. Une question qui compare finit par une sous-question qui compare. Au plus {max_nodes} "
            'sous-questions. Réponds par une liste JSON d\'objets avec "id", "question" et "depends_on".'
        ),
        read=(
            "Réponds à la question d'après les passages seuls, même dans une autre langue, avec le moins de mots "
            'possible, ou par "inconnu" s\'ils ne le disent pas. Réponds en JSON seulement : '
            '{"answer": "... en français", "english": "... en anglais"}'
        ),
        compose="Donne la réponse finale à la question d'après ces étapes résolues, la plus courte possible.",
        question="Question",
        passages="Passages",
        unknown="inconnu",
        demonstrations=(
            (
                "Dans quelle ville est né l'auteur du Port de verre ?",
                ("Qui est l'auteur du Port de verre ?", "Dans quelle ville est né #1 ?"),
            ),
            (
                "Quel fleuve est le plus long, l'Arven ou la Lisk ?",
                (
                    "Quelle est la longueur de l'Arven ?",
                    "Quelle est la longueur de la Lisk ?",
                    "Lequel est le plus long, l'Arven (#1) ou la Lisk (#2) ?",
                ),
            ),
            (
                "Quelle est la monnaie du pays où est né le fondateur de Norvel Motors ?",
                ("Qui a fondé Norvel Motors ?", "Dans quel pays est né #1 ?", "Quelle est la monnaie de #2 ?"),
            ),
        ),
    ),
    "ja": Wording(
        name="Japanese",
        decompose=(
            "質問を、それぞれ一つの事実だけを尋ね、単独で調べられる、できるだけ少ない小問に分けてください。"
            "小問1の答えは#1、小問2の答えは#2と書いてください。何も答えないでください。比較する質問は、比較する小問で"
            "終わります。小問は最大{max_nodes}個です。"
            '"id"、"question"、"depends_on"を持つオブジェクトのJSONリストで返してください。'
        ),
        read=(
            "別の言語のものも含む文章だけを根拠に、できるだけ短く質問に答えてください。書かれていなければ「不明」と"
            '答えてください。JSONだけで返してください: {"answer": "日本語で...", "english": "英語で..."}'
        ),
        compose="解決済みの手順から、質問への最終的な答えをできるだけ短く述べてください。",
        question="質問",
        passages="文章",
        unknown="不明",
        demonstrations=(
            (
                "『ガラスの港』の著者はどの町で生まれましたか。",
                ("『ガラスの港』の著者は誰ですか。", "#1はどの町で生まれましたか。"),
            ),
            (
                "アルヴェン川とリスク川ではどちらが長いですか。",
                (
                    "アルヴェン川の長さはどれくらいですか。",
                    "リスク川の長さはどれくらいですか。",
                    "アルヴェン川(#1)とリスク川(#2)ではどちらが長いですか。",
                ),
            ),
            (
                "ノーヴェル・モーターズの創業者が生まれた国の通貨は何ですか。",
                (
                    "ノーヴェル・モーターズの創業者は誰ですか。",
                    "#1はどの国で生まれましたか。",
                    "#2の通貨は何ですか。",
                ),
            ),
        ),
    ),
    "zh": Wording(
        name="Chinese",
        decompose=(
            "把问题拆成尽可能少的子问题,每个子问题只问一个事实,并且可以单独查找。用#1表示子问题1的答案,"
            "用#2表示子问题2的答案。不要回答任何问题。比较类的问题以一个进行比较的子问题结束。最多{max_nodes}个子问题。"
            '请用JSON列表回答,列表中的对象含有"id"、"question"和"depends_on"。'
        ),
        read=(
            "只根据文段(也可能是另一种语言的)用尽可能少的字回答问题;如果文段没有说明,回答“未知”。"
            '只用JSON回答:{"answer": "...中文", "english": "...英文"}'
        ),
        compose="根据这些已解决的步骤,用尽可能少的字给出问题的最终答案。",
        question="问题",
        passages="文段",
        unknown="未知",
        demonstrations=(
            (
                "《玻璃港》的作者出生在哪个城镇?",
                ("《玻璃港》的作者是谁?", "#1出生在哪个城镇?"),
            ),
            (
                "阿尔文河和利斯克河哪条更长?",
                ("阿尔文河有多长?", "利斯克河有多长?", "阿尔文河(#1)和利斯克河(#2)哪条更长?"),
            ),
            (
                "诺维尔汽车公司创始人出生的国家使用什么货币?",
                ("谁创立了诺维尔汽车公司?", "#1出生在哪个国家?", "#2使用什么货币?"),
            ),
        ),
    ),
}
UNKNOWN = frozenset(wording.unknown for wording in WORDINGS.values())
"""What a reader says in place of an answer."""


def wording(language: str) -> Wording:
    """`ConfigError` for a language without prompts: those of another one would not be fair to it."""
    base = base_language(language)
    if base not in WORDINGS:
        raise ConfigError(f"dapt: no prompts in '{language}'{choices(base, list(WORDINGS))}")
    return WORDINGS[base]


def translate(text: str, *, source: str, target: str) -> str:
    return (
        f"Translate this question from {wording(source).name} into {wording(target).name}. Keep all names and marks "
        f"such as #1 as they are. Reply with the translated question only.\n\n{text}"
    )


def decompose(text: str, *, language: str, num_demonstrations: int, max_nodes: int) -> str:
    said = wording(language)
    parts = [said.decompose.format(max_nodes=max_nodes)]
    for question, nodes in said.demonstrations[:num_demonstrations]:
        rows = [
            {"id": number, "question": node, "depends_on": [int(j) for j in range(1, number) if f"#{j}" in node]}
            for number, node in enumerate(nodes, start=1)
        ]
        parts.append(f"{said.question}: {question}\n{json.dumps(rows, ensure_ascii=False)}")
    return "\n\n".join([*parts, f"{said.question}: {text}"])


def merge(text: str, english: str, source_nodes: Sequence[str], english_nodes: Sequence[str], *, language: str) -> str:
    """Both graphs as numbered lists, for one JSON graph with both wordings."""
    name = wording(language).name

    def numbered(nodes: Sequence[str]) -> str:
        return "\n".join(f"{number}. {node}" for number, node in enumerate(nodes, start=1))

    return (
        f"A question in {name} was split into sub-questions in {name} and in English. #1 stands for the answer to "
        "sub-question 1 of the same list. Make one list that is complete and has no sub-question twice; mend what "
        "depends on what. The last sub-question gives the answer. Reply with a JSON list of objects with "
        f'"id", "question" (in {name}), "english" and "depends_on".\n\n'
        f"{name}: {text}\n{numbered(source_nodes)}\n\nEnglish: {english}\n{numbered(english_nodes)}"
    )


def read(wordings: Sequence[str], passages: Sequence[Passage], *, language: str) -> str:
    """The passages, then the question in each of its wordings; last what is wanted, which a small model forgets."""
    said = wording(language)
    asked = "\n".join(f"{said.question}: {text}" for text in wordings)
    return f"{said.passages}:\n{_listed(passages)}\n\n{asked}\n\n{said.read}"


def compose(text: str, chain: Sequence[tuple[str, str]], passages: Sequence[Passage], *, language: str) -> str:
    said = wording(language)
    steps = "\n".join(f"{number}. {node} -> {answer}" for number, (node, answer) in enumerate(chain, start=1))
    return f"{said.passages}:\n{_listed(passages)}\n\n{steps}\n\n{said.question}: {text}\n\n{said.compose}"


def answer_schema(language: str) -> str:
    """What a reply of the reader is held to: an answer in the language, and in English where that is another one."""
    names = ["answer"] if base_language(language) == ENGLISH else ["answer", "english"]
    properties = {name: {"type": "string"} for name in names}
    return json.dumps({"type": "object", "properties": properties, "required": names, "additionalProperties": False})


def _listed(passages: Sequence[Passage]) -> str:
    return "\n".join(
        f"[{number}] {passage.title}: {passage.text[:MAX_PASSAGE_CHARACTERS]}"
        for number, passage in enumerate(passages, start=1)
    )
