"""MusicLM: sound from words. Parts that make tokens, three stages over them, and sampling.

`quantizer` turns vectors into tokens. `codec` and `vocoder` are the codec trained here, `semantic`
the coarse tokens of what is played, `joint` the tokens of the two towers, `hub_parts` the choices
from a hub; `parts` keeps them in one folder. `tokenize_tracks`, `token_store` and `token_report`
tokenise a catalog. `transformer` and `stages` are the network, `sampling` and `musiclm` make sound,
and `sound_file` writes it. Training is in raymtr.training.musiclm.
"""
