"""In: a recipe, weights and scans. Out: detectors, trained, and what they find. No other room imports mm libraries.

mmcv from PyPI has no compiled operators: stand-ins on torchvision's kernels are registered here, before
any of its modules is imported.
"""

from segloc_eval.mm.ext import install

install()
