"""What a part tells of its work."""

from dataclasses import dataclass, field


@dataclass(kw_only=True)
class PartReport:
    """What a surgery or selection did. `metrics` join the run's metrics, `summary` its start panel."""

    summary: str
    metrics: dict[str, float] = field(default_factory=dict)
