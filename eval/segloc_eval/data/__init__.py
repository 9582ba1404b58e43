"""Labelled data of any layout, checked, and cut into label sets."""
