"""A cross-encoder as judge: the probability of its label for entailment.

Weights come as safetensors only, and no code of a model's author runs. Scores are kept on disk, one file a window and
hypothesis, found by the content of the model and of both texts: a killed job scores nothing twice.
"""

import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from athlos.errors import ModelError
from athlos.generation.reply_cache import ReplyCache
from athlos.judging.config import NliJudgeConfig
from athlos.judging.interface import Pair, judge_id
from athlos.judging.windows import best_of_windows
from athlos.models import wheels
from athlos.models.quiet import quiet_transformers
from athlos.models.source import Source, model_folder
from athlos.stages import Stage, StageStore, content_hash, file_hash

log = logging.getLogger(__name__)

ENTAILMENT = "entail"
"""What the name of the label begins with, in any case: `entailment`, `ENTAILED`; `not_entailment` does not."""
ACCEPTED = "dir:<folder>, hub:<repo>@<revision> or wheel:<distribution>==<version>#<sha256 of the wheel>"


class NliJudge:
    """Loads its model with the first pair that is not kept. Pairs are read in batches of like length."""

    def __init__(self, config: NliJudgeConfig, *, stages: StageStore) -> None:
        self.config, self.stages = config, stages
        self.source = parse_source(config.source)
        self.counters = {"pairs": 0, "cache_hits": 0, "full_length": 0}
        self.cache: ReplyCache | None = None
        if config.cache is not None:
            self.cache = ReplyCache(stages.root / Path(config.cache).expanduser(), setting="judge.cache")

    @cached_property
    def identity(self) -> Mapping[str, str]:
        """The content of a folder, the pinned wheel, or a name on the hub; what is read of a pair; the window."""
        return {
            "judge": "nli",
            "model": self._content(),
            "length": f"{self.config.max_length} tokens",
            "window": f"{self.config.window_words} words",
        }

    @cached_property
    def id(self) -> str:
        return judge_id(self.identity)

    def scores(self, pairs: Sequence[Pair]) -> list[float]:
        self.counters["pairs"] += len(pairs)
        return best_of_windows(pairs, num_words=self.config.window_words, score=self._kept_or_new)

    def _kept_or_new(self, pairs: list[Pair]) -> list[float]:
        score_of = {} if self.cache is None else self._kept(pairs, cache=self.cache)
        new = sorted((pair for pair in pairs if pair not in score_of), key=lambda pair: sum(map(len, pair)))
        for start in range(0, len(new), self.config.batch_size):
            batch = new[start : start + self.config.batch_size]
            for pair, score in zip(batch, self._probs(batch), strict=True):
                score_of[pair] = score
                if self.cache is not None:
                    self.cache.put(self._request(pair), {"score": score})
        return [score_of[pair] for pair in pairs]

    def _kept(self, pairs: Sequence[Pair], *, cache: ReplyCache) -> dict[Pair, float]:
        kept = {pair: cache.get(self._request(pair)) for pair in pairs}
        scores = {pair: float(reply["score"]) for pair, reply in kept.items() if reply is not None}
        self.counters["cache_hits"] += len(scores)
        return scores

    def _request(self, pair: Pair) -> dict[str, str]:
        return {"judge": self.id, **pair._asdict()}

    def _probs(self, pairs: Sequence[Pair]) -> list[float]:
        """The probability of entailment of each pair. Those that fill the length are counted: they may be cut."""
        model, tokenizer, label, length = self._loaded
        encoded = tokenizer(
            [pair.premise for pair in pairs],
            [pair.hypothesis for pair in pairs],
            truncation="longest_first",
            max_length=length,
            padding=True,
            return_tensors="pt",
        )
        self.counters["full_length"] += int((encoded["attention_mask"].sum(dim=1) >= length).sum())
        with torch.inference_mode():
            logits = model(**encoded).logits.float()
        probs: list[float] = logits.softmax(dim=-1)[:, label].tolist()
        return probs

    @cached_property
    def _loaded(self) -> tuple[Any, Any, int, int]:
        """(model, tokenizer, index of the label for entailment, most tokens of a pair)."""
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        place = str(self._folder()) if self.source.kind != "hub" else self.source.reference
        options: dict[str, Any] = {"trust_remote_code": False, "local_files_only": self.source.kind != "hub"}
        if self.source.kind == "hub":
            options["revision"] = self.source.revision
        with quiet_transformers():
            try:
                model, told = AutoModelForSequenceClassification.from_pretrained(
                    place, use_safetensors=True, output_loading_info=True, **options
                )
                tokenizer = AutoTokenizer.from_pretrained(place, **options)
            except Exception as error:  # the loaders of many model classes raise many kinds
                raise ModelError(f"judge.source: cannot load {self.config.source} ({error})") from error
        if missing := sorted(told["missing_keys"]):
            raise ModelError(f"judge.source: {place} is no classifier: {', '.join(missing[:3])} would be random")
        label = entailment_label(model.config.id2label, num_labels=model.config.num_labels, place=place)
        most = min(self.config.max_length, tokenizer.model_max_length)
        positions = vars(model.config).get("max_position_embeddings")
        return model.eval(), tokenizer, label, min(most, positions) if positions else most

    def _content(self) -> str:
        if self.source.kind == "hub":
            return f"hub:{self.source.reference}@{self.source.revision}"
        if self.source.kind == "wheel":
            return f"wheel:{self.source.revision}"
        folder = self._folder()
        files = sorted(path for path in folder.iterdir() if path.is_file())
        return content_hash([[path.name, file_hash(path)] for path in files])

    def _folder(self) -> Path:
        if self.source.kind == "dir":
            return model_folder(self.source)
        name, _, version = self.source.reference.partition("==")
        stage = Stage(
            name="classifier",
            version=1,
            inputs={"wheel": self.source.revision},
            build=lambda folder: wheels.unpack(
                name, version=version, sha256=self.source.revision, folder=folder, key="judge.source"
            ),
        )
        return model_folder(Source(kind="dir", reference=str(self.stages.get(stage).path)))


def parse_source(text: str) -> Source:
    """`judge.source`; the `revision` of a wheel is its hash. Raises `ModelError` for what is none of the `ACCEPTED`."""
    kind, _, rest = text.partition(":")
    reference, mark, revision = rest.partition("#" if kind == "wheel" else "@") if kind != "dir" else (rest, "", "")
    is_whole = bool(reference) and bool(mark) == bool(revision)
    if kind == "wheel":
        is_whole = is_whole and len(revision) == 64 and all(reference.partition("=="))
    if kind not in ("dir", "hub", "wheel") or not is_whole:
        raise ModelError(f"judge.source: got '{text}', expected {ACCEPTED}")
    return Source(kind=kind, reference=reference, revision=revision or ("main" if kind == "hub" else ""))


def entailment_label(names: Mapping[int, str], *, num_labels: int, place: str) -> int:
    """The index of the only label that says entailment. Raises `ModelError` where the config does not tell which."""
    entailments = [index for index, name in names.items() if name.casefold().startswith(ENTAILMENT)]
    if len(entailments) != 1 or num_labels < 2 or sorted(names) != list(range(num_labels)):
        labels = ", ".join(f"{index} {name}" for index, name in sorted(names.items()))
        raise ModelError(
            f"judge.source: {place} has the labels {labels}; expected two or more, of which one is called entailment "
            "(id2label of its config.json)"
        )
    return entailments[0]
