"""Questions of several steps with a known graph of sub-questions, in splits that share no composition.

A *joint* is two facts of which the second begins where the first ends. Each joint belongs to one split, so that no test
chain, no part of one, and no path of answers is ever composed in training, while each of its facts is told often.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import NamedTuple

from athlos.config.fields import at_least, wrong_values
from athlos.errors import ConfigError, ConfigErrors
from athlos.lab.facts import Claim, Fact, QuestionWording, comparison_question, question
from athlos.lab.grammar import Clause, NounPhrase
from athlos.lab.world import Exposure, World

MIN_HOPS, MAX_HOPS = 2, 4
COMPARISON_HOPS = 2
YES, NO = "yes", "no"

Joint = tuple[Fact, Fact]
Chain = tuple[Fact, ...]


class Split(StrEnum):
    """A chain's joints are of one split."""

    test = "test"
    dev = "dev"
    train = "train"


class Form(StrEnum):
    """Shape of the graph of sub-questions."""

    linear = "linear"
    """One sub-question after the other."""
    comparison = "comparison"
    """Two branches of two steps each and a node that asks whether they end in the same place."""


@dataclass(kw_only=True)
class ChainConfig:
    """How many questions of each form and split."""

    seed: int = 0
    """Seed of the choice of chains, >= 0; the facts come from the world's seed."""
    num_train: list[int] = at_least(0, default=lambda: [300, 200, 100])
    """Linear chains of 2, 3 and 4 relations for training."""
    num_dev: list[int] = at_least(0, default=lambda: [20, 20, 20])
    """Linear chains of 2, 3 and 4 relations for choosing settings."""
    num_test: list[int] = at_least(0, default=lambda: [60, 60, 60])
    """Linear chains of 2, 3 and 4 relations for testing."""
    num_train_comparisons: int = at_least(0, default=60)
    """Comparisons for training; half of them are answered by yes."""
    num_dev_comparisons: int = at_least(0, default=10)
    """Comparisons for choosing settings."""
    num_test_comparisons: int = at_least(0, default=30)
    """Comparisons for testing."""

    def num_linear(self, split: Split) -> list[int]:
        return {Split.train: self.num_train, Split.dev: self.num_dev, Split.test: self.num_test}[split]

    def num_comparisons(self, split: Split) -> int:
        return {
            Split.train: self.num_train_comparisons,
            Split.dev: self.num_dev_comparisons,
            Split.test: self.num_test_comparisons,
        }[split]


class Node(NamedTuple):
    """One sub-question. Arguments are names, or 1-based numbers of the nodes whose answers they stand for."""

    number: int
    relation: str
    """Relation asked for; empty for the node that compares its two arguments."""
    arguments: tuple[str | int, ...]
    answer: str
    """A name, `yes` or `no`."""
    fact: Fact | None
    """The fact that answers it; nothing for the node that compares."""

    @property
    def parents(self) -> tuple[int, ...]:
        return tuple(argument for argument in self.arguments if isinstance(argument, int))


@dataclass(frozen=True, kw_only=True)
class ChainQuestion:
    """A question of several steps."""

    identifier: str
    split: Split
    form: Form
    branches: tuple[Chain, ...]
    """One chain, or the two that are compared."""

    @property
    def facts(self) -> tuple[Fact, ...]:
        return tuple(fact for chain in self.branches for fact in chain)

    @property
    def num_hops(self) -> int:
        """Facts of the longest branch."""
        return max(map(len, self.branches))

    @property
    def claims(self) -> tuple[Claim, ...]:
        """Each branch as one claim, from its first subject to its last object."""
        return tuple(chain_claim(chain) for chain in self.branches)

    @property
    def answer(self) -> str:
        """The concept of the answer: a name, `yes` or `no`."""
        ends = [chain[-1].object for chain in self.branches]
        if self.form is Form.linear:
            return ends[0]
        return YES if ends[0] == ends[1] else NO

    @property
    def answer_phrase(self) -> NounPhrase:
        return NounPhrase(self.answer)

    def clause(self, wording: QuestionWording = QuestionWording.noun) -> Clause:
        """The whole question. A comparison has one wording only, whatever is asked for."""
        if self.form is Form.linear:
            return question(self.claims[0], wording)
        return comparison_question(*self.claims)

    def nodes(self) -> list[Node]:
        """The graph of sub-questions in an order of solution; the last node's answer is the answer."""
        nodes: list[Node] = []
        ends: list[int] = []
        for chain in self.branches:
            for index, fact in enumerate(chain):
                argument = len(nodes) if index else fact.subject
                nodes.append(Node(len(nodes) + 1, fact.relation, (argument,), fact.object, fact))
            ends.append(len(nodes))
        if self.form is Form.comparison:
            nodes.append(Node(len(nodes) + 1, "", tuple(ends), self.answer, None))
        return nodes

    def edges(self) -> list[tuple[int, int]]:
        """(parent, child) pairs of node numbers."""
        return [(parent, node.number) for node in self.nodes() for parent in node.parents]


