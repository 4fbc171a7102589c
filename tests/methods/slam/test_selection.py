"""`selection=slam` on tiny models: what it chooses, what trains, what stays, what it refuses."""

import copy
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tests.assembled import loaded, tuned
from tests.methods.slam.reference import alignment
from tests.models.conftest import context as context
from tests.models.conftest import tiny as tiny
from tests.models.probe_reference import count_positive, deviation, prefix
from tests.models.test_probe import saved_gates
from tests.models.test_selection import moved, snapshot, train
from tests.tolerances import EXACT, FLOAT32

from athlos.config.compose import compose_dict, run_config
from athlos.data.records import MathRecord, ParallelRecord
from athlos.errors import ConfigError, ConfigErrors, DataError
from athlos.methods.slam import probing
from athlos.methods.slam import selection as choosing
from athlos.methods.slam.config import SlamConfig
from athlos.methods.slam.module import alignment_cosines
from athlos.methods.slam.selection import SlamSelection
from athlos.models.config import LoraConfig
from athlos.models.layer_selectors import gap_prefix
from athlos.models.neuron_counts import load_blocks, merge
from athlos.models.tokenizers import word_tokenizer
from athlos.models.tuning import LoraTuning
from athlos.parts import PartContext
from athlos.stages import StageStore

WORDS = [f" {letter}{number}" for letter in "abc" for number in range(8)]
QUESTIONS = 24


def settings_of(*overrides: str) -> SlamConfig:
    config = run_config(
        ["selection=slam", "train.max_steps=0", "train.weight_decay=0", *(f"selection.{one}" for one in overrides)]
    ).selection
    assert isinstance(config, SlamConfig)
    return config


class Texts:
    """Parallel problems in three made-up languages of one alphabet each, 1 to 4 words long."""

    def fingerprint(self, split: str) -> str:
        return split

    def records(self, split: str) -> Any:
        for at in range(QUESTIONS):
            for language, letter in (("en", "a"), ("de", "b"), ("zh", "c")):
                words = " ".join(f"{letter}{(at + step) % 8}" for step in range(1 + at % 4))
                yield MathRecord(identifier=f"{language}-{at}", language=language, question=words, answer="1")


class Tokenizer:
    """The first 40 ids of a word tokenizer: tiny models have no more."""

    def __init__(self) -> None:
        self.inner = word_tokenizer(WORDS)
        self.backend_tokenizer, self.special_tokens_map = self.inner.backend_tokenizer, self.inner.special_tokens_map
        self.bos_token_id = None

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        return [3 + (one % 37) for one in self.inner.encode(text, add_special_tokens=False)]


@pytest.fixture
def probe_context(tmp_path: Path) -> PartContext:
    config = run_config(["selection=slam", "train.max_steps=0", "seed=3"])
    data: Any = SimpleNamespace(source=Texts(), test_split="test", pad_id=0)
    tokenizer: Any = Tokenizer()
    return PartContext(config=config, stages=StageStore(tmp_path), start=loaded(None, tokenizer), data=data)


SMALL = ("probe.num_questions=20", "probe.blocks=4", "probe.resamples=10", "probe.batch_size=3")


@pytest.mark.parametrize("family", ["llama", "gemma3", "phi3"])
def test_scores_and_layers_equal_loops_over_saved_activations(
    family: str, tiny: Any, probe_context: PartContext
) -> None:
    model = tiny(family)
    parts = () if family != "phi3" else ("ffn_parts=[up,down,gate]",)
    selection = SlamSelection(settings_of(*SMALL, *parts))
    selection.choose(model, context=probe_context)
    texts: dict[str, list[list[int]]] = {}
    for record in Texts().records("probe"):
        texts.setdefault(record.language, []).append(probe_context.tokenizer.encode(record.question))
    gates = {language: saved_gates(model, rows[:20]) for language, rows in texts.items()}
    masks = {language: [[True] * len(row) for row in rows[:20]] for language, rows in texts.items()}
    counts = count_positive(gates, masks)
    tokens = {language: sum(len(row) for row in rows[:20]) for language, rows in texts.items()}
    shares = [
        [[counts[layer, name, j] / tokens[name] for j in range(36)] for name in ("en", "de", "zh")]
        for layer in range(3)
    ]
    wanted = deviation(shares, reference=0)
    np.testing.assert_allclose(selection.choice.scores, wanted, atol=EXACT)
    expected = prefix(wanted, 6) or [int(np.argmax(wanted[:1]))]
    assert selection.choice.layers == expected
    assert 0 <= selection.choice.jaccard <= 1
    assert set(selection.choice.by_language) == {"de", "zh"}


