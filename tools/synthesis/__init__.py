"""Synthetic lesions in real lungs: more patients, and densities that the collections lack."""

from .lesions import DISEASES, insert_lesions

__all__ = ["DISEASES", "insert_lesions"]
