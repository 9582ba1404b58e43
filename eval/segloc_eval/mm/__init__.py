"""The only package that imports mmcv, mmdet and mmengine.

mmcv from PyPI has no compiled operators: stand-ins on torchvision's kernels are registered here, before
any of its modules is imported.
"""

from segloc_eval.mm.ext import install

install()