def test_counts_and_layers_are_stages_that_come_back(tiny: Any, probe_context: PartContext) -> None:
    first = SlamSelection(settings_of(*SMALL))
    first.choose(tiny("llama"), context=probe_context)
    names = [(product.name, product.reused) for product in probe_context.stages.history]
    assert names == [("probe", False), ("select", False)]
    stored = json.loads((probe_context.stages.history[-1].path / "layers.json").read_text())
    assert stored["layers"] == first.choice.layers
    assert stored["jaccard"] == first.choice.jaccard
    again = SlamSelection(settings_of(*SMALL))
    again.choose(tiny("llama"), context=probe_context)
    assert again.choice == first.choice
    specific = ("selector=specific_neurons", "lape.entropy_share=0.5", "lape.percentile=50")
    other = SlamSelection(settings_of(*SMALL, "k=1", *specific))
    other.choose(tiny("llama"), context=probe_context)
    assert [(one.name, one.reused) for one in probe_context.stages.history[2:]] == [
        ("probe", True),
        ("select", True),
        ("probe", True),
        ("select", False),
    ]
    assert other.choice.num_dead >= 0
    assert len(other.choice.layers) == 1


def test_equal_texts_in_all_languages_deviate_by_nothing(tiny: Any, probe_context: PartContext) -> None:
    texts = {name: ["a1 a2", "a3"] * 10 for name in ("en", "de")}
    blocks = probing.count_texts(tiny("llama"), probe_context.tokenizer, texts, num_blocks=4, batch_size=3)
    config = settings_of(*SMALL)
    choice = choosing.from_counts(config, blocks, seed=0)
    assert choice.scores == [0.0, 0.0, 0.0]
    assert choice.used_fallback
    with pytest.raises(ConfigError, match="fallback=none"):
        choosing.from_counts(settings_of(*SMALL, "fallback=none"), blocks, seed=0)


def test_the_selection_depends_on_no_batch_size(tiny: Any, probe_context: PartContext) -> None:
    texts = {name: [f"{letter}{n} {letter}{n + 1}" for n in range(7)] for name, letter in (("en", "a"), ("de", "b"))}
    model = tiny("gemma3")
    one, many = (
        merge(probing.count_texts(model, probe_context.tokenizer, texts, num_blocks=blocks, batch_size=size))
        for blocks, size in ((7, 1), (2, 5))
    )
    np.testing.assert_array_equal(one.positive, many.positive)


def by_hand(*overrides: str) -> SlamConfig:
    return settings_of("selector=manual", "layers=[0,2]", *overrides)


@pytest.mark.parametrize(
    ("overrides", "wanted"),
    [
        ((), ["mlp.up_proj", "mlp.down_proj"]),
        (("ffn_parts=[up,down,gate]",), ["mlp.up_proj", "mlp.down_proj", "mlp.gate_proj"]),
        (("parts=attn",), [f"self_attn.{one}_proj" for one in "qkvo"]),
    ],
)
def test_exactly_the_named_parts_move(
    overrides: tuple[str, ...], wanted: list[str], tiny: Any, context: PartContext
) -> None:
    model = tiny("llama")
    tuned(SlamSelection(by_hand(*overrides)), model, context=context)
    before = snapshot(model)
    train(model)
    expected = {f"model.layers.{index}.{name}.weight" for index in (0, 2) for name in wanted}
    assert moved(before, model) == expected
    # Sabotages: a gate left trainable, layers off by one.
    assert not any("gate" in name for name in moved(before, model)) or "gate" in str(overrides)
    assert not any("layers.1." in name for name in moved(before, model))


