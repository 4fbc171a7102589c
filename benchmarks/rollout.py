"""A whole policy step of Athlos against one of TRL's GRPOTrainer, in one process, steps of the two in turn.

    python benchmarks/rollout.py [--cases short long ends] [--steps N] [--prompts N] [--out FOLDER]

Both sides train a copy of one tiny Llama with random weights from the same prompts: the same number of prompts a step,
responses a prompt, longest response, temperature, rewards, optimizer and learning rate. A step is rollouts, rewards,
advantages, loss, backward pass, clipping and update; no KL term, loss averaged a response and then over responses.

    athlos    `sample_group`, `PolicyObjective`, AdamW
    trl       `GRPOTrainer` with transformers' generation; a step is timed from its own callbacks, so neither the
              trainer's start nor its end counts. Activation checkpointing, its default, is off: it would cost it time.

Cases: `short` prompts of about 40 tokens, `long` of 240; every reward differs, so that no response can be left out of
the update. `sparse` is `long` with a reward of 0 or 1 that few responses get, as in reinforcement learning with
verifiable rewards: groups of equal rewards have no gradient, which Athlos leaves out. `ends` has responses that end
early, by an end token of probability 1 in 16.

Rollouts alone are compared with `transformers.generate` too, greedy, which must give the same tokens.

Prints each case and ends in one JSON line: samples a second of both sides and their ratio, the median over rounds.
`--out` keeps it as a record that `athlos report` shows and `athlos claims` reads.
"""

import argparse
import copy
import json
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM
from transformers.utils import logging as transformers_logging
from trl import GRPOConfig, GRPOTrainer
from trl_side import BARE, CLIP, InTurn

from athlos.generation.kv_cache import padded_ids
from athlos.generation.rollouts import sample_group
from athlos.models.tokenizers import byte_tokenizer
from athlos.objectives.config import AdvantageStd, Denominator, PolicyConfig
from athlos.objectives.policy import PolicyObjective, group_advantages, policy_rows, step_denominator
from athlos.report.benchmark_record import ROUNDS, write_benchmark_record

END, PAD = 258, 256
GROUP, NEW_TOKENS = 8, 48
LENGTHS = {"short": 40, "long": 240, "sparse": 240, "ends": 240}
LR = 1e-4
SIZES = {
    "vocab_size": 259,
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 6,
    "max_position_embeddings": 512,
    "eos_token_id": END,
    "pad_token_id": PAD,
    "bos_token_id": 257,
}
"""1.9 M parameters."""


def base_model(*, ends: bool) -> LlamaForCausalLM:
    """Random weights; an end token has probability 1 in 16 where responses are to end early, else almost none."""
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=False)).eval()
    model.generation_config = GenerationConfig(eos_token_id=END, pad_token_id=PAD, bos_token_id=257)
    # The final norm's output has mean square 1: a constant direction in it makes a bias of the end token.
    with torch.no_grad():
        model.lm_head.weight.normal_(std=0.02)
        model.lm_head.weight[PAD:] = -0.02
        bias = 3.2 if ends else -9.0
        model.lm_head = _Biased(model.lm_head, bias)
    return model


class _Biased(torch.nn.Linear):
    """The output layer with a bias on the end token, so that responses end at a chosen rate."""

    def __init__(self, head: torch.nn.Linear, bias: float) -> None:
        super().__init__(head.in_features, head.out_features, bias=True)
        self.weight = head.weight
        with torch.no_grad():
            self.bias.zero_()
            self.bias[END] = bias
        self.bias.requires_grad_(False)


