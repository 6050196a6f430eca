"""Text embeddings in the format of OpenAI's API, including the quirks of its clients.

Clients send null for unset fields, and `dimensions` even if it equals the model's. Some send token
ids instead of texts. Their vocabulary is that of another model, so they cannot be decoded here and
are refused with an explanation.
"""

from __future__ import annotations

from base64 import b64encode
from datetime import datetime
from typing import Literal

import numpy as np
from fastapi import FastAPI
from fastapi.responses import JSONResponse
from typing_extensions import TypedDict

from serve.backend import backend, metrics_of, within_deadline
from serve.messages import EmbeddingsBody, Problem, ProblemError

MOST_INPUTS = 256
ALIAS = "raymtr"  # of the live model
NO_TOKENS = (
    "input is texts, not token ids, which differ from model to model; LangChain's client sends "
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
        embedded = await within_deadline(http, backend().embed(body.model or ALIAS, texts))
        rows = embedded.vectors.rows
        if body.dimensions not in (None, rows.shape[1]):
            raise _refused(f"dimensions cannot be chosen: this model has {rows.shape[1]}")
        metrics_of(http).encoded(embedded.vectors)
        base64 = body.encoding_format == "base64"
        data = [
            {"object": "embedding", "index": index, "embedding": _base64(row) if base64 else row}
            for index, row in enumerate(rows if base64 else rows.tolist())
        ]
        words = sum(len(text.split()) for text in texts)  # words, as an estimate of tokens
        usage = {"prompt_tokens": words, "total_tokens": words}
        answer = {"object": "list", "data": data, "model": embedded.model, "usage": usage}
        return JSONResponse(answer)

    @http.get("/v1/models")
    async def models() -> ServedModels:
        """The values of `model` for /v1/embeddings: two names of the live model."""
        return {"object": "list", "data": await served()}

    @http.get("/v1/models/{model}")
    async def one_model(model: str) -> ServedModel:
        for one in await served():
            if one["id"] == model:
                return one
        raise ProblemError(Problem(404, "unknown_model", f"no model {model!r:.100} here"))

    async def served() -> list[ServedModel]:
        state = await within_deadline(http, backend().state())
        if state["model"] is None:
            return []
        created = int(datetime.fromisoformat(state["built_at"]).timestamp())
        return [
            ServedModel(id=name, object="model", owned_by=ALIAS, created=created)
            for name in (ALIAS, state["model"])
        ]


def _texts(body: EmbeddingsBody) -> list[str]:
    inputs = [body.input] if isinstance(body.input, str) else body.input
    texts = [text for text in inputs if isinstance(text, str)]
    if len(texts) < len(inputs):
        raise _refused(NO_TOKENS)
    if not 1 <= len(texts) <= MOST_INPUTS or not all(text.strip() for text in texts):
        raise _refused(f"input is 1 to {MOST_INPUTS} non-empty texts")
    if body.encoding_format not in (None, "float", "base64"):
        raise _refused("encoding_format is float or base64")
    return texts


def _base64(row: np.ndarray) -> str:
    return b64encode(row.astype("<f4").tobytes()).decode()


def _refused(detail: str) -> ProblemError:
    return ProblemError(Problem(422, "invalid_request", detail))