def test_whole_layers_and_the_embedding_move(tiny: Any, context: PartContext) -> None:
    model = tiny("llama_tied")
    settings = settings_of("selector=manual", "layers=[1]", "parts=all", "train_emb=true")
    tuned(SlamSelection(settings), model, context=context)
    before = snapshot(model)
    train(model)
    assert moved(before, model) == {name for name in before if ".layers.1." in name or "embed" in name}


def test_lora_inside_the_chosen_layers_equals_pefts(tiny: Any, context: PartContext) -> None:
    import peft

    model = tiny("llama")
    original = copy.deepcopy(model)
    tuning = LoraTuning(LoraConfig(rank=2, alpha=4))
    model, report = tuned(SlamSelection(by_hand()), model, context=context, tuning=tuning)
    torch.manual_seed(context.config.seed)
    theirs = peft.get_peft_model(
        copy.deepcopy(original),
        peft.LoraConfig(r=2, lora_alpha=4, target_modules=["up_proj", "down_proj"], layers_to_transform=[0, 2]),
    )
    num_trained = sum(parameter.numel() for parameter in theirs.parameters() if parameter.requires_grad)
    assert report.metrics["cost/trainable_params"] == num_trained
    train(model)
    train(theirs)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        logits = model(ids).logits
        torch.testing.assert_close(logits, theirs(ids).logits, atol=0, rtol=0)
        torch.testing.assert_close(tuning.merge(model)(ids).logits, logits, atol=1e-5, rtol=1e-5)
    assert set(snapshot(model)) == set(snapshot(original))


@pytest.mark.parametrize("kind", ["random50", "top50_change"])
def test_masked_neurons_stay_bit_identical(kind: str, tiny: Any, probe_context: PartContext) -> None:
    model = tiny("llama")
    config = settings_of("selector=manual", "layers=[1]", f"neuron_mask={kind}", *SMALL)
    tuned(SlamSelection(config), model, context=probe_context)
    before = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2, weight_decay=0.0)
    for _ in range(2):
        optimizer.zero_grad()
        ids = torch.tensor([[1, 5, 7, 9, 3, 11, 2]])
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    changed = {name: value.detach() != before[name] for name, value in model.named_parameters() if name in before}
    rows = changed["model.layers.1.mlp.up_proj.weight"].any(1)
    columns = changed["model.layers.1.mlp.down_proj.weight"].any(0)
    assert torch.equal(rows, columns)
    assert int(rows.sum()) == 18  # half of 36


def test_the_half_that_trains_is_that_whose_firing_differs_most(tiny: Any, probe_context: PartContext) -> None:
    selection = SlamSelection(settings_of("selector=manual", "layers=[1]", "neuron_mask=top50_change", *SMALL))
    [(_, up), (_, down)] = selection.choose(tiny("llama"), context=probe_context).gradient_masks
    assert (up.shape, down.shape) == ((36, 1), (1, 36))
    counts = merge(load_blocks(probe_context.stages.history[-1].path / "counts.npz"))
    at = {name: counts.index(name) for name in ("en", "de", "zh")}
    shares = {name: counts.positive[1, index] / counts.tokens[index] for name, index in at.items()}
    change = [sum((shares[name][j] - shares["en"][j]) ** 2 for name in ("de", "zh")) for j in range(36)]
    assert min(one for one, trains in zip(change, up.flatten(), strict=True) if trains) >= max(
        one for one, trains in zip(change, down.flatten(), strict=True) if not trains
    )


def test_the_random_control_follows_its_seed_and_never_repeats_a_layer(tiny: Any, context: PartContext) -> None:
    selection = SlamSelection(settings_of("selector=random", "k=2"))
    choices = [selection.unmeasured(6, seed=seed) for seed in range(30)]
    assert all(len(set(layers)) == 2 for layers in choices)
    assert len({tuple(layers) for layers in choices}) > 5
    fixed = SlamSelection(settings_of("selector=random", "k=2", "seed_random_layers=5"))
    fixed.choose(tiny("llama"), context=context)
    assert fixed.choice.layers == fixed.unmeasured(3, seed=5)