def chain_claim(chain: Sequence[Fact]) -> Claim:
    return Claim(chain[0].subject, tuple(fact.relation for fact in chain), chain[-1].object)


def joints(chain: Sequence[Fact]) -> list[Joint]:
    """Pairs of consecutive facts."""
    return list(pairwise(chain))


def node_clause(node: Node, names: Sequence[str], *, wording: QuestionWording = QuestionWording.noun) -> Clause:
    """A sub-question with names for its arguments."""
    if node.relation:
        return question(Claim(names[0], (node.relation,), ""), wording)
    return comparison_question(Claim(names[0], (), ""), Claim(names[1], (), ""))


def node_text(world: World, node: Node, language: str, *, wording: QuestionWording = QuestionWording.noun) -> str:
    """A sub-question as text, with `#1` for the answer of node 1.

    The marks stand where a name would, so replacing `#1` by a name gives a sentence of the language.
    """
    stand_ins = [
        placeholder if isinstance(argument, int) else argument
        for argument, placeholder in zip(node.arguments, world.placeholders, strict=False)
    ]
    text = world.languages[language].render(node_clause(node, stand_ins, wording=wording))
    for argument, placeholder in zip(node.arguments, world.placeholders, strict=False):
        if isinstance(argument, int):
            text = text.replace(world.languages[language].phrase(NounPhrase(placeholder)), f"#{argument}")
    return text


def chain_questions(world: World, config: ChainConfig) -> dict[Split, list[ChainQuestion]]:
    """The questions of each split, made of background facts; raises `ConfigError` when the world has too few."""
    if errors := list(wrong_values(config, path="lab")):
        raise ConfigErrors(errors)
    for split in Split:
        if len(config.num_linear(split)) != MAX_HOPS - MIN_HOPS + 1:
            raise ConfigError(
                f"lab.num_{split}: got {config.num_linear(split)}, expected {MAX_HOPS - MIN_HOPS + 1} numbers, "
                f"for chains of {MIN_HOPS} to {MAX_HOPS} relations"
            )
    return _Dealer(world, config).deal()


