"""Detectors of languages on the sentences of NTREX and on pieces of 1 to 5 words, for the language sets of `conf/data`.

    python benchmarks/language_id.py --data <folder of NTREX> [--detectors py3langid lingua] [--step N]

A detector chooses among the languages of the run and `text.language.CANDIDATES`, or, as `<name> alone`, among those of
the run, English and Chinese. Shares are means over languages: of sentences and pieces that are named rightly, and of
sentences in the other languages of NTREX that are taken for one of the run's. A word of a language that is written
without spaces is two characters. Sentences a second are of processor time. Ends in one JSON line.
"""

import argparse
import json
import random
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from langcodes import Language

from athlos.config.compose import compose_dict
from athlos.text.language import CANDIDATES, Detector, LinguaDetector, Py3LangidDetector
from athlos.text.normalisation import UNSPACED_LANGUAGES

CODES = [
    "ar",
    "bn",
    "cs",
    "de",
    "en",
    "es",
    "fi",
    "fr",
    "hi",
    "id",
    "it",
    "ja",
    "ko",
    "nl",
    "pl",
    "pt",
    "ru",
    "sw",
    "te",
    "th",
    "tr",
    "vi",
    "zh",
]
NTREX = {code: f"ref.{Language.get(code).to_alpha3()}" for code in CODES}
NTREX |= {"ar": "ref.arb", "en": "src.eng", "zh": "ref.zho-CN"}
DETECTORS = {"py3langid": Py3LangidDetector, "lingua": LinguaDetector}
DRIFT_LANGUAGES = ("en", "zh")
SETS = ("templated_sums", "mgsm", "mmath")
NUM_WORDS = (1, 2, 3, 4, 5)


def piece(sentence: str, *, language: str, num_words: int, rng: random.Random) -> str:
    """Words that stand together, from a random place."""
    is_spaced = language not in UNSPACED_LANGUAGES
    words = sentence.split() if is_spaced else [sentence[at : at + 2] for at in range(0, len(sentence), 2)]
    start = rng.randrange(max(1, len(words) - num_words + 1))
    return (" " if is_spaced else "").join(words[start : start + num_words])


def share(judge: Detector, texts: Mapping[str, Sequence[str]], accepted: Mapping[str, Sequence[str]]) -> float:
    """Mean over the languages of `accepted` of the share of their texts that are named as one of those accepted."""
    shares = [
        sum(judge.detect(text) in names for text in texts[language]) / len(texts[language])
        for language, names in accepted.items()
    ]
    return sum(shares) / max(1, len(shares))


def measured(
    judge: Detector, languages: Sequence[str], pieces: Mapping[int, Mapping[str, list[str]]]
) -> dict[str, float]:
    """`pieces` by number of words; those of 0 words are whole sentences."""
    own = {language: (language,) for language in languages}
    others = {language: languages for language in NTREX if language not in languages}
    judge.detect("loads models that are read at the first use")
    start = time.process_time()
    found = {"sentences": share(judge, pieces[0], own)}
    rate = sum(len(pieces[0][language]) for language in languages) / (time.process_time() - start)
    found |= {f"words_{number}": share(judge, pieces[number], own) for number in NUM_WORDS}
    return {**found, "others_taken": share(judge, pieces[0], others), "sentences_per_s": rate}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--detectors", nargs="+", choices=sorted(DETECTORS), default=sorted(DETECTORS))
    parser.add_argument("--step", type=int, default=5)
    options = parser.parse_args()
    rng = random.Random(0)
    sentences = {
        language: (options.data / f"newstest2019-{part}.txt").read_text(encoding="utf-8").splitlines()[:: options.step]
        for language, part in NTREX.items()
    }
    pieces = {
        number: {
            language: [piece(text, language=language, num_words=number, rng=rng) for text in texts]
            for language, texts in sentences.items()
        }
        for number in NUM_WORDS
    }
    rows = []
    for name in SETS:
        languages = compose_dict([f"data={name}"]).data.languages
        for detector in options.detectors:
            for suffix, candidates in (("", CANDIDATES), (" alone", DRIFT_LANGUAGES)):
                judge = DETECTORS[detector](languages, candidates=candidates)
                row = measured(judge, languages, {0: sentences, **pieces})
                rows.append({"languages": name, "detector": f"{detector}{suffix}", **row})
                print(name, f"{detector}{suffix}", *(f"{key} {value:.4f}" for key, value in row.items()), flush=True)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
