"""Judging captions: against their tags, against captions by people, and as English."""
