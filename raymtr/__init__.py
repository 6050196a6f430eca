"""raymtr finds music by words, at any scale.

Importing the package loads neither torch nor ray: the names below load what they need when they
are first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raymtr import metrics
    from raymtr.model.pretrained import load_model
    from raymtr.model.tagger import Tagger
    from raymtr.search.searcher import Searcher

__version__ = "0.1.0"
__all__ = ["Searcher", "Tagger", "__version__", "load_model", "metrics"]

_HOMES = {
    "load_model": ("raymtr.model.pretrained", "load_model"),
    "Tagger": ("raymtr.model.tagger", "Tagger"),
    "Searcher": ("raymtr.search.searcher", "Searcher"),
    "metrics": ("raymtr.metrics", None),
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'raymtr' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    loaded = importlib.import_module(module)
    return getattr(loaded, attribute) if attribute else loaded
