"""`import athlos.hf` lets transformers' Auto classes load what Athlos has saved.

    import athlos.hf
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained("my-model")  # a folder of `athlos export`

Two model types become known: `athlos`, a language model that a surgery changed, and `athlos_vision`, a picture encoder
made of convolutions. Without this import transformers refuses folders that name one of them (`ValueError`, or
`KeyError` for an encoder inside another model). Folders of unchanged models need no import of Athlos.
"""

from athlos.models.surgical import AthlosConfig
from athlos.models.vision_encoders import AthlosVisionConfig, AthlosVisionModel

__all__ = ["AthlosConfig", "AthlosVisionConfig", "AthlosVisionModel"]
