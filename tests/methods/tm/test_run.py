"""Whole runs of TM: in the lab, stacked on what another method trained, through a server, and as a dry run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.methods.tm.made import UNITS, write_units
from tests.run_record import metrics_of

from athlos.runs.export import stored_config

Run = Callable[..., tuple[int, str, str]]
TINY = [
    "model.architecture.hidden_size=16",
    "model.architecture.intermediate_size=24",
    "model.architecture.num_hidden_layers=2",
    "model.architecture.num_attention_heads=2",
    "model.architecture.num_key_value_heads=2",
]


def predictions(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "predictions" / "tm.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def lab(tmp_path: Path, cache: Path) -> list[str]:
    """The lab's memory, small, and a model of random weights."""
    return [
        "experiment=tm/lab",
        "model=lab/tm",
        *TINY,
        "model.source=random",
        "model.tokenizer.kind=words",
        "data.memory.memory_size=40",
        "data.memory.num_queries=10",
        "decoding.max_new_tokens=6",
        "eval.bootstrap=20",
        "tracking=none",
        f"results_dir={tmp_path / 'results'}",
    ]


def test_a_run_in_the_lab_keeps_prompts_matches_and_measures(lab: list[str], run: Run) -> None:
    code, out, err = run("run", *lab)
    assert code == 0, err
    folder = Path(out.splitlines()[-1])
    metrics, rows = metrics_of(folder), predictions(folder)
    assert len(rows) == 10
    for row in rows:
        assert row["prompt"].count("[latn]=[") == 6
        assert row["bucket"] == int(row["trace"][0]["best"]["score"] >= 0.3) + sum(
            row["trace"][0]["best"]["score"] >= low for low in (0.5, 0.7, 0.9)
        )
    assert {"test/chrf", "test/chrf_zero", "test/chrf_copy@b3", "test/chrf_gain_zero", "test/changed_f1"} <= set(
        metrics
    )
    assert metrics["retrieval/prefilter_recall"] == 1
    assert metrics["cost/prompt_tokens"] > 50
    assert metrics["cost/trainable_params"] == 0
    provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    assert {"tm_memory", "tm_matches", "tm_zero_shot"} <= {stage["name"] for stage in provenance["stages"]}
    assert provenance["signatures"]["tm_prompt"] == "code|k:5|best_last"


def test_arms_of_a_study_share_their_products_and_differ_in_their_prompts(lab: list[str], run: Run) -> None:
    hashes, folders = {}, set()
    for name, overrides in {
        "best_last": [],
        "best_first": ["method.order=best_first"],
        "shuffled": ["method.tm_corrupt=shuffled_targets"],
        "forced": ["method.decoder=prefix_forced", "method.k=1"],
        "noisy": ["method.tm_corrupt=noisy"],
        "foreign": ["method.tm_corrupt=wrong_language", "method.wrong_language=grek"],
    }.items():
        code, out, err = run("run", *lab, *overrides)
        assert code == 0, err
        folder = Path(out.splitlines()[-1])
        folders.add(folder.name)
        provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
        order = "best_first" if name == "best_first" else "best_last"
        assert provenance["signatures"]["tm_prompt"].endswith(f"|{order}")
        hashes[name] = provenance["signatures"]["tm_prompt_hash"]
        if name != "best_last":
            first_asked = {}
            for stage in provenance["stages"]:
                first_asked.setdefault(stage["name"], stage["reused"])
            assert first_asked["tm_zero_shot"]
            assert first_asked["tm_matches"] == (name != "foreign")
    assert len(set(hashes.values())) == len(hashes) == len(folders)  # an order has a run name of its own


def test_the_word_list_of_the_lab_trains_a_translator(lab: list[str], run: Run) -> None:
    """The base of the study, whose weights the study then takes by `run:`; two steps each."""
    small = "data.num_train=40,data.num_val=5,data.memory.memory_size=40,data.memory.num_queries=10"
    shape = ",".join(TINY)
    base = f'model.source="run:tm/lab_base,{shape},train.max_steps=2,{small}"'
    code, out, err = run("run", *lab, "model.tokenizer.kind=source", base)
    assert code == 0, err
    provenance = json.loads((Path(out.splitlines()[-1]) / "provenance.json").read_text(encoding="utf-8"))
    assert any(stage["name"] == "training" for stage in provenance["stages"])


@pytest.mark.slow
def test_a_model_that_slam_tuned_translates_with_the_memory(lab: list[str], run: Run) -> None:
    """The stack of two methods: slam's weights, tm's prompts, in languages with the same words."""
    slam = 'model.source="run:slam/lab,hardware=cpu_smoke"'
    languages = ["data.languages=[latn,cyrl,grek]", "hardware=cpu_smoke", "method.k=1"]
    code, out, err = run("run", *lab, "model.tokenizer.kind=source", slam, *languages)
    assert code == 0, err
    folder = Path(out.splitlines()[-1])
    assert stored_config(folder).model.source.startswith("run:slam/lab")
    assert predictions(folder)[0]["prompt"].count("[latn]=[") == 2


