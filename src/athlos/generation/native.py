"""The engine `native`: the decode loop of this process (`loop.py`) behind the interface of engines."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch

from athlos.errors import ModelError
from athlos.generation.config import NativeConfig, NumberFormat
from athlos.generation.contrast import check_contrast
from athlos.generation.cpu.fused_attention import fused
from athlos.generation.cpu.linear import fast_linear
from athlos.generation.half_weights import HalfWeights, is_half
from athlos.generation.interface import Contrast, Progress, Prompt, Sample, SamplingRule, Silence
from athlos.generation.kept_prompts import KeptPrompts
from athlos.generation.kv_cache import layer_windows
from athlos.generation.local import LocalEngine, check_prompts, eval_mode
from athlos.generation.loop import DecodeLoop, check_model
from athlos.generation.rules import LogitsRule, check_rule
from athlos.generation.step import DecoderStep
from athlos.models.head_mask import HeadMask, sharing_heads
from athlos.models.sites import backbone

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def misfit(model: "PreTrainedModel") -> str | None:
    """Why this engine cannot run a model; None where it can: it must find the decoder, and attention in all layers."""
    try:
        layer_windows(backbone(model).config)
    except ModelError as error:
        return str(error)
    return None


class NativeEngine(LocalEngine):
    """Generates with the model in this process."""

    name = "native"

    def __init__(self, config: NativeConfig, *, model: "PreTrainedModel", tokenizer: "PreTrainedTokenizerBase") -> None:
        super().__init__(config, model=model, tokenizer=tokenizer)
        self.settings, self.half_weights = config, HalfWeights()
        self.kept: KeptPrompts | None = None

    @contextmanager
    def keeping_prompts(self) -> Iterator[None]:
        """Keeps the prompts of plain calls, where `share_prefixes` allows it, until the outermost of these is left."""
        if self.kept is not None or not self.settings.share_prefixes:
            yield
            return
        self.kept = KeptPrompts()
        try:
            yield
        finally:
            self.kept = None

    @property
    def number_format(self) -> str:
        """What `engine.dtype` comes to on the model's device: float32 stands for the format of the model's own."""
        return str(
            NumberFormat.bfloat16 if is_half(self.settings.dtype, self.causal_model.device) else NumberFormat.float32
        )

    @torch.inference_mode()
    def generate(
        self,
        prompts: Sequence[Prompt],
        *,
        rule: SamplingRule,
        num_samples: int = 1,
        stop: Sequence[str] = (),
        progress: Progress | None = None,
        end_token_ids: Sequence[int] | None = None,
        extra_rules: Sequence[LogitsRule] = (),
        contrast: Contrast | None = None,
        silence: Silence | None = None,
    ) -> list[list[Sample]]:
        """See `LocalEngine.generate`; `contrast` decodes two streams or two depths of the model against each other.

        `silence` takes heads away from all streams; it goes with no contrast by heads.
        """
        check_rule(rule)
        check_prompts(prompts, num_samples=num_samples)
        model = self.causal_model
        in_half = is_half(self.settings.dtype, model.device)
        check_model(model, prompts)
        num_distinct = num_samples if rule.temperature > 0 else 1
        silent, is_always_silent = None, False
        if silence is not None and silence.heads:
            assert contrast is None or not contrast.heads
            sites = backbone(model)
            heads = sharing_heads(sites, silence.heads, follow=silence.follows_sharing)
            silent, is_always_silent = HeadMask(sites, heads, is_uniform=silence.is_uniform), silence.in_prompt
        if contrast is not None:
            check_contrast(contrast)
            if contrast.heads:
                sites = backbone(model)
                silent = HeadMask(sites, contrast.heads, is_uniform=contrast.is_uniform, every_second=True)
        with ExitStack() as stack:
            stack.enter_context(eval_mode(model))
            if in_half:
                stack.enter_context(self.half_weights.applied(backbone(model)))
            elif self.settings.onednn:
                stack.enter_context(fast_linear(model))
            if silent is not None:
                stack.enter_context(silent.applied())
            stack.enter_context(fused(is_wanted=self.settings.fused))
            early = contrast.layers if contrast else ()
            loop = DecodeLoop(
                step=DecoderStep(
                    model,
                    written_out=self.settings.written_out,
                    early=early,
                    cache_dtype=torch.bfloat16 if in_half else None,
                ),
                tokenizer=self.tokenizer,
                prompts=prompts,
                num_samples=num_distinct,
                batch_size=self.settings.batch_size,
                rule=rule,
                extra_rules=extra_rules,
                ends=self.ends(end_token_ids),
                stop=stop,
                share_prefixes=self.settings.share_prefixes,
                kept=self.kept if contrast is None and silent is None else None,
                contrast=contrast,
                silent=None if is_always_silent else silent,
                progress=progress,
            )
            samples = loop.run()
        return [of_prompt * (num_samples // num_distinct) for of_prompt in samples]
