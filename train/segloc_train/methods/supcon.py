"""SupCon (arXiv 2004.11362, equation 2) with MoCo's queue: same-class keys among the last K attract.

Where segloc leaves keys of the query's class out of the negatives, this one pulls the query towards all of them.
Published: both views of a large batch, T 0.1; the authors' variant with a momentum encoder keeps a queue too. Their
code multiplies the loss by T / 0.07, which only scales the gradient. Here: the last K keys, the batch's own among
them, RoIAlign on the pasted box at every level, the temperature that all methods share, the loss as in the paper.
"""

from collections.abc import Iterator

from segloc_train.methods.common.contrast import sup_con
from segloc_train.methods.common.method import Contrast, Terms
from segloc_train.methods.common.step import Step


class Method(Contrast):
    """Attraction by class."""

    def losses(self, step: Step) -> Iterator[Terms]:
        """The batch's keys enter the queue before the loss, so a query's own key is one of its positives."""
        keys = step.keys(self.key)
        self.store.enqueue(keys, step.labels)
        store = self.store.keys, self.store.recent, self.store.slot_labels
        for group in step.groups(self.query):
            queries = self.query(group.view)
            scored = sup_con(queries, keys[group.rows], *store, group.labels, self.classes, self.temperature)
            yield Terms.of(*scored, step)
