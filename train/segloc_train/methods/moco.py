"""MoCo-v2 (arXiv 2003.04297) on the pasted boxes: the negatives are the last K keys, whatever their class.

Published: one embedding of the whole picture, shuffle-BN over GPUs. Here, as in all methods: RoIAlign on the
pasted box at every level, statistics in groups with permuted keys. Nothing is known of classes, so some negatives
show the query's own class.
"""

from collections.abc import Iterator

from segloc_train.contrast import info_nce
from segloc_train.data import View
from segloc_train.method import Contrast, Terms
from segloc_train.step import Group, Step


class Method(Contrast):
    """One queue."""

    def losses(self, step: Step) -> Iterator[Terms]:
        """The batch's keys enter the queue after the loss: a query's own key must not be among its negatives."""
        keys = step.keys(self.key)
        for group in step.groups(self.query):
            queries = self.query(self.query_view(group))
            negatives = self.store.keys, self.store.recent, self.temperature
            yield Terms.of(*info_nce(queries, keys[group.rows], *negatives), step)
        self.store.enqueue(keys, step.labels)

    def query_view(self, group: Group) -> View:
        """What the query encoder is shown."""
        return group.view
