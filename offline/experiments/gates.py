"""When an off-policy figure may be shown at all (experiments.md, trap 19)."""

import msgspec


class Gates(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What must hold before any figure is shown."""

    min_effective_rows: float = 1_000.0
    max_weight_share: float = 0.05  # of one row in the sum of all weights
    mean_weight_errors: float = 3.0  # standard errors between the mean weight and 1: support is missing otherwise
