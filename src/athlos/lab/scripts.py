"""The writing systems of the lab languages: real characters, invented words.

A script gives syllables. They are dealt by a seed into three disjoint sets, for particles (one syllable), words (two)
and names (two), so that running text falls into words in one way only, with spaces or without. A name keeps its
syllable numbers in every script: it is transliterated, the way names are.
"""

import random
from dataclasses import dataclass

NUM_PARTICLE_SYLLABLES = 20
NUM_NAME_SYLLABLES = 40


@dataclass(frozen=True, kw_only=True)
class Script:
    """Syllables and punctuation of a writing system."""

    syllables: tuple[str, ...]
    """All of equal number of characters, so that a text of them is cut without doubt."""
    has_spaces: bool
    """Whether words stand apart. Numbers and signs of sums stand apart in every script."""
    has_case: bool
    """Whether names begin with a capital."""
    full_stop: str
    question_mark: str
    comma: str

    @property
    def syllable_size(self) -> int:
        return len(self.syllables[0])


def _open_syllables(consonants: str, vowels: str) -> tuple[str, ...]:
    return tuple(consonant + vowel for consonant in consonants for vowel in vowels)


SCRIPTS = {
    "latn": Script(
        syllables=_open_syllables("bcdfghjklmnpqrstvwyz", "aeiou"),
        has_spaces=True,
        has_case=True,
        full_stop=".",
        question_mark="?",
        comma=",",
    ),
    "cyrl": Script(
        syllables=_open_syllables("бвгджзклмнпрстфхцчшщ", "аеиоу"),
        has_spaces=True,
        has_case=True,
        full_stop=".",
        question_mark="?",
        comma=",",
    ),
    # U+037E, the Greek question mark, looks like a semicolon; NFC turns it into one, so the semicolon it is.
    "grek": Script(
        syllables=_open_syllables("βγδζθκλμνξπρστφχψ", "αειουω"),
        has_spaces=True,
        has_case=True,
        full_stop=".",
        question_mark=";",
        comma=",",
    ),
    # Thai has no full stop; paiyannoi (abbreviation) ends a statement here. Vowel signs follow their consonant.
    "thai": Script(
        syllables=_open_syllables("กขคงจฉชซดตถทนบปผพมยร", "าิีุู"),
        has_spaces=False,
        has_case=False,
        full_stop="ฯ",
        question_mark="?",
        comma=",",
    ),
    "hani": Script(
        syllables=tuple(
            "山水火木金土日月星云雨雪风花草林石海河湖田米鱼鸟马牛羊虎龙龟"
            "天地春夏秋冬东西南北左右前后里外大小高长多少新老红黄蓝白黑青"
            "心手目耳口足头身父母子女兄弟友王士民国家城门车船刀弓书笔纸画"
            "衣食酒茶盐糖果瓜豆麦竹松梅桃李兰菊荷叶根言语文字音乐歌舞诗词"
            "今古年时早晚明光影声色香味力气电雷冰霜露"
        ),
        has_spaces=False,
        has_case=False,
        full_stop="。",
        question_mark="？",
        comma="，",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Syllabary:
    """The syllables of one language, dealt to particles, words and names."""

    particles: tuple[str, ...]
    words: tuple[str, ...]
    names: tuple[str, ...]


def deal(script: Script, *, rng: random.Random) -> Syllabary:
    """Shuffle and deal the syllables of a script; the same generator state gives the same syllabary."""
    syllables = list(script.syllables)
    rng.shuffle(syllables)
    first, second = NUM_PARTICLE_SYLLABLES, NUM_PARTICLE_SYLLABLES + NUM_NAME_SYLLABLES
    return Syllabary(
        particles=tuple(syllables[:first]), names=tuple(syllables[first:second]), words=tuple(syllables[second:])
    )
