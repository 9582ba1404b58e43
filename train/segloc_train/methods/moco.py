"""MoCo-v2 (arXiv 2003.04297) on the pasted boxes: the negatives are the last K keys, whatever their class.

Published: one embedding of the whole picture, shuffle-BN over GPUs. Here, as in all methods: RoIAlign on the
pasted box at every level, statistics in groups with permuted keys; and the batch's keys enter the queue before the
loss, a query's own key being left out, so that not all negatives are older than the positive. Nothing is known of
classes, so some negatives show the query's own class.
"""

from collections.abc import Iterator

from segloc_train.data.data import View
from segloc_train.methods.common.contrast import info_nce
from segloc_train.methods.common.method import Contrast, Terms
from segloc_train.methods.common.step import Group, Step


class Method(Contrast):
    """One queue."""

    def losses(self, step: Step) -> Iterator[Terms]:
        """The batch's keys enter the queue before the loss; why, tells segloc."""
        keys = step.keys(self.key)
        slots = self.store.enqueue(keys, step.labels)
        for group in step.groups(self.query):
            queries = self.query(self.query_view(group))
            negatives = self.negatives(self.store, slots, group)
            yield Terms.of(*info_nce(queries, keys[group.rows], *negatives), step)

    def query_view(self, group: Group) -> View:
        """What the query encoder is shown."""
        return group.view