def test_both_templates_ask_a_model_of_another_word_list(tiny: list[str], run: Run, tmp_path: Path) -> None:
    folder = write_units(tmp_path / "units", [*UNITS, *(("a:b", f"{s} again", f"{t} wieder") for _, s, t in UNITS)])
    kept = [item for item in tiny if not item.startswith(("data", "eval", "train.max_steps"))]
    base = [*kept, "method=tm", "data=po_tm", f"data.dir={folder}", "eval=tm", "eval.bootstrap=20", "train.max_steps=0"]
    shares = ["data.split_shares={train: 0.5, val: 0.0, test: 0.5}", "data.val_split=null", "decoding.max_new_tokens=4"]
    for template in ("code", "instruction"):
        code, out, err = run("run", *base, *shares, f"method.template={template}", "method.k=2")
        assert code == 0, err
        [row, *_] = predictions(Path(out.splitlines()[-1]))
        assert ("[English]=[" in row["prompt"]) == (template == "code")
        assert row["source"] in row["prompt"]


def test_the_memory_is_contrasted_with_its_absence(tiny: list[str], run: Run, tmp_path: Path) -> None:
    """The stack of tm and decoding=cad: without weight it is greedy decoding, with some it is not."""
    folder = write_units(tmp_path / "units", [*UNITS, *(("a:b", f"{s} again", f"{t} wieder") for _, s, t in UNITS)])
    kept = [item for item in tiny if not item.startswith(("data", "eval", "train.max_steps"))]
    base = [*kept, "method=tm", "data=po_tm", f"data.dir={folder}", "eval=tm", "eval.bootstrap=0", "train.max_steps=0"]
    shares = ["data.split_shares={train: 0.5, val: 0.0, test: 0.5}", "data.val_split=null", "method.k=2"]
    told = {}
    for name in ("greedy", "cad decoding.alpha=0.0", "cad decoding.alpha=100.0 decoding.plausibility=0.0"):
        code, out, err = run("run", *base, *shares, *f"decoding={name}".split(), "decoding.max_new_tokens=8")
        assert code == 0, err
        told[name] = [row["trace"][-1]["reply"] for row in predictions(Path(out.splitlines()[-1]))]
    greedy, unweighted, weighted = told.values()
    assert greedy == unweighted != weighted


def test_the_scores_of_stored_translations_need_no_model(tiny: list[str], run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "stored"
    folder.mkdir()
    lines = [
        "en\tnl_reference\tgood\tbad",
        "Save the page\tDe pagina opslaan\tDe pagina opslaan\tPagina",
        "Go\tGa\tGa\tG",
    ]
    (folder / "dgt_en_nl_300.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    kept = [item for item in tiny if not item.startswith(("data", "eval", "train.max_steps"))]
    base = [
        *kept,
        "data=dgt",
        f"data.dir={folder}",
        "eval=stored_translations",
        "train.max_steps=0",
        "eval.bootstrap=0",
    ]
    code, out, err = run(
        "run", *base, *(f"+eval.suites.stored_translations.systems.{name}={name}" for name in ("good", "bad"))
    )
    assert code == 0, err
    metrics = metrics_of(Path(out.splitlines()[-1]))
    assert metrics["test/chrf_good"] == 100 > metrics["test/chrf_bad"]
    assert metrics["test/ter_good"] == 0
    code, _, err = run("run", *base, "+eval.suites.stored_translations.systems.x=missing")
    assert code == 3
    assert "field 'missing': record 'dgt_en_nl_300:2': no text in this field" in err


def test_the_figures_of_the_specification(shared_data: Path, run: Run, tmp_path: Path, cache: Path) -> None:
    code, out, err = run(
        "run",
        "experiment=tm/dgt",
        f"data.dir={shared_data / 'dgt_en_nl_300'}",
        "eval.bootstrap=0",
        "tracking=none",
        f"results_dir={tmp_path}",
    )
    assert code == 0, err
    folder = Path(out.splitlines()[-1])
    metrics = metrics_of(folder)
    assert (round(metrics["test/bleu_nmt"], 2), round(metrics["test/bleu_fuzzy"], 2)) == (45.00, 54.70)
    assert metrics["test/chrf_fuzzy"] > metrics["test/chrf_nmt"] > 60
    signatures = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))["signatures"]
    assert signatures["sacrebleu_bleu"] == "nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.6.0"


def test_the_scale_of_the_paper_is_a_dry_run(run: Run, cache: Path) -> None:
    code, out, err = run("run", "experiment=tm/paper", "dry_run=true")
    assert code == 0, err
    assert "7,615,616,512" in out + err
