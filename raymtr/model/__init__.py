"""The two towers: what turns audio and words into vectors of one space."""
