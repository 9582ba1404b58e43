"""SegLoc (arXiv 2310.08421): instance contrast between two composites of a segment, negatives of other classes only.

MoCo-v2 on a detector's features: query and key are the same segment on two benign scans; RoIAlign takes the
pasted box at every pyramid level; the negatives of a query are the queue of its class, the last K keys whose
class is another one. It differs from the authors' published code where that departs from its own sources: the
momentum copy covers the attention, batch statistics do not give the positive away, the queues hold keys of the
whole global batch, and a batch's keys enter them before its loss.
"""

from collections.abc import Iterator

from segloc_train.methods.common.contrast import info_nce
from segloc_train.methods.common.method import Contrast, Terms
from segloc_train.methods.common.step import Step


class Method(Contrast):
    """One queue per class."""

    by_class = True

    def losses(self, step: Step) -> Iterator[Terms]:
        """The batch's keys enter the queues before the loss, not after it as in MoCo.

        There a query must not meet its own key as a negative; here it cannot, for the key is of its own class.
        Were all negatives older than the positive, short runs would learn to tell new keys from old ones, and
        nothing else.
        """
        keys = step.keys(self.key)
        self.store.enqueue(keys, step.labels)
        for group in step.groups(self.query):
            queries = self.query(group.view)
            negatives = self.store.keys, self.store.visible, self.temperature, group.labels
            yield Terms.of(*info_nce(queries, keys[group.rows], *negatives), step)
