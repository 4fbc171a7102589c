"""Preference pairs without generation: is the better answer likelier than the worse one?

`pair_acc` = share of pairs whose better answer has the higher log-probability; `pair_acc_norm` the same of means over
an answer's tokens, which long answers do not lose by; `pair_margin` = the mean difference of the log-probabilities in
nats. Each is a macro mean over languages, with `name/<language>` beside it. Equal answers count as wrong. Pairs are
encoded and cut as in training (`train.max_length`).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from athlos.config.schema import RunConfig
from athlos.data.batches import collate
from athlos.data.encoding import encode_preference, pair_rows
from athlos.data.records import PreferenceRecord, Record
from athlos.errors import ConfigError
from athlos.evaluation.config import PreferencesConfig
from athlos.evaluation.metrics import MacroMean
from athlos.evaluation.sharding import one_by_one
from athlos.evaluation.suite import Answerer, SuiteResult
from athlos.models.forward import evaluating
from athlos.objectives.preference import pair_log_probs

CHUNK_TOKENS = 256


class PreferencesSuite:
    is_seeded = False

    def __init__(self, config: PreferencesConfig, run: RunConfig) -> None:
        self.config, self.run = config, run

    @torch.inference_mode()
    def evaluate(
        self, answerer: Answerer, records: Sequence[Record], *, shots_pool: Sequence[Record] = (), progress: Any = None
    ) -> SuiteResult:
        """Raises `ConfigError` for data without preference pairs."""
        pairs = [record for record in records if isinstance(record, PreferenceRecord)]
        if not pairs:
            raise ConfigError(f"eval.suites: preferences needs preference pairs, data={self.run.data.name} has none")
        model, tokenizer, size = answerer.model, answerer.tokenizer, self.run.eval.batch_size
        length = self.run.train.max_length
        rows = pair_rows([encode_preference(pair, tokenizer=tokenizer, max_length=length) for pair in pairs])
        order = np.argsort(rows.ends_R - rows.starts_R, kind="stable")  # like lengths: little padding
        device = next(model.parameters()).device

        def scores(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            """Log-probabilities of the two answers of each of these pairs, and their tokens; both [P, 2]."""
            batch = collate(rows, indices, pad_id=tokenizer.eos_token_id, step_targets=1, with_worse=True)
            on_device = {name: value.to(device) for name, value in batch.items()}
            log_probs = pair_log_probs(model, on_device, chunk_tokens=CHUNK_TOKENS)
            return log_probs[0].double().cpu().numpy(), log_probs[1].cpu().numpy()

        batches = [order[start : start + size] for start in range(0, len(order), size)]
        with evaluating(model):
            parts = one_by_one(batches, scores, progress=progress, num_tokens=lambda part: int(part[1].sum()))
        log_probs_P2, lengths_P2 = np.empty((len(pairs), 2)), np.empty((len(pairs), 2), dtype=np.int64)
        log_probs_P2[order], lengths_P2[order] = (np.concatenate(tables) for tables in zip(*parts, strict=True))
        means_P2 = log_probs_P2 / lengths_P2
        values = {
            "pair_acc": log_probs_P2[:, 0] > log_probs_P2[:, 1],
            "pair_acc_norm": means_P2[:, 0] > means_P2[:, 1],
            "pair_margin": log_probs_P2[:, 0] - log_probs_P2[:, 1],
        }
        result = SuiteResult(
            predictions=[
                {
                    "id": pair.identifier,
                    "language": pair.language,
                    "log_probs": log_probs_P2[place].tolist(),
                    "tokens": lengths_P2[place].tolist(),
                }
                for place, pair in enumerate(pairs)
            ],
            signatures={"preferences": f"pairs:{len(pairs)}|max_length:{length}"},
        )
        for name, items in values.items():
            mean = MacroMean(name, evaluation=self.run.eval)
            mean.update(items.astype(float).tolist(), [pair.language for pair in pairs])
            result.add(*mean.compute())
        return result
