"""Synthesis of image pairs: labelled objects, projected onto benign X-ray scans."""

import cv2

# Intel's routines round differently from OpenCV's own, so every process of a build must do alike; on pictures as small
# as these they gain nothing, and each call pays for asking.
cv2.ipp.setUseIPP(False)
