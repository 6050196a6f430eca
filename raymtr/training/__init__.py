"""Contrastive training of the two towers."""
