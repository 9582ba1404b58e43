"""PhantomRay: simulated dual-energy baggage scans, labelled as PIDray is and benign as SIXray's are."""

from segloc_synth.phantom.dataset import VERSION, default_phantom, write_phantom
from segloc_synth.phantom.physics import PIDRAY, SIXRAY, Scanner
from segloc_synth.phantom.scene import render_scan

__all__ = ["PIDRAY", "SIXRAY", "VERSION", "Scanner", "default_phantom", "render_scan", "write_phantom"]
