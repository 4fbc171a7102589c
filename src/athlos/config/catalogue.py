"""The twelve published methods and the baselines, as facts; `athlos list methods` joins them with what is registered.

Facts come from the methods' specifications. A venue that is known at second hand only says so.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Method:
    """One method of the house. `title`, `authors` and the rest are empty for a baseline, which has no paper here."""

    slug: str
    name: str
    idea: str
    """What it changes, in one line."""
    title: str = ""
    authors: str = ""
    """First author."""
    venue: str = ""
    year: int | None = None
    """Of the first public version."""
    arxiv: str = ""

    @property
    def reference(self) -> str:
        """Venue and arXiv number in one phrase; empty for a baseline."""
        identifier = f"arXiv {self.arxiv}" if self.arxiv else ""
        return "; ".join(part for part in (self.venue, identifier) if part)


METHODS = (
    Method(
        slug="lisa",
        name="LISA",
        idea="attention: most layers reuse the weights of the layer below, through a small aligner and low-rank Q, K",
        title="Cross-layer Attention Sharing for Pre-trained Large Language Models",
        authors="Y. Mu et al.",
        venue="TACL 14 (2026)",
        year=2024,
        arxiv="2408.01890",
    ),
    Method(
        slug="spannorm",
        name="SpanNorm",
        idea="architecture: one residual over the whole block, normalised at its end, with scaled output projections",
        title="SpanNorm: Reconciling Training Stability and Performance in Deep Transformers",
        authors="C. Wang et al.",
        venue="ICML 2026 (unconfirmed)",
        year=2026,
        arxiv="2601.22580",
    ),
    Method(
        slug="ndp",
        name="NDP",
        idea="objective: n-gram distributions of the training data in place of one-hot targets",
        title="NDP: Next Distribution Prediction as a More Broad Target",
        authors="J. Ruan et al.",
        year=2024,
        arxiv="2408.17377",
    ),
    Method(
        slug="lang",
        name="LANG",
        idea="reinforcement learning: hints from a teacher's trace fade, and stop for each language group by itself",
        title="LANG: Reinforcement Learning for Multilingual Reasoning with Language-Adaptive Hint Guidance",
        authors="Y. Fan et al.",
        venue="ACL 2026",
        year=2026,
        arxiv="2605.22567",
    ),
    Method(
        slug="slam",
        name="SLAM",
        idea="selection: train the feed-forward parts of the few low layers that handle language",
        title="SLAM: Towards Efficient Multilingual Reasoning via Selective Language Alignment",
        authors="Y. Fan et al.",
        venue="COLING 2025",
        year=2025,
        arxiv="2501.03681",
    ),
    Method(
        slug="plast",
        name="PLAST",
        idea="selection: train the language-specific shallow layers of a vision-language model",
        title="Language-Specific Layer Matters: Efficient Multilingual Enhancement for Large Vision-Language Models",
        authors="Y. Fan et al.",
        venue="EMNLP 2025",
        year=2025,
        arxiv="2508.18381",
    ),
    Method(
        slug="rhio",
        name="RHIO",
        idea="faithfulness: unfaithful answers made by masking retrieval heads, control tokens, contrast at decoding",
        title="Improving Contextual Faithfulness of Large Language Models via Retrieval Heads-Induced Optimization",
        authors="L. Huang et al.",
        venue="ACL 2025",
        year=2025,
        arxiv="2501.13573",
    ),
    Method(
        slug="start",
        name="START",
        idea="attribution: a model teaches itself to cite, by a synthetic warm-up and preferences over its samples",
        title="Advancing Large Language Model Attribution through Self-Improving",
        authors="L. Huang et al.",
        venue="EMNLP 2024",
        year=2024,
        arxiv="2410.13298",
    ),
    Method(
        slug="clueanchor",
        name="ClueAnchor",
        idea="retrieval: explore three ways of reasoning about the evidence and prefer the best one",
        title=(
            "ClueAnchor: Clue-Anchored Knowledge Reasoning Exploration and Optimization for "
            "Retrieval-Augmented Generation"
        ),
        authors="H. Chen et al.",
        venue="Findings of EMNLP 2025 (unconfirmed)",
        year=2025,
        arxiv="2505.24388",
    ),
    Method(
        slug="kmkc",
        name="Know More, Know Clearer",
        idea="knowledge: teach by region (mastered, confused, missing), then align certainty with being right",
        title=(
            "Know More, Know Clearer: A Meta-Cognitive Framework for Knowledge Augmentation in Large Language Models"
        ),
        authors="H. Chen et al.",
        venue="ICML 2026 (unconfirmed)",
        year=2026,
        arxiv="2602.12996",
    ),
    Method(
        slug="dapt",
        name="DaPT",
        idea="pipeline: split a multi-hop question in its own language and English, merge the graphs, retrieve in both",
        title="DaPT: A Dual-Path Framework for Multilingual Multi-hop Question Answering",
        authors="Y. Wang et al.",
        venue="ICASSP 2026 (unconfirmed)",
        year=2026,
        arxiv="2603.19097",
    ),
    Method(
        slug="tm",
        name="TMPLM",
        idea="pipeline: similar pairs of a translation memory stand in the translator's prompt",
        title="Augmenting Large Language Model Translators via Translation Memories",
        authors="Y. Mu et al.",
        venue="Findings of ACL 2023",
        year=2023,
        arxiv="2305.17367",
    ),
)
"""The twelve, in the order of the design."""

BASELINES = (
    Method(slug="finetune", name="fine-tuning", idea="baseline: train on next tokens, or evaluate only"),
    Method(slug="rag", name="plain RAG", idea="baseline: retrieve passages, put them into the prompt, answer"),
)
