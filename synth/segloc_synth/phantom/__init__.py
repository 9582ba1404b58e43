"""PhantomRay. In: a seed and a size. Out: simulated scans, labelled in PIDray's layout, benign ones in SIXray's."""

from segloc_synth.phantom.dataset import VERSION, default_phantom, write_phantom
from segloc_synth.phantom.physics import PIDRAY, PIDRAY_VIVID, SIXRAY, Scanner

__all__ = ["PIDRAY", "PIDRAY_VIVID", "SIXRAY", "VERSION", "Scanner", "default_phantom", "write_phantom"]
