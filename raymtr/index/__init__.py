"""The searchable tables of a catalog: built, tuned, checked, published, changed and filtered."""
