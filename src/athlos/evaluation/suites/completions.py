"""Completions after their prompts, token by token, with one-hot labels: what models trained on any target share.

Each record is prompt and completion as in training (no worked examples), the end of the text included; only completion
tokens count, of a conversation those of the assistant's turns. Metrics: `ppl`, `nll` in nats, `acc` and `ece` (15 bins
of equal count) of the next token, and of the model's own next-token distribution: `entropy` in nats, `topp/<p>` = least
number of tokens that hold the mass p (for vocabularies up to 65,536, since it sorts), `logit_var` and `logit_kurtosis`
over the vocabulary, all means over tokens.
Where records know the truth (`meta.next_probs`, data=lab_answers): `kl_to_truth` = KL(truth || model) in nats a token,
0 for the source itself.

B rows, T positions, N counted tokens, V vocabulary.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from athlos.config.schema import RunConfig
from athlos.data.conversations import encode_conversation
from athlos.data.encoding import cut_prompt, encode_pair, prefix_token
from athlos.data.records import ChatRecord, Record
from athlos.errors import ConfigError
from athlos.evaluation.calibration import ece_mass
from athlos.evaluation.config import CompletionsConfig
from athlos.evaluation.metrics import Confidence, TokenMean
from athlos.evaluation.sharding import one_by_one
from athlos.evaluation.suite import Answerer, MetricDetail, SuiteResult
from athlos.models.forward import hidden_states, project
from athlos.text.prompts import build_prompt, completion

CHUNK_TOKENS = 256
TOP_PS = (0.1, 0.5, 0.9)
MAX_SORTED = 65_536
"""Largest vocabulary whose probabilities are sorted: ten times the cost of all other scores together."""
PER_RECORD = ("nll", "acc", "kl_to_truth")
"""Scores whose sums stand in the rows of the predictions, and whose means have an interval over records."""
MAX_KEPT = 4096
"""Largest vocabulary whose log-probabilities are kept for a comparison with the truth: that of a lab."""


class CompletionsSuite:
    is_seeded = False

    def __init__(self, config: CompletionsConfig, run: RunConfig) -> None:
        self.config, self.run = config, run

    @torch.inference_mode()
    def evaluate(
        self, answerer: Answerer, records: Sequence[Record], *, shots_pool: Sequence[Record] = (), progress: Any = None
    ) -> SuiteResult:
        model, size = answerer.model, self.run.eval.batch_size
        was_training = model.training
        model.eval()
        rows = [self._row(record, answerer.tokenizer) for record in records]
        order = sorted(range(len(rows)), key=lambda index: len(rows[index][0]))  # like lengths: little padding

        def batch_scores(chosen: Sequence[int]) -> tuple[dict[str, np.ndarray], np.ndarray]:
            """Scores of each counted token of these records, and the record it belongs to."""
            scores, row_of_N = self._scores(model, [rows[index] for index in chosen])
            truths = [truth_of(records[index], answerer.tokenizer) for index in chosen]
            known = [truth for truth in truths if truth is not None]
            if len(known) == len(truths):
                scores["kl_to_truth"] = kl_to_truth(scores["log_probs"], np.concatenate(known))
            del scores["log_probs"]
            return scores, np.asarray(chosen)[row_of_N]

        batches = [order[start : start + size] for start in range(0, len(order), size)]
        parts = one_by_one(batches, batch_scores, progress=progress, num_tokens=lambda part: len(part[1]))
        model.train(was_training)
        return self._result(parts, records)

    def _row(self, record: Record, tokenizer: Any) -> tuple[list[int], list[bool]]:
        """Token ids, and for each whether it counts; the first token of a row has nothing before it and does not."""
        style, room = self.run.prompt_style, self.config.max_length
        if isinstance(record, ChatRecord):
            ids, is_target = encode_conversation(tokenizer, record)
            if len(ids) > room:
                raise ConfigError(
                    f"eval.suites.completions.max_length: got {room}, "
                    f"but the conversation '{record.identifier}' has {len(ids)} tokens"
                )
            return ids, [False, *is_target[1:]]
        prompt, answer = encode_pair(tokenizer, build_prompt(record, shots=(), style=style), completion(record, style))
        if len(answer) >= room:
            raise ConfigError(
                f"eval.suites.completions.max_length: got {room}, "
                f"but the completion of '{record.identifier}' has {len(answer)} tokens"
            )
        prompt = cut_prompt(prompt, room=room - len(answer), prefix=prefix_token(tokenizer))
        is_answer = [False] * len(prompt) + [True] * len(answer)
        return prompt + answer, [False, *is_answer[1:]]

    def _scores(self, model: Any, rows: list[tuple[list[int], list[bool]]]) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Scores of each counted token, and the row it belongs to."""
        device, longest = next(model.parameters()).device, max(len(ids) for ids, _ in rows)
        ids_BT = torch.zeros(len(rows), longest, dtype=torch.int64)
        is_counted_BT = torch.zeros(len(rows), longest, dtype=torch.bool)
        mask_BT = torch.zeros(len(rows), longest, dtype=torch.int64)
        for row, (ids, is_counted) in enumerate(rows):
            ids_BT[row, : len(ids)] = torch.tensor(ids)
            mask_BT[row, : len(ids)] = 1
            is_counted_BT[row, : len(ids)] = torch.tensor(is_counted)
        batch = {
            "input_ids": ids_BT.to(device),
            "attention_mask": mask_BT.to(device),
            "position_ids": torch.arange(longest, device=device).expand(len(rows), longest),
        }
        predicts_BT = is_counted_BT[:, 1:]
        hidden_ND = hidden_states(model, batch)[:, :-1][predicts_BT.to(device)]
        targets_N = ids_BT[:, 1:][predicts_BT].to(device)
        parts: dict[str, list[np.ndarray]] = {}
        for start in range(0, len(targets_N), CHUNK_TOKENS):
            span = slice(start, start + CHUNK_TOKENS)
            logits_NV = project(model, hidden_ND[span])
            for name, values in token_scores(logits_NV, targets_N[span]).items():
                parts.setdefault(name, []).append(values)
        row_of_N = torch.arange(len(rows))[:, None].expand_as(predicts_BT)[predicts_BT].numpy()
        return {name: np.concatenate(values) for name, values in parts.items()}, row_of_N

    def _result(
        self, parts: Sequence[tuple[dict[str, np.ndarray], np.ndarray]], records: Sequence[Record]
    ) -> SuiteResult:
        means = {
            name: TokenMean(name, num_items=len(records), evaluation=self.run.eval if name in PER_RECORD else None)
            for name in parts[0][0]
            if name != "confidence"
        }
        calibration = Confidence({"ece": ece_mass})
        for scores, item_N in parts:
            calibration.update(scores["confidence"], scores["acc"])
            for name, mean in means.items():
                mean.update(scores[name], item_N)
        _, sizes = means["nll"].sums()
        sums = {name: means[name].sums()[0] for name in PER_RECORD if name in means}
        result = SuiteResult(
            predictions=[
                {"id": record.identifier, "tokens": int(sizes[row]), **{name: float(sums[name][row]) for name in sums}}
                for row, record in enumerate(records)
            ],
            signatures={"completions": f"rows:{len(records)}|tokens:{int(sizes.sum())}|style:{self.run.prompt_style}"},
        )
        for mean in means.values():
            result.add(*mean.compute())
        result.metrics["ppl"] = math.exp(result.metrics["nll"])
        nll = result.details["nll"]
        low, high = (None if end is None else math.exp(end) for end in (nll.low, nll.high))
        result.details["ppl"] = MetricDetail(n=nll.n, low=low, high=high)
        result.add(*calibration.compute())
        return result


