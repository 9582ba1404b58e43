"""In: scans of one scanner. Out: its palette, colours read as material and attenuation and back."""
