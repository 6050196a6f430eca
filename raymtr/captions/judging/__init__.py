"""Captions are judged: against their tags, against people's, and as English."""