def test_places_keep_the_number_of_layers() -> None:
    scores = np.array([4.0, 3, 1, 1, 1, 2])
    assert gap_prefix(scores, k_max=6) == [0, 1]
    for position, wanted in (("auto", [0, 1]), ("low", [0, 1]), ("mid", [2, 3]), ("high", [4, 5])):
        assert choosing.from_scores(settings_of(f"position={position}"), scores).layers == wanted
    assert choosing.from_scores(settings_of("k=1"), scores).layers == [0]
    with pytest.raises(ConfigError, match=r"k: got 4, expected 1 \.\. 3"):
        choosing.from_scores(settings_of("k=4"), scores)


def test_texts_are_matched_by_item_and_a_missing_language_is_told() -> None:
    from athlos.data.parallel_texts import parallel_texts

    records = [
        ParallelRecord(
            identifier=f"n-{item}-{code}",
            language="en",
            source=f"{code}{item}",
            target=f"en{item}",
            source_language=code,
            meta={"item": item},
        )
        for code, items in (("de", (0, 1, 2)), ("ru", (2, 1)))
        for item in items
    ]
    found = parallel_texts(records, languages=[], num_items=2)
    assert found == {"en": ["en1", "en2"], "de": ["de1", "de2"], "ru": ["ru1", "ru2"]}
    with pytest.raises(DataError, match="no text in 'fr'"):
        parallel_texts(records, languages=["en", "fr"], num_items=1)
    with pytest.raises(DataError, match="2 texts are in all of"):
        parallel_texts(records, languages=[], num_items=3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("selection.layers=[1]",), "they go with selector=manual"),
        (("selection.selector=manual", "selection.layers=[1,1]"), "names a layer twice"),
        (("selection.selector=random",), "selection.k: got 0 with selector=random"),
        (("selection.ffn_parts=[upp]",), "did you mean 'up'"),
        (("selection.ffn_parts=[]",), "expected at least one of up, down, gate"),
        (("selection.probe.num_questions=10",), "expected an integer >= 20"),
        (("tuning=lora", "selection.train_emb=true"), "tuning: got lora with selection.train_emb=true, expected full"),
        (("tuning=lora", "selection.neuron_mask=random50"), "tuning: got lora with selection.neuron_mask=random50"),
        (("tuning=lora_equal", "selection.selector=all"), "tuning: got lora_equal, expected full or lora"),
        (("selection.neuron_mask=random50", "train.weight_decay=0.1"), "decay would move"),
        (("selection.neuron_mask=random50", "train.weight_decay=0", "selection.parts=all"), "use parts=ffn"),
        (("selection.probe.split=test",), "the split that the run is tested on"),
        (("selection.k_max=0",), "selection.k_max: got 0"),
        (("selection.lape.percentile=100",), "selection.lape.percentile: got 100"),
        (("method=slam", "method.reason_steps=200"), "method.reason_steps: got 200"),
        (("method=slam", "method.align_items=5", "method.align_split=test"), "method.align_split: got 'test'"),
    ],
)
def test_bad_values_are_refused_with_a_reason(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigErrors, match=message):
        run_config(["selection=slam", *overrides])


def test_a_misspelt_selector_names_the_accepted_ones() -> None:
    with pytest.raises(ConfigError, match="activation_gap"):
        compose_dict(["selection=slam", "selection.selector=activation_gab"])


def test_alignment_is_one_for_equal_texts(tiny: Any, probe_context: PartContext) -> None:
    texts = {"en": ["a1 a2", "a3"], "de": ["a1 a2", "a3"], "zh": ["c1", "c4 c5 c6"]}
    same = alignment_cosines(
        tiny("llama"), probe_context.tokenizer, {k: texts[k] for k in ("en", "de")}, reference="en"
    )
    np.testing.assert_allclose(same, np.ones(4), atol=1e-5)
    assert (alignment_cosines(tiny("llama"), probe_context.tokenizer, texts, reference="en") < 1).all()


