"""Find training labels to look at again (CoRSAI, section 4.2)."""

from .suspects import Ranked, SuspectsError, halves, rank

__all__ = ["Ranked", "SuspectsError", "halves", "rank"]
