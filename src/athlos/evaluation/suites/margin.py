"""Word problems without generation: is the right number more likely than four near ones?

For models that solve nothing yet, where accuracy sits at its floor. `margin_acc` = share of problems whose answer is
the likeliest of five numbers behind the prompt; `margin` = its log-likelihood less that of the best other one, in nats.
Both are macro means over languages, with `name/<language>` beside them. Chance is 0.2.

C candidates, T positions.
"""

import random
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from athlos.config.schema import RunConfig
from athlos.data.encoding import continued_ids, prefix_token
from athlos.data.records import MathRecord, Record
from athlos.errors import ConfigError
from athlos.evaluation.config import MarginConfig
from athlos.evaluation.metrics import MacroMean
from athlos.evaluation.sharding import one_by_one
from athlos.evaluation.suite import Answerer, SuiteResult
from athlos.models.forward import hidden_states, project
from athlos.text import prompts

NUM_OTHERS = 4
FARTHEST = 10
"""Other numbers are this far from the answer at most, or a tenth of it for large ones."""
STYLE = "direct"
WHOLE_NUMBER = re.compile(r"-?\d{1,7}")
"""All that `int` reads, which `str.isdigit` is no test for (a raised two); below 10^7, as the near ones are listed."""


class MarginSuite:
    is_seeded = False

    def __init__(self, config: MarginConfig, run: RunConfig) -> None:
        self.config, self.run = config, run

    def evaluate(
        self, answerer: Answerer, records: Sequence[Record], *, shots_pool: Sequence[Record] = (), progress: Any = None
    ) -> SuiteResult:
        """Raises `ConfigError` for data without word problems. Those whose answer is no `WHOLE_NUMBER` are left out."""
        problems = [
            record for record in records if isinstance(record, MathRecord) and WHOLE_NUMBER.fullmatch(record.answer)
        ]
        if not problems:
            raise ConfigError(f"eval.suites: margin needs a MathRecord, data={self.run.data.name} has none")
        model, tokenizer = answerer.model, answerer.tokenizer
        was_training = model.training
        model.eval()

        def problem_row(record: MathRecord) -> dict[str, Any]:
            """The row of the prediction file."""
            candidates = [record.answer, *near_numbers(int(record.answer), seed=record.identifier)]
            prompt = prompts.build_prompt(record, shots=(), style=STYLE)
            space = prompts.completion(record, STYLE).removesuffix(record.answer)
            scores_C = log_likelihoods(model, tokenizer, prompt, [space + candidate for candidate in candidates])
            return {
                "id": record.identifier,
                "language": record.language,
                "prompt": prompt,
                "prediction": candidates[int(scores_C.argmax())],
                "gold": record.answer,
                "candidates": candidates,
                "margin": float(scores_C[0] - scores_C[1:].max()),
            }

        rows = one_by_one(problems, problem_row, progress=progress)
        model.train(was_training)
        margins = [row["margin"] for row in rows]
        result = SuiteResult(
            predictions=rows,
            signatures={"margin": f"MathRecord.{STYLE}|others:{NUM_OTHERS}|within:{FARTHEST}"},
        )
        languages = [record.language for record in problems]
        values = {"margin_acc": [float(margin > 0) for margin in margins], "margin": margins}
        for name, items in values.items():
            mean = MacroMean(name, evaluation=self.run.eval)
            mean.update(items, languages)
            result.add(*mean.compute())
        return result


def near_numbers(answer: int, *, seed: str) -> list[str]:
    """Other numbers of as many digits where there are enough, the same in every run."""
    reach = max(FARTHEST, abs(answer) // 10)
    near = [answer + step for step in range(-reach, reach + 1) if step and (answer + step >= 0 or answer < 0)]
    of_same_length = [number for number in near if len(str(number)) == len(str(answer))]
    pool = of_same_length if len(of_same_length) >= NUM_OTHERS else near
    return [str(number) for number in random.Random(seed.split("-")[-1]).sample(pool, NUM_OTHERS)]


@torch.inference_mode()
def log_likelihoods(model: Any, tokenizer: Any, prompt: str, completions: Sequence[str]) -> Tensor:
    """[C]: log-probability of each completion behind the prompt, in nats, summed over its tokens."""
    prefix = prefix_token(tokenizer)
    front = [] if prefix is None else [prefix]
    front += tokenizer.encode(prompt, add_special_tokens=False)
    ends = [continued_ids(tokenizer, prompt, text) for text in completions]
    longest = len(front) + max(map(len, ends))
    ids_CT = torch.zeros(len(ends), longest, dtype=torch.int64)
    real_CT = torch.zeros_like(ids_CT)
    for at, end in enumerate(ends):
        ids_CT[at, : len(front) + len(end)] = torch.tensor(front + end)
        real_CT[at, : len(front) + len(end)] = 1
    device = next(model.parameters()).device
    positions_CT = torch.arange(longest).expand_as(ids_CT).contiguous()
    batch = {"input_ids": ids_CT, "attention_mask": real_CT, "position_ids": positions_CT}
    hidden_CTD = hidden_states(model, {name: value.to(device) for name, value in batch.items()})
    scores = []
    for at, end in enumerate(ends):
        logits_NV = project(model, hidden_CTD[at, len(front) - 1 : len(front) - 1 + len(end)])
        log_probs_NV = logits_NV.log_softmax(-1)
        scores.append(log_probs_NV[torch.arange(len(end)), torch.tensor(end)].sum())
    return torch.stack(scores).cpu()
