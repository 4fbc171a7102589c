"""Schemas of NDP's parts."""

from athlos.config.registry import Part

PARTS: list[Part] = []
