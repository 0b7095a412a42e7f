"""Every schema under its name in the OpenAPI document."""

from api.schemas.audio import TRANSCRIPTION, TRANSCRIPTION_REQUEST
from api.schemas.chat import CHAT_ANSWER, CHAT_CHUNK, CHAT_EVENT, CHAT_REQUEST, USAGE
from api.schemas.documents import (
    EMBEDDINGS_ANSWER,
    EMBEDDINGS_REQUEST,
    RERANK_ANSWER,
    RERANK_REQUEST,
)
from api.schemas.errors import ERROR, FAULT
from api.schemas.management import MANAGED
from api.schemas.models import HEALTH, MODEL, MODELS
from api.schemas.receipts import RECEIPTS
from api.schemas.scanner import SCANNED
from api.schemas.terms import Json
from api.schemas.usage import USAGE_ENTRIES, USAGE_ENTRY, USAGE_SUMMARY

SCHEMAS: dict[str, Json] = {
    "Error": ERROR,
    "Fault": FAULT,
    "Usage": USAGE,
    "ChatRequest": CHAT_REQUEST,
    "ChatAnswer": CHAT_ANSWER,
    "Model": MODEL,
    "Models": MODELS,
    "Health": HEALTH,
    "EmbeddingsRequest": EMBEDDINGS_REQUEST,
    "EmbeddingsAnswer": EMBEDDINGS_ANSWER,
    "RerankRequest": RERANK_REQUEST,
    "RerankAnswer": RERANK_ANSWER,
    "ChatChunk": CHAT_CHUNK,
    "TranscriptionRequest": TRANSCRIPTION_REQUEST,
    "Transcription": TRANSCRIPTION,
    "ChatEvent": CHAT_EVENT,
    "UsageEntry": USAGE_ENTRY,
    "UsageEntries": USAGE_ENTRIES,
    "UsageSummary": USAGE_SUMMARY,
    **MANAGED,
    **SCANNED,
    **RECEIPTS,
}