class _Dealer:
    """Gives each joint to the first split that takes it. Long chains are the hardest to place and go first."""

    def __init__(self, world: World, config: ChainConfig) -> None:
        self.config = config
        self.rng = world.rng("chains", config.seed)
        self.owner: dict[Joint, Split] = {}
        self.chains = {hops: list(all_chains(world, hops)) for hops in range(MIN_HOPS, MAX_HOPS + 1)}

    def deal(self) -> dict[Split, list[ChainQuestion]]:
        questions: dict[Split, list[ChainQuestion]] = {split: [] for split in Split}
        for hops in range(MAX_HOPS, MIN_HOPS - 1, -1):
            candidates = self.chains[hops]
            self.rng.shuffle(candidates)
            for split in Split:
                chains = self._take(candidates, split, self.config.num_linear(split)[hops - MIN_HOPS], hops)
                questions[split] += [_linear(chain, split) for chain in chains]
        for split in Split:
            questions[split] += self._comparisons(split)
        return questions

    def _take(self, candidates: list[Chain], split: Split, wanted: int, hops: int) -> list[Chain]:
        taken: list[Chain] = []
        for chain in candidates:
            if len(taken) == wanted:
                break
            if self._may_own(chain, split):
                self._own(chain, split)
                taken.append(chain)
        if len(taken) < wanted:
            raise ConfigError(
                f"lab.num_{split}: got {wanted} chains of {hops} relations, expected at most {len(taken)} in this "
                "world; raise num_persons, or lower num_none, num_rare or num_frequent"
            )
        return taken

    def _own(self, chain: Chain, split: Split) -> None:
        self.owner.update(dict.fromkeys(joints(chain), split))

    def _may_own(self, chain: Chain, split: Split) -> bool:
        return all(self.owner.get(joint, split) is split for joint in joints(chain))

    def _comparisons(self, split: Split) -> list[ChainQuestion]:
        wanted = self.config.num_comparisons(split)
        questions: list[ChainQuestion] = []
        used: set[Chain] = set()
        for is_same, number in ((True, wanted // 2), (False, wanted - wanted // 2)):
            pairs = self._pairs(split, is_same=is_same, used=used)
            for _ in range(number):
                pair = next(pairs, None)
                if pair is None:
                    raise ConfigError(
                        f"lab.num_{split}_comparisons: got {wanted}, expected at most {len(questions)} in this world; "
                        "raise num_persons"
                    )
                questions.append(_comparison(pair, split))
        return questions

    def _pairs(self, split: Split, *, is_same: bool, used: set[Chain]) -> Iterator[tuple[Chain, Chain]]:
        """Chains of the same relations with different subjects; each chain is used once."""
        groups: dict[tuple[str, ...], list[Chain]] = defaultdict(list)
        for chain in self.chains[COMPARISON_HOPS]:
            groups[chain_claim(chain).relations].append(chain)
        order = sorted(groups)
        self.rng.shuffle(order)
        while order:
            for relations in list(order):
                pair = self._pair(groups[relations], split, is_same=is_same, used=used)
                if pair is None:
                    order.remove(relations)
                    continue
                for chain in pair:
                    used.add(chain)
                    self._own(chain, split)
                yield pair

    def _pair(
        self, chains: list[Chain], split: Split, *, is_same: bool, used: set[Chain]
    ) -> tuple[Chain, Chain] | None:
        free = [chain for chain in chains if chain not in used and self._may_own(chain, split)]
        for index, first in enumerate(free):
            for second in free[index + 1 :]:
                # Through the same middle, a yes would need one step only.
                if first[0].object != second[0].object and (first[-1].object == second[-1].object) is is_same:
                    return first, second
        return None


def all_chains(world: World, hops: int) -> Iterator[Chain]:
    """Chains of background facts that visit no name twice."""
    starting: dict[str, list[Fact]] = defaultdict(list)
    for fact in world.facts_told(Exposure.background):
        starting[fact.subject].append(fact)

    def longer(chain: Chain, visited: frozenset[str]) -> Iterator[Chain]:
        if len(chain) == hops:
            yield chain
            return
        for fact in starting[chain[-1].object]:
            if fact.object not in visited:
                yield from longer((*chain, fact), visited | {fact.object})

    for fact in world.facts_told(Exposure.background):
        yield from longer((fact,), frozenset((fact.subject, fact.object)))


def _linear(chain: Chain, split: Split) -> ChainQuestion:
    identifier = "-".join(["chain", chain[0].subject.lstrip("@"), *(fact.relation for fact in chain)])
    return ChainQuestion(identifier=identifier, split=split, form=Form.linear, branches=(chain,))


def _comparison(pair: tuple[Chain, Chain], split: Split) -> ChainQuestion:
    subjects = [chain[0].subject.lstrip("@") for chain in pair]
    identifier = "-".join(["compare", *subjects, *(fact.relation for fact in pair[0])])
    return ChainQuestion(identifier=identifier, split=split, form=Form.comparison, branches=pair)
