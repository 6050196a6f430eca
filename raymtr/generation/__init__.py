"""MusicLM: audio from text. Tokenizers (parts), language-model stages, and sampling.

`quantizer` is the residual vector quantiser (RVQ). `codec` and `vocoder` are the codec trained
here, `semantic` the semantic tokens, `joint` the tokens of the joint embedding, `melody` those of
melodies. `hub_parts` wraps pretrained models. `parts` stores all of them in one folder.
`tokenize_tracks`, `token_store` and `token_report` tokenise a catalog. `transformer`, `stages`
and `frame_stage` are the language models. `sampling` and `musiclm` generate audio, and `sound_file`
writes it. Training is in raymtr.training.musiclm.
"""
