"""Options of `conf/`, keys and values that had another name once: who types the old one is told the new one."""

RENAMED: dict[str, dict[str, str]] = {
    "experiment": {
        "eval_gemma3_mgsm": "eval/gemma3_mgsm",
        "eval_gemma3_po_translation": "eval/gemma3_po",
        "finetune_smollm2_wikitext2": "finetune/smollm2",
        "finetune_tiny": "finetune/tiny",
        "lab_base": "lab/base",
        "lab_finetune": "finetune/lab",
        "lab_lisa": "lisa/lab",
        "lab_ndp": "ndp/lab",
        "lab_plast": "plast/lab",
        "lab_plast_base": "plast/lab_base",
        "lab_premises": "lab/premises",
        "lab_slam": "slam/lab",
        "lab_slam_base": "slam/lab_base",
        "lab_spannorm": "spannorm/lab",
        "lab_streams_base": "lisa/lab_base",
        "lang_gemma3": "lang/gemma3",
        "lang_gemma3_cold": "lang/gemma3_cold",
        "lang_lab": "lang/lab",
        "lang_lab_base": "lang/lab_base",
        "lang_paper": "lang/paper",
        "lisa_paper": "lisa/paper",
        "lisa_smollm2_wikitext2": "lisa/smollm2",
        "ndp_lm": "ndp/lm",
        "ndp_paper": "ndp/paper",
        "ndp_similarity": "ndp/similarity",
        "ndp_translation": "ndp/translation",
        "plast_emoji": "plast/emoji",
        "plast_emoji_base": "plast/emoji_base",
        "plast_paper": "plast/paper",
        "slam_gemma3": "slam/gemma3",
        "slam_paper": "slam/paper",
        "spannorm_depth": "spannorm/depth",
        "spannorm_paper": "spannorm/paper",
    },
    "model": {
        "lab_answers_tiny": "lab/ndp",
        "lab_base": "lab/base",
        "lab_depth": "lab/spannorm",
        "lab_plast_base": "lab/plast_base",
        "lab_slam_base": "lab/slam_base",
        "lab_streams_base": "lab/lisa_base",
        "lab_streams_tiny": "lab/lisa",
        "lab_tiny": "lab/tiny",
        "lab_vision_tiny": "lab/plast",
        "lang_lab": "lab/lang",
        "decoder_2m": "small/decoder_2m",
        "depth_12": "small/depth_12",
        "depth_24": "small/depth_24",
        "depth_48": "small/depth_48",
        "depth_96": "small/depth_96",
        "gemma3_270m": "small/gemma3_270m",
        "gemma3_lite0": "small/gemma3_lite0",
        "plast_emoji_base": "small/plast_emoji_base",
        "smollm2_135m": "small/smollm2_135m",
        "tiny_llama": "small/tiny_llama",
        "depth_128": "paper/depth_128",
        "gemma2_2b": "paper/gemma2_2b",
        "gemma_2b": "paper/gemma_2b",
        "llama2_13b": "paper/llama2_13b",
        "llama2_7b": "paper/llama2_7b",
        "llama3_8b": "paper/llama3_8b",
        "llava1_5_7b": "paper/llava1_5_7b",
        "mistral_7b": "paper/mistral_7b",
        "phi3_mini": "paper/phi3_mini",
        "qwen2_5_1_5b": "paper/qwen2_5_1_5b",
        "qwen2_5_3b": "paper/qwen2_5_3b",
        "qwen2_5_7b": "paper/qwen2_5_7b",
        "qwen3_8b": "paper/qwen3_8b",
    },
    "method": {
        "lang_adamame": "lang/adamame",
        "lang_constant": "lang/constant",
        "lang_grpo": "lang/grpo",
        "lang_lc_grpo": "lang/lc_grpo",
        "lang_m_thinker": "lang/m_thinker",
        "lang_questa": "lang/questa",
    },
    "objective": {
        "ndp_clm": "ndp/clm",
        "ndp_div": "ndp/div",
        "ndp_sup_div": "ndp/sup_div",
        "ndp_temp_batch": "ndp/temp_batch",
        "ndp_temp_row": "ndp/temp_row",
    },
    "construct": {
        "ndp_lab_mono": "ndp/lab_mono",
        "ndp_lab_mono_other": "ndp/lab_mono_other",
    },
    "selection": {
        "slam_arms/full": "slam/full",
        "slam_arms/lora_equal": "slam/lora_equal",
        "slam_arms/middle": "slam/middle",
        "slam_arms/random": "slam/random",
        "slam_arms/top": "slam/top",
        "slam_arms/whole_ffn": "slam/whole_ffn",
    },
}
"""Group -> old name -> new name. A new name is an option of its group, an old one is not."""

MOVED: dict[str, str] = {
    "selection=lora": "tuning=lora",
    "selection.rank": "tuning.rank",
    "selection.alpha": "tuning.alpha",
    "selection.dropout": "tuning.dropout",
    "selection.lora.enabled": "tuning=lora",
    "selection.lora": "tuning",
    "selection.arm": "selection=plast/full or tuning=lora_equal",
    "selection.selector=lape": "selection.selector=specific_neurons",
    "eval.prompt": "prompt_style",
    "eval.max_length": "eval.suites.perplexity.max_length or eval.suites.completions.max_length",
    "eval.stride": "eval.suites.perplexity.stride",
    "eval.limit_tokens": "eval.suites.perplexity.limit_tokens",
    "eval.samples": "eval.suites.math.samples",
    "eval.language_groups": "eval.suites.math.language_groups",
    "eval.language_detector": "eval.suites.math.language_detector",
    "eval.circular": "eval.suites.picture_choices.circular",
}
"""Old key, or key and value, -> where it stands now; keys below an old one are now below the new one."""

DETECTORS = {"script": "py3langid"}
"""Value of `language_detector` -> what took its place; the records of two runs name `script`."""


def new_key(key: str) -> str | None:
    """Where a key, or a key and its value, stands now; None for one that never moved."""
    for old, new in MOVED.items():
        if key == old or key.startswith(f"{old}."):
            return new + key.removeprefix(old)
    return None
