"""PhantomRay: simulated dual-energy baggage scans, labelled as PIDray is and benign as SIXray's are."""

from segloc_synth.phantom.dataset import VERSION, default_phantom, write_phantom
from segloc_synth.phantom.physics import PIDRAY, PIDRAY_VIVID, SIXRAY, Scanner

__all__ = ["PIDRAY", "PIDRAY_VIVID", "SIXRAY", "VERSION", "Scanner", "default_phantom", "write_phantom"]
