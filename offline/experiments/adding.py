"""The last step of the jobs: the statistics of all buckets, added up to the same bits on every runner."""

from collections.abc import Iterable
from typing import Any

import apache_beam as beam

Node = tuple[int, int]  # level and number of a node of the tree of buckets; leaves are (0, bucket)


class AddUp(beam.CombineFn):  # type: ignore[misc]  # Beam is untyped here
    """Addable statistics of buckets, added along a fixed binary tree of bucket numbers.

    Rounding depends on the order of additions, and a runner adds in any. Only siblings are added, whenever both are
    there, so the same log gives the same bits on every runner, and an accumulator stays small.
    """

    def create_accumulator(self) -> dict[Node, Any]:
        return {}

    def add_input(self, nodes: dict[Node, Any], leaf: tuple[Node, Any]) -> dict[Node, Any]:
        return self.merge_accumulators([nodes, dict([leaf])])

    def merge_accumulators(self, accumulators: Iterable[dict[Node, Any]]) -> dict[Node, Any]:
        merged: dict[Node, Any] = {}
        for nodes in accumulators:
            for node, value in nodes.items():
                _insert(merged, node, value)
        return merged

    def extract_output(self, nodes: dict[Node, Any]) -> Any:
        total, *rest = [nodes[node] for node in sorted(nodes, key=lambda node: (-node[0], node[1]))]
        for value in rest:
            total = total + value
        return total


def _insert(nodes: dict[Node, Any], node: Node, value: Any) -> None:
    while (sibling := (node[0], node[1] ^ 1)) in nodes:
        other = nodes.pop(sibling)
        value = value + other if node < sibling else other + value
        node = (node[0] + 1, node[1] // 2)
    nodes[node] = value
