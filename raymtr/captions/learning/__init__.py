"""Training of a captioner on pairs of tags and captions: pretraining, then LoRA."""
