"""Strongroom: compute together on things that none may hand over, and prove what happened."""

__version__ = "0.1.0"
