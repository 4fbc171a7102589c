"""Plans of shared keys: one word a layer, the layer that it reads, and `s` behind it for a sliding window.

The notation is LCKV's: "0_0_2_2" is cross-layer attention in pairs, "0s_1s_2_2" the shape of YOCO, "0_2_2_3" LCKV's.
"""

import re

from athlos.errors import SurgeryError

WORD = re.compile(r"(\d+)(s?)")


def parsed(plan: str, *, num_layers: int) -> list[tuple[int, bool]]:
    """(layer that is read, has a window) of each layer. Raises `SurgeryError` for a plan that is no such list."""
    words = [WORD.fullmatch(word) for word in plan.split("_")]
    if not all(words):
        raise SurgeryError(f"surgery.plan: got '{plan}', expected words like 3 or 3s between underscores")
    found = [(int(word[1]), bool(word[2])) for word in words if word]
    if len(found) != num_layers:
        raise SurgeryError(f"surgery.plan: '{plan}' names {len(found)} layers, the decoder has {num_layers}")
    for index, (owner, _) in enumerate(found):
        if owner >= num_layers or found[owner][0] != owner:
            raise SurgeryError(f"surgery.plan: layer {index} reads layer {owner}, which has no keys of its own")
    if found[0][0] != 0:
        raise SurgeryError("surgery.plan: layer 0 must have its own keys; caches are measured by its length")
    return found


def cla_plan(num_layers: int, *, group: int) -> str:
    """Each group of layers reads the keys of its first."""
    return "_".join(str(index // group * group) for index in range(num_layers))


def lckv_plan(num_layers: int) -> str:
    """All read the last layer but one, but the first and the last, which keep their own."""
    if num_layers < 3:
        raise SurgeryError(f"surgery=lckv: needs at least 3 layers, the decoder has {num_layers}")
    return "_".join(["0", *[str(num_layers - 2)] * (num_layers - 2), str(num_layers - 1)])


def yoco_plan(num_layers: int) -> str:
    """The lower half has keys of its own and a window; the upper half reads those of its first layer."""
    middle = num_layers // 2
    return "_".join([*(f"{index}s" for index in range(middle)), *[str(middle)] * (num_layers - middle)])