def token_scores(logits_NV: Tensor, targets_N: Tensor) -> dict[str, np.ndarray]:
    """Scores of N tokens, float64 [N] each; `log_probs` [N, V] too for a small vocabulary, else [N, 0]."""
    vocab_size = logits_NV.shape[-1]
    log_probs_NV = logits_NV.log_softmax(-1)
    probs_NV = log_probs_NV.exp()
    top = probs_NV.max(-1)
    centred_NV = logits_NV - logits_NV.mean(-1, keepdim=True)
    variance_N = centred_NV.square().mean(-1)
    scores = {
        "nll": -log_probs_NV.gather(1, targets_N[:, None])[:, 0],
        "acc": (top.indices == targets_N).float(),
        "confidence": top.values.clamp(0, 1),
        "entropy": -(probs_NV * log_probs_NV).sum(-1),
        "logit_var": variance_N,
        "logit_kurtosis": centred_NV.pow(4).mean(-1) / variance_N.square(),
    }
    if vocab_size <= MAX_SORTED:
        mass_NV = probs_NV.sort(-1, descending=True).values.cumsum(-1)
        scores |= {f"topp/{p}": ((mass_NV < p).sum(-1) + 1).float() for p in TOP_PS}
    arrays = {name: values.double().cpu().numpy() for name, values in scores.items()}
    arrays["log_probs"] = (log_probs_NV if vocab_size <= MAX_KEPT else log_probs_NV[:, :0]).double().cpu().numpy()
    return arrays


def truth_of(record: Record, tokenizer: Any) -> np.ndarray | None:
    """The true distribution of each completion token over the model's vocabulary, [N, V]; None where it is unknown."""
    if "next_probs" not in record.meta:
        return None
    pieces: Sequence[str] = record.meta["symbols"]
    ids = [tokenizer.encode(piece, add_special_tokens=False) if piece else [tokenizer.eos_token_id] for piece in pieces]
    if any(len(tokens) != 1 for tokens in ids):
        raise ConfigError("eval.suites: completions needs one token a symbol; set model.tokenizer.kind=byte")
    probs = np.zeros((len(record.meta["next_probs"]), len(tokenizer)))
    known = np.asarray(record.meta["next_probs"])
    # Symbols that an answer never has (topics) have probability 0 in the truth's own columns.
    probs[:, [tokens[0] for tokens in ids]] = known
    return probs


def kl_to_truth(log_probs_NV: np.ndarray, truth_NV: np.ndarray) -> np.ndarray:
    """KL(truth || model) of each token, in nats, [N]."""
    wanted = np.where(truth_NV > 0, truth_NV, 1.0)
    result: np.ndarray = (truth_NV * (np.log(wanted) - log_probs_NV[:, : truth_NV.shape[1]])).sum(1)
    return result
