"""Metrics over two real processes equal those over one, with unequal shares and with a process without items."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.tolerances import EXACT

from athlos.evaluation import metrics
from athlos.text.language import detector

GERMAN, THAI = "Das sind im Ganzen dreizehn Äpfel, also", "รวมทั้งหมดเป็นแอปเปิ้ลสิบสามลูก คือ"
ITEMS = [
    (f"{GERMAN} 13", "13", "de", 0.9, 1.0), (f"{THAI} ๑๓", "13", "th", 0.8, 0.0),
    (f"{GERMAN} 12", "13", "de", 0.35, 1.0),
    ("", "13", "th", 0.6, 0.0),
    (f"{THAI} 13", "13", "de", math.nan, 1.0),
]  # fmt: skip
LANGUAGES = ["de", "th"]


def computed(items):
    """Every metric over some of the items, as plain numbers."""
    script = detector("script", LANGUAGES)
    texts, golds, languages, conf, correct = ([item[index] for item in items] for index in range(5))
    found = {}
    by_gold_list = [metrics.ExactMatch(LANGUAGES), metrics.F1(LANGUAGES), metrics.CoverEM(LANGUAGES)]
    by_gold = [metrics.MathAccuracy(LANGUAGES), metrics.LcAcc(LANGUAGES, detector=script)]
    for metric in by_gold_list:
        if items:
            metric.update(texts, [[gold] for gold in golds], languages)
    for metric in by_gold:
        if items:
            metric.update(texts, golds, languages)
    for metric in [*by_gold_list, *by_gold]:
        found.update({name: value.item() for name, value in metric.compute().items()})
    consistency = metrics.LanguageConsistency(LANGUAGES, detector=script)
    if items:
        consistency.update(texts, languages)
    found.update({name: value.item() for name, value in consistency.compute().items()})
    for corpus_class in (metrics.Bleu, metrics.Chrf, metrics.Ter):
        metric = corpus_class(target_language="de")
        if items:
            metric.update(texts, [f"{GERMAN} 13"] * len(texts))
        found[metric.name] = metric.compute().item()
    for confidence_class in (
        metrics.EceMass,
        metrics.EceWidth,
        metrics.Mce,
        metrics.Brier,
        metrics.Auroc,
        metrics.EAurc,
    ):
        metric = confidence_class()
        if items:
            metric.update(torch.tensor(conf), torch.tensor(correct))
        found[confidence_class.__name__] = metric.compute().item()
        found[f"{confidence_class.__name__}/undefined"] = metric.num_undefined
    perplexity, throughput = metrics.Perplexity(), metrics.Throughput()
    for item in items:
        perplexity.update(len(item[0]) / 7, len(item[0]) + 1)
        throughput.update(len(item[0]), 0.5)
    found["ppl"] = perplexity.compute().item()
    found["tokens_per_s"] = throughput.compute().item()
    return found


PROGRAM = """
import json, sys, warnings
import torch
warnings.simplefilter("ignore")
from tests.evaluation.test_gathering import ITEMS, computed
rank, share, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
print(json.dumps(computed(ITEMS[:share] if rank == 0 else ITEMS[share:])), flush=True)
torch.distributed.barrier()  # a process that ends while the other still talks to it aborts
torch.distributed.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("share", [2, len(ITEMS)], ids=["unequal", "one_without_items"])
def test_two_processes_equal_one(tmp_path, share):
    children = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(rank), str(share), str(tmp_path / "store")],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
        )
        for rank in range(2)
    ]  # fmt: skip
    outputs = [child.communicate(timeout=240) for child in children]
    assert [child.returncode for child in children] == [0, 0], outputs
    expected = computed(ITEMS)
    # Processes work at the same time: the time is that of the slower one.
    expected["tokens_per_s"] = sum(len(item[0]) for item in ITEMS) / (0.5 * max(share, len(ITEMS) - share))
    for output, _ in outputs:
        assert json.loads(output.splitlines()[-1]) == pytest.approx(expected, abs=EXACT, nan_ok=True)


def test_the_reference_run_is_defined_everywhere():
    """Guards the comparison above against passing on nan alone."""
    assert all(math.isfinite(value) for value in computed(ITEMS).values())
