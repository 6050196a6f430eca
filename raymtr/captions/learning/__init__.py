"""A captioner learns from pairs of tags and captions: pretraining, then LoRA."""
