"""Where an answer leads: what of it another request needs, as OpenAPI's links."""

from api.schemas.terms import Json

HELLO: list[Json] = [{"role": "user", "content": "Hello."}]

FROM_MODELS: Json = {
    "model": {
        "description": "Any entry's `id` names it.",
        "operationId": "get_model",
        "parameters": {"model_id": "$response.body#/data/0/id"},
    },
}

FROM_MODEL: Json = {
    "chat": {
        "description": "A model that answers in text can be talked to by its `id`.",
        "operationId": "create_chat_completion",
        "requestBody": {"model": "$response.body#/id", "messages": HELLO},
    },
}

FROM_CHAT: Json = {
    "episode": {
        "description": "What belongs together goes on in the same episode.",
        "operationId": "create_chat_completion",
        "requestBody": {
            "model": "$request.body#/model",
            "messages": HELLO,
            "ollm::episode_id": "$response.body#/episode_id",
        },
    },
}
