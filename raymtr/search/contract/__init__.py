"""The search contract: one request and one answer for Python, HTTP, MCP and the command line."""

from raymtr.search.contract.answer import Hit, SearchAnswer, SimilarArtists
from raymtr.search.contract.request import SearchRequest

__all__ = ["Hit", "SearchAnswer", "SearchRequest", "SimilarArtists"]