class WithPrefix(Tokenizer):
    """Puts a begin-of-sequence token in front, as Llama's and Gemma's do."""

    def __init__(self) -> None:
        super().__init__()
        self.bos_token_id = 1

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        return [1] * add_special_tokens + super().encode(text)


UNEQUAL = {"en": ["a1 a2 a3", "a3"], "de": ["b1", "b2 b4 b5 b6"]}


def test_neurons_are_counted_on_the_texts_own_tokens(tiny: Any) -> None:
    """The token in front is read but not counted, padding neither: against gates of each text alone."""
    model, tokenizer = tiny("llama"), WithPrefix()
    [found] = probing.count_texts(model, tokenizer, UNEQUAL, num_blocks=1, batch_size=2)  # type: ignore[arg-type]
    assert found.tokens.tolist() == [4, 5]
    rows = {language: [tokenizer.encode(text) for text in texts] for language, texts in UNEQUAL.items()}
    masks = {language: [[False] + [True] * (len(row) - 1) for row in own] for language, own in rows.items()}
    counts = count_positive({language: saved_gates(model, own) for language, own in rows.items()}, masks)
    for (layer, language, neuron), count in counts.items():
        assert found.positive[layer, found.index(language), neuron] == count


@torch.no_grad()
def test_alignment_pools_the_texts_own_tokens(tiny: Any) -> None:
    """Cosines of means over each text's tokens, without the token in front and without padding."""
    model, tokenizer = tiny("llama"), WithPrefix()
    texts = {**UNEQUAL, "zh": ["c1 c2", "c5"]}
    found = alignment_cosines(model, tokenizer, texts, reference="en")  # type: ignore[arg-type]

    def states(text: str) -> list[list[list[float]]]:
        """Of each layer, the rows of a text's own tokens; transformers norms what the last layer gives."""
        layers = model(torch.tensor([tokenizer.encode(text)]), output_hidden_states=True).hidden_states
        return [layer[0, 1:].tolist() for layer in layers[:3]]

    expected = alignment({language: [states(text) for text in own] for language, own in texts.items()}, reference="en")
    np.testing.assert_allclose(found[:3], expected, atol=FLOAT32)


def test_other_data_may_be_probed_but_never_what_the_run_is_tested_on(probe_context: PartContext) -> None:
    lab = ["data=lab_alignment", "data.num_probe_items=20", "prompt_style=bare"]
    quoted = ",".join(f"'{one}'" for one in lab)
    config = settings_of(f"probe.data=[{quoted}]", "reference=latn")
    source, split = probing.probe_source(config, context=probe_context)
    assert split == "probe"
    assert len(list(source.records(split))) == 5 * 20
    assert probe_context.data is not None
    tested: Any = SimpleNamespace(source=source, test_split="probe")
    probe_context.data = tested
    with pytest.raises(ConfigError, match="is what the run is tested on"):
        probing.probe_source(config, context=probe_context)


def test_one_probe_serves_all_seeds(tiny: Any, probe_context: PartContext) -> None:
    for seed in (1, 2):
        probe_context.config.seed = seed
        SlamSelection(settings_of(*SMALL)).choose(tiny("llama"), context=probe_context)
    assert [one.reused for one in probe_context.stages.history if one.name == "probe"] == [False, True]


def test_the_counts_of_a_changed_model_are_its_own(tiny: Any, probe_context: PartContext) -> None:
    """A surgery may draw weights by the seed of the run, which the fingerprint of the model as loaded does not tell."""
    plain, norms, siamese = (
        run_config(surgery).surgery
        for surgery in ([], ["surgery=spannorm"], ["surgery=spannorm", "surgery.placement=siamesenorm"])
    )
    for seed, surgery in ((1, plain), (1, norms), (2, norms), (2, siamese), (2, plain), (2, norms)):
        probe_context.config.seed, probe_context.config.surgery = seed, surgery
        SlamSelection(settings_of(*SMALL)).choose(tiny("llama"), context=probe_context)
    reused = [one.reused for one in probe_context.stages.history if one.name == "probe"]
    assert reused == [False, False, False, False, True, True]
