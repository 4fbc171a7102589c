"""`assigner=llm`: a model looks at the profile of a question and says which region it is in; and all assigners by name.

It sees the question, the gold answer, each sample marked right or wrong with its uncertainty, and kappa, and replies
with one JSON label. The commonest of the votes counts; a question without any label falls back to the rule.
"""

from collections import Counter
from collections.abc import Sequence

from athlos.data.records import QuestionRecord
from athlos.data.regions import Assigned, Region
from athlos.generation.interface import Engine, Prompt, SamplingRule
from athlos.methods.kmkc.augment import json_object
from athlos.methods.kmkc.config import Assigner, KmkcConstructConfig
from athlos.methods.kmkc.regions import Law, Profile, acc_only, bounds, random_region, rule

VOTE_TOKENS = 24


def assigned(
    profiles: Sequence[Profile],
    law: Law | None,
    *,
    config: KmkcConstructConfig,
    seed: int,
    engine: Engine | None = None,
    records: Sequence[QuestionRecord] = (),
) -> tuple[list[Assigned], int]:
    """(each question with its region, in order; votes that could not be read). `llm` asks `engine` about `records`."""
    high, low = config.region.high, config.region.low
    u_lo, u_hi = bounds(profiles, law, high=high, low=low)
    votes: list[list[str]] = [[] for _ in profiles]
    if config.assigner is Assigner.llm:
        assert engine is not None
        votes = _votes(engine, records, profiles, number=config.num_votes, seed=seed)
    assignments = []
    for profile, labels in zip(profiles, votes, strict=True):
        read = Counter(label for label in labels if label)
        if config.assigner is Assigner.random:
            region = random_region(profile, seed=seed)
        elif config.assigner is Assigner.acc_only:
            region = acc_only(profile, high=high, low=low)
        elif read:
            region = Region(read.most_common(1)[0][0])
        else:
            region = rule(profile, u_lo=u_lo, u_hi=u_hi, high=high, low=low)
        assignments.append(
            Assigned(
                id=profile.id,
                region=region,
                assigner=config.assigner.value,
                acc=profile.acc,
                nats=profile.ubar,
                kappa=profile.kappa,
                omega=profile.omega,
                votes=labels,
            )
        )
    return assignments, sum(not label for labels in votes for label in labels)


def _votes(
    engine: Engine, records: Sequence[QuestionRecord], profiles: Sequence[Profile], *, number: int, seed: int
) -> list[list[str]]:
    """`number` labels a question; an empty one for a reply that names no region."""
    prompts = [
        Prompt(text=profile_prompt(record, profile), max_new_tokens=VOTE_TOKENS, seed=seed)
        for record, profile in zip(records, profiles, strict=True)
    ]
    replies = engine.generate(prompts, rule=SamplingRule(temperature=1.0), num_samples=number)
    return [[label_of(reply.text) for reply in of_question] for of_question in replies]


def profile_prompt(record: QuestionRecord, profile: Profile) -> str:
    rows = [
        f"{number}. {text or '(nothing)'} - {'right' if is_right else 'wrong'}, uncertainty {nats:.2f} nats"
        for number, (text, is_right, nats) in enumerate(
            zip(profile.texts, profile.right, profile.nats, strict=True), start=1
        )
    ]
    return (
        f"Question: {record.question}\nRight answer: {record.answers[0]}\n"
        f"Answers of a model:\n" + "\n".join(rows) + "\n"
        f"Share of its commonest answer: {profile.kappa:.2f}\n"
        "Is this knowledge mastered, confused or missing in the model? "
        'Reply with one JSON object: {"region": "mastered" | "confused" | "missing"}'
    )


def label_of(reply: str) -> str:
    """The region that a reply names; empty where it names none."""
    named = json_object(reply).get("region")
    return named if isinstance(named, str) and named in list(Region) else ""
