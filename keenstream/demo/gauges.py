"""What the workers say of themselves: their /metrics, summed over all of them."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

import httpx
from prometheus_client.parser import text_string_to_metric_families

from keenstream.stack.loop import GROUPS, metrics_variable

Labels = frozenset[tuple[str, str]]


class Gauges:
    """One reading of all workers. Absent metrics are 0."""

    def __init__(self, samples: Mapping[str, Mapping[Labels, float]]) -> None:
        self._samples = samples

    def total(self, name: str, **labels: str) -> float:
        """Sum of a metric over workers and over labels that are not named."""
        wanted = set(labels.items())
        return sum(value for found, value in self._samples.get(name, {}).items() if wanted <= found)

    def quantile(self, name: str, share: float, **labels: str) -> float:
        """The bucket bound of a histogram below which `share` of its observations lie (an upper bound); 0 if none."""
        buckets: dict[float, float] = defaultdict(float)
        wanted = set(labels.items())
        for found, value in self._samples.get(f"{name}_bucket", {}).items():
            if wanted <= found:
                buckets[float(dict(found)["le"])] += value
        count = max(buckets.values(), default=0.0)
        return next((bound for bound, seen in sorted(buckets.items()) if count and seen >= share * count), 0.0)


def read_gauges(environment: Mapping[str, str], timeout_seconds: float = 2.0) -> Gauges:
    """Ask every worker of the stack whose settings are `environment`; one that does not answer counts as nothing."""
    samples: dict[str, dict[Labels, float]] = defaultdict(lambda: defaultdict(float))
    for port in _ports(environment):
        try:
            text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=timeout_seconds).text
        except httpx.TransportError:
            continue
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                samples[sample.name][frozenset(sample.labels.items())] += sample.value
    return Gauges(samples)


def _ports(environment: Mapping[str, str]) -> Iterable[str]:
    return (environment[name] for worker in GROUPS if (name := metrics_variable(worker)) in environment)
