"""A whole run with LISA's surgery: it trains what was added, exports, and transformers loads the folder again."""

from pathlib import Path
from typing import Any

import torch
from tests.tolerances import FLOAT32
from transformers import AutoModelForCausalLM

from athlos.methods.lisa.surgery import shared_attentions


def test_a_run_trains_what_was_added_and_exports_it(tiny: list[str], run: Any, tmp_path: Path, caplog: Any) -> None:
    lisa = ["surgery=lisa", "surgery.layers.count=1", "selection=lisa", "surgery.calibration.tokens=64"]
    code, out, err = run("run", *tiny, *lisa)
    assert code == 0, err
    code, out, err = run("export", out.splitlines()[-1], "--out", str(tmp_path / "model"))
    assert code == 0, err
    assert "write `import athlos.hf` before" in caplog.text
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").eval()
    [attention] = shared_attentions(model)
    assert attention.low_rank.query.weight.abs().sum() > 0  # it began at zero
    torch.manual_seed(0)
    ids = torch.randint(0, 50, (1, 8))
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "model", attn_implementation="eager").eval()
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, model(ids).logits, atol=FLOAT32, rtol=0)
    assert model.generate(ids, max_new_tokens=4, do_sample=False).shape[1] > 8
