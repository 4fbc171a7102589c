"""Schemas of PLAST: the selection of language-specific shallow layers, the pairs it is tuned on, and the recipe."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from athlos.config.fields import at_least, bounded, sized
from athlos.config.registry import Part, registry
from athlos.config.schema import MISSING, ConstructConfig, MethodConfig
from athlos.data.picture_questions import PictureQuestionsConfig
from athlos.errors import choices
from athlos.models.config import PROBING, ProbeConfig, ProbedConfig, Selector, probed_errors

if TYPE_CHECKING:
    from athlos.config.schema import RunConfig

SURGERIES = ("none", "spannorm")
"""Surgeries that leave every layer its own matrices, so that layers x parts sites are there."""


class ProbeTokens(StrEnum):
    """Tokens that count: words of the question and its options, those of the picture, or all but padding."""

    text = "text"
    image = "image"
    all = "all"


class Kind(StrEnum):
    """What a pair asks for: the question in the reference language, the answer in it, or an answer to the question."""

    question_translation = "question_translation"
    answer_translation = "answer_translation"
    multilingual_vqa = "multilingual_vqa"


@dataclass(kw_only=True)
class PrefixConfig:
    """Which layers stand out: the prefix with scores above mean + std_factor * std, in the lowest layers."""

    std_factor: float = at_least(0)
    region: float = bounded("(0, 1]")
    """Share of the layers that may be chosen, from below."""
    fallback_share: float = bounded("(0, 1]")
    """Share of the layers taken from below where none stands out."""


@dataclass(kw_only=True)
class QuestionProbeConfig(ProbeConfig):
    items: int = sized(at_least(2))
    """Questions a language, the same in all."""


@dataclass(kw_only=True)
class PlastSelectionConfig(ProbedConfig):
    tokens: ProbeTokens = MISSING
    select: PrefixConfig = field(default_factory=PrefixConfig)
    probe: QuestionProbeConfig = field(default_factory=QuestionProbeConfig)


@dataclass(kw_only=True)
class PlastConstructConfig(ConstructConfig):
    kind: Kind = MISSING
    pairs_per_language: int = sized(at_least(1))
    """Pictures a language; all there are, where there are fewer."""
    languages: list[str] = field(default_factory=list)
    """Languages to translate from; empty = all of the data but the reference."""
    with_image: bool = MISSING
    """Whether the picture stands in the prompt."""
    reverse: bool = MISSING
    """Also translate from the reference into each language."""
    reverse_instruction: str = MISSING
    """What asks for that; `{language}` is its English name."""
    replay_ratio: float = bounded("[0, 1)")
    """Share of the rows that are questions and answers in the reference language."""


@dataclass(kw_only=True)
class PlastMethodConfig(MethodConfig):
    """Next-token training on the pairs, with diagnoses before and after."""

    attention_items: int = sized(at_least(0))
    """Questions a language whose attention to the picture is measured, by layer, before and after; 0 = none."""
    mask_items: int = sized(at_least(0))
    """Questions a language that are answered without the neurons specific to each language; 0 = none."""
    diagnosis_split: str = MISSING
    """Split of the run's data that both come from; never the test split."""


def _selection_errors(config: "RunConfig") -> Iterable[str]:
    node = config.selection
    assert isinstance(node, PlastSelectionConfig)
    yield from probed_errors(config)
    if node.selector is Selector.grad:
        yield "selection.selector: got grad, which reads texts alone; use selection=slam, or another selector"
    parts = registry().parts.values()
    surgery = next((part.name for part in parts if part.group == "surgery" and part.schema is type(config.surgery)), "")
    if surgery not in SURGERIES:
        yield f"surgery: got {surgery}, expected {' or '.join(SURGERIES)}: selection=plast counts on whole layers"
    if node.selector not in PROBING:
        return
    data = config.data
    if not isinstance(data, PictureQuestionsConfig):
        if not config.dry_run:
            yield f"data: got {data.name}; selection.selector={node.selector} needs questions in several languages"
        return
    yield from _language_errors("selection.probe.languages", node.probe.languages, data)
    if node.probe.languages and data.reference not in node.probe.languages:
        yield f"selection.probe.languages: got {node.probe.languages}, expected {data.reference} (data.reference) too"
    if node.probe.split == data.test_split:
        yield f"selection.probe.split: got '{node.probe.split}', the split that the run is tested on"


def _language_errors(key: str, languages: list[str], data: PictureQuestionsConfig) -> Iterable[str]:
    for language in languages:
        if language not in data.languages:
            yield f"{key}: got '{language}'{choices(language, data.languages)}"


def _construct_errors(config: "RunConfig") -> Iterable[str]:
    node, data = config.construct, config.data
    assert isinstance(node, PlastConstructConfig)
    if not isinstance(data, PictureQuestionsConfig):
        yield f"data: got {data.name}, but construct=plast needs questions about pictures in several languages"
        return
    yield from _language_errors("construct.languages", node.languages, data)
    if data.reference in node.languages:
        yield f"construct.languages: got '{data.reference}', the language that is translated into"
    if node.replay_ratio and not node.with_image:
        yield f"construct.replay_ratio: got {node.replay_ratio} with with_image=false; replayed questions show pictures"
    if node.reverse and "{language}" not in node.reverse_instruction:
        yield f"construct.reverse_instruction: got '{node.reverse_instruction}', expected {{language}} in it"


def _method_errors(config: "RunConfig") -> Iterable[str]:
    node = config.method
    assert isinstance(node, PlastMethodConfig)
    if not isinstance(config.data, PictureQuestionsConfig) and (node.attention_items or node.mask_items):
        yield f"method.attention_items: data={config.data.name} has no questions about pictures; set both items to 0"
    if node.mask_items and not isinstance(config.selection, PlastSelectionConfig):
        yield f"method.mask_items: got {node.mask_items}, but only selection=plast counts the neurons to mask; set 0"
    if (node.attention_items or node.mask_items) and node.diagnosis_split == config.data.test_split:
        yield f"method.diagnosis_split: got '{node.diagnosis_split}', the split that the run is tested on"


PARTS = [
    Part(
        group="selection",
        name="plast",
        schema=PlastSelectionConfig,
        check=_selection_errors,
        target="athlos.methods.plast.selection.PlastSelection",
        summary="the shallow decoder layers with the most language-specific neurons",
    ),
    Part(
        group="construct",
        name="plast",
        schema=PlastConstructConfig,
        check=_construct_errors,
        target="athlos.methods.plast.construct.PlastConstruct",
        summary="pairs of a question about a picture and its translation",
    ),
    Part(
        group="method",
        name="plast",
        schema=PlastMethodConfig,
        check=_method_errors,
        target="athlos.methods.plast.module.PlastModule",
        summary="question translation with the picture in view, tuned in language-specific shallow layers",
    ),
]
