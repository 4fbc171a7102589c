"""`import athlos.hf` lets transformers' Auto classes load what Athlos has saved.

    import athlos.hf
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained("my-model")  # a folder of `athlos export`

Two model types become known: `athlos`, a language model that a surgery changed, and `athlos_vision`, a picture encoder
made of convolutions. Without this import transformers refuses a folder that names one of them with a `ValueError`.
Folders of unchanged models need no import of Athlos.
"""

from athlos.models.surgical import AthlosConfig
from athlos.models.vision_encoders import AthlosVisionConfig, AthlosVisionModel

__all__ = ["AthlosConfig", "AthlosVisionConfig", "AthlosVisionModel"]
