"""A node in, the ways out that messages may take from it in its chain."""

from __future__ import annotations

from pipeline.route.node import THEN, Link, Node

OTHERWISE = "otherwise"


def links_of(node: Node) -> list[Link]:
    """Return the outlets that are named, and `then` and `otherwise` in any case.

    An outlet of another name that is not named in the chain is not taken: its messages leave by
    `then` or `otherwise`, or fail the node.
    """
    always = (THEN, OTHERWISE)
    return [link for link in node.links() if link.target is not None or link.outlet in always]