def prompts_of(case: str, *, count: int) -> list[str]:
    rng = random.Random(0)
    length = LENGTHS[case]
    return ["".join(rng.choices("abcdefghij ", k=length - rng.randint(0, length // 5))) for _ in range(count)]


def reward_of(case: str) -> Callable[[str], float]:
    """A number from a response's text; `sparse` gives 1 to one response in twenty or so."""
    if case == "sparse":
        return lambda text: float(hash_of(text) % 20 == 0)
    return lambda text: hash_of(text) % 1009 / 1009


def hash_of(text: str) -> int:
    return sum((place + 1) * ord(character) for place, character in enumerate(text))


class AthlosSide:
    """One step a call."""

    def __init__(self, model: LlamaForCausalLM, prompts: Sequence[str], *, case: str, num_prompts: int) -> None:
        self.model, self.prompts, self.reward, self.num_prompts = model, prompts, reward_of(case), num_prompts
        self.tokenizer = byte_tokenizer()
        self.objective = PolicyObjective(
            PolicyConfig(
                _target_="",
                group_size=GROUP,
                temperature=1.0,
                max_new_tokens=NEW_TOKENS,
                adv_std=AdvantageStd["sample"],
                clip_low=0.2,
                clip_high=0.2,
                denominator=Denominator.sequence,
                kl=0.0,
            )
        )
        trains = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(trains, lr=LR)
        self.generator = torch.Generator().manual_seed(0)
        self.step = self.num_tokens = 0
        self.parts: dict[str, float] = {}

    def __call__(self) -> float:
        """Seconds of a step."""
        start = time.perf_counter()
        first = self.step * self.num_prompts
        chosen = [self.prompts[(first + index) % len(self.prompts)] for index in range(self.num_prompts)]
        rollouts = sample_group(
            self.model,
            self.tokenizer,
            chosen,
            group_size=GROUP,
            max_new_tokens=NEW_TOKENS,
            temperature=1.0,
            generator=self.generator,
        )
        sampled = time.perf_counter()
        rewards_PG = torch.tensor([self.reward(text) for text in rollouts.texts]).view(-1, GROUP)
        advantages_PG = group_advantages(rewards_PG, std=AdvantageStd["sample"])
        rows = policy_rows(rollouts, advantages_PG.flatten(), pad_id=PAD)
        active = self.objective.is_active(rows.advantages_B).nonzero()[:, 0].tolist()
        count = step_denominator(rewards_PG.numel(), rollouts.num_tokens, denominator=Denominator.sequence)
        self.model.train()
        loss = self.objective.loss(self.model, rows.batch(active, step_targets=count))
        self.optimizer.zero_grad(set_to_none=True)
        (loss.total / count).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        self.optimizer.step()
        end = time.perf_counter()
        self.step += 1
        self.num_tokens += rollouts.num_tokens
        self.parts = {"rollouts": sampled - start, "update": end - sampled}
        return end - start


def trl_trainer(model: Any, prompts: Sequence[str], *, case: str, num_prompts: int, steps: int, folder: str) -> Any:
    reward = reward_of(case)

    def rewards(completions: list[str], **_: Any) -> list[float]:
        return [reward(text) for text in completions]

    config = GRPOConfig(
        output_dir=folder,
        per_device_train_batch_size=num_prompts * GROUP,
        num_generations=GROUP,
        max_completion_length=NEW_TOKENS,
        temperature=1.0,
        beta=0.0,
        loss_type="grpo",
        epsilon=0.2,
        num_iterations=1,
        learning_rate=LR,
        max_steps=steps,
        bf16=False,
        logging_steps=10_000,
        shuffle_dataset=False,
        **BARE,
    )
    tokenizer = byte_tokenizer()
    tokenizer.padding_side = "left"
    return GRPOTrainer(
        model=model,
        reward_funcs=rewards,
        args=config,
        processing_class=tokenizer,
        train_dataset=Dataset.from_dict({"prompt": list(prompts)}),
    )


def whole_steps(case: str, *, num_prompts: int, steps: int) -> dict[str, Any]:
    prompts = prompts_of(case, count=num_prompts * (steps + 1))
    model = base_model(ends=case == "ends")
    athlos = AthlosSide(copy.deepcopy(model), prompts, case=case, num_prompts=num_prompts)
    turns = InTurn(athlos)
    with tempfile.TemporaryDirectory() as folder:
        trainer = trl_trainer(model, prompts, case=case, num_prompts=num_prompts, steps=steps + 1, folder=folder)
        trainer.add_callback(turns)
        trainer.train()
    samples = num_prompts * GROUP
    ratios = [other / own for other, own in zip(turns.trl_s[1:], turns.athlos_s[1:], strict=True)]
    result = {
        "prompt_tokens": LENGTHS[case],
        "samples": samples,
        "athlos_samples_per_s": round(samples / statistics.median(turns.athlos_s[1:]), 2),
        "trl_samples_per_s": round(samples / statistics.median(turns.trl_s[1:]), 2),
        "athlos_over_trl": round(statistics.median(ratios), 3),
        "athlos_tokens_a_sample": round(athlos.num_tokens / (samples * athlos.step), 1),
        "last_step_s": {name: round(seconds, 4) for name, seconds in athlos.parts.items()},
        ROUNDS: {"athlos_over_trl": [round(ratio, 4) for ratio in ratios]},
    }
    print(
        f"step  {case:<8} athlos {result['athlos_samples_per_s']:>8.1f}  trl {result['trl_samples_per_s']:>8.1f} "
        f"samples/s   x{result['athlos_over_trl']:.2f}   ({min(ratios):.2f} to {max(ratios):.2f})"
    )
    return result


@torch.inference_mode()
def by_transformers(model: LlamaForCausalLM, ids: list[list[int]]) -> torch.Tensor:
    width = max(map(len, ids))
    ids_BT = padded_ids([one for one in ids for _ in range(GROUP)], width=width, fill=-1, device=torch.device("cpu"))
    mask_BT = (ids_BT >= 0).long()
    found = model.generate(
        ids_BT.clamp(min=0), attention_mask=mask_BT, max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=PAD
    )
    assert isinstance(found, torch.Tensor)
    return found[:, width:]


def rollouts_alone(case: str, *, num_prompts: int, repeats: int) -> dict[str, Any]:
    """Greedy rollouts in samples a second; both must give the same tokens."""
    tokenizer, model = byte_tokenizer(), base_model(ends=case == "ends")
    prompts = prompts_of(case, count=num_prompts)
    ids = [tokenizer.encode(prompt) for prompt in prompts]
    seconds: dict[str, list[float]] = {"athlos": [], "transformers": []}
    for _ in range(repeats + 1):
        start = time.perf_counter()
        own = sample_group(
            model, tokenizer, prompts, group_size=GROUP, max_new_tokens=NEW_TOKENS, temperature=0.0, generator=None
        )
        seconds["athlos"].append(time.perf_counter() - start)
        start = time.perf_counter()
        theirs = by_transformers(model, ids)
        seconds["transformers"].append(time.perf_counter() - start)
    mask = own.response_mask.bool()
    if not torch.equal(own.response_ids[mask], theirs[:, : mask.shape[1]][mask]):
        raise SystemExit("greedy rollouts differ from transformers.generate")
    ratios = [b / a for a, b in zip(seconds["athlos"][1:], seconds["transformers"][1:], strict=True)]
    samples = num_prompts * GROUP
    result = {
        "samples": samples,
        "athlos_samples_per_s": round(samples / statistics.median(seconds["athlos"][1:]), 2),
        "transformers_samples_per_s": round(samples / statistics.median(seconds["transformers"][1:]), 2),
        "athlos_over_transformers": round(statistics.median(ratios), 3),
        ROUNDS: {"athlos_over_transformers": [round(ratio, 4) for ratio in ratios]},
    }
    print(
        f"roll  {case:<8} athlos {result['athlos_samples_per_s']:>8.1f}  generate "
        f"{result['transformers_samples_per_s']:>8.1f} samples/s   x{result['athlos_over_transformers']:.2f}"
    )
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(LENGTHS), default=list(LENGTHS))
    parser.add_argument("--steps", type=int, default=6, help="timed steps of each side")
    parser.add_argument("--prompts", type=int, default=4, help="prompts a step")
    parser.add_argument("--out", help="a new folder for the record")
    options = parser.parse_args(arguments)
    warnings.filterwarnings("ignore")
    transformers_logging.set_verbosity_error()
    results: dict[str, Any] = {
        "threads": torch.get_num_threads(),
        "group_size": GROUP,
        "new_tokens": NEW_TOKENS,
        "prompts": options.prompts,
        "parameters": sum(parameter.numel() for parameter in base_model(ends=False).parameters()),
    }
    for case in options.cases:
        results[f"step_{case}"] = whole_steps(case, num_prompts=options.prompts, steps=options.steps)
        if case != "sparse":
            results[f"rollouts_{case}"] = rollouts_alone(case, num_prompts=options.prompts, repeats=options.steps)
        sys.stdout.flush()
    if options.out:
        write_benchmark_record(Path(options.out), name="rollout", options=vars(options), results=results)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
