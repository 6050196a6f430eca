"""The made catalog's parts: musical material, composition, sound, and invented people."""
