"""Genes, the genetic search over them, the trials it runs, and the journal that remembers them.

This room knows no detector: it is handed something to run and a space, and the face imports nothing but numpy.
"""

from evolve.journal import Journal, JournalError, RunState, TrialState, fold, read_journal
from evolve.search import (
    GeneticSearch,
    Search,
    SearchError,
    SearchSettings,
    Told,
    Trial,
    build_search,
    search_from_events,
)
from evolve.space import EvolveError, Gene, Space, SpaceError, Value

__all__ = [
    "EvolveError",
    "Gene",
    "GeneticSearch",
    "Journal",
    "JournalError",
    "RunState",
    "Search",
    "SearchError",
    "SearchSettings",
    "Space",
    "SpaceError",
    "Told",
    "Trial",
    "TrialState",
    "Value",
    "build_search",
    "fold",
    "read_journal",
    "search_from_events",
]
