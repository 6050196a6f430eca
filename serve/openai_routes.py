"""Text embeddings in the format of OpenAI's API, including the quirks of its clients.

Clients send null for unset fields and the dimensions they already know. Some send tokens instead of
texts. Those tokens belong to another vocabulary and cannot be decoded here, so they are refused
with an explanation.
"""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Literal

import numpy as np
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from typing_extensions import TypedDict

from serve.backend import ask, backend, metrics_of
from serve.messages import EmbeddingsBody, Problem, ProblemError

MOST_INPUTS = 256
OURS = "raymtr"  # alias of the live model
TOKENS = (
    "input is texts, not tokens, which other models number otherwise; LangChain's client sends "
    "texts with check_embedding_ctx_length=False"
)


class ServedModel(TypedDict):
    """A name of the live model, in OpenAI's form."""

    id: str
    object: Literal["model"]
    owned_by: str
    created: int  # seconds since 1970


class ServedModels(TypedDict):
    """The names of the live model."""

    object: Literal["list"]
    data: list[ServedModel]


def add_embeddings(http: FastAPI) -> None:
    """Adds the routes of OpenAI's format."""

    @http.post("/v1/embeddings")
    async def embeddings(body: EmbeddingsBody) -> JSONResponse:
        texts = _texts(body)
        made = await ask(http, backend().embed(body.model or OURS, texts))
        rows = made.vectors.rows
        if body.dimensions not in (None, rows.shape[1]):
            raise _refused(f"dimensions cannot be chosen: this model has {rows.shape[1]}")
        metrics_of(http).encoded(made.vectors)
        packed = body.encoding_format == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": _packed(row) if packed else row}
            for index, row in enumerate(rows if packed else rows.tolist())
        ]
        words = sum(len(text.split()) for text in texts)  # counts words in place of tokens
        usage = {"prompt_tokens": words, "total_tokens": words}
        answer = {"object": "list", "data": data, "model": made.model, "usage": usage}
        return JSONResponse(answer)

    @http.get("/v1/models")
    async def models() -> ServedModels:
        """Values of `model` for /v1/embeddings: the live model, by either of its names."""
        return {"object": "list", "data": await served()}

    @http.get("/v1/models/{model}")
    async def one_model(model: str) -> ServedModel:
        for one in await served():
            if one["id"] == model:
                return one
        raise ProblemError(Problem(404, "unknown_model", f"no model {model!r:.100} here"))

    async def served() -> list[ServedModel]:
        state = await ask(http, backend().state())
        if state["model"] is None:
            return []
        created = int(datetime.fromisoformat(state["built_at"]).timestamp())
        return [
            ServedModel(id=name, object="model", owned_by=OURS, created=created)
            for name in (OURS, state["model"])
        ]


def _texts(body: EmbeddingsBody) -> list[str]:
    given = [body.input] if isinstance(body.input, str) else body.input
    texts = [text for text in given if isinstance(text, str)]
    if len(texts) < len(given):
        raise _refused(TOKENS)
    if not 1 <= len(texts) <= MOST_INPUTS or not all(text.strip() for text in texts):
        raise _refused(f"input is 1 to {MOST_INPUTS} non-empty texts")
    if body.encoding_format not in (None, "float", "base64"):
        raise _refused("encoding_format is float or base64")
    return texts


def _packed(row: np.ndarray) -> str:
    return base64.b64encode(row.astype("<f4").tobytes()).decode()


def _refused(detail: str) -> ProblemError:
    return ProblemError(Problem(422, "invalid_request", detail))
