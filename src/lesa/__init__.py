"""Recognise every label in a photo, also labels that no training photo carried."""

__version__ = "0.1.0"
