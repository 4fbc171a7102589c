"""The forward pass in two halves, hidden states and logits, so that losses need not hold all logits at once.

B batch, T positions, N chosen positions, D width, V vocabulary.
"""

from collections.abc import Mapping

from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from athlos.models.vision_language import decoder_inputs, has_pictures


def causal_model(model: nn.Module) -> PreTrainedModel:
    """The transformers model inside a PEFT wrapper, or the model itself."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    assert isinstance(inner, PreTrainedModel)
    return inner


def hidden_states(model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
    """Last hidden states after the final norm, [B, T, D]. No cache is kept. A batch may carry a picture a row."""
    inner = causal_model(model)
    words = (
        {"inputs_embeds": decoder_inputs(inner, batch)} if has_pictures(batch) else {"input_ids": batch["input_ids"]}
    )
    output = inner.base_model(
        **words, attention_mask=batch["attention_mask"], position_ids=batch["position_ids"], use_cache=False
    )
    hidden_BTD: Tensor = output.last_hidden_state
    return hidden_BTD


def project(model: nn.Module, hidden_ND: Tensor) -> Tensor:
    """Logits [N, V] in float32, with the model's soft cap where its config names one (Gemma 2)."""
    inner = causal_model(model)
    logits_NV: Tensor = inner.get_output_embeddings()(hidden_ND).float()
    cap = inner.config.get_text_config().to_dict().get("final_logit_softcapping")
    return logits_NV if cap is None else cap * (logits_NV / cap).tanh()
