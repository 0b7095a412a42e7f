"""The OpenAPI document against the running gateway: whatever it allows or forbids, it is true."""

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.routes.endpoints import DOCUMENTS, FORMS
from tests.e2e.started import StartedGateway

EXAMPLES = 60
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def operations(gateway: StartedGateway) -> list[Any]:
    document = schemathesis.openapi.from_url(f"{gateway.ready.base_url}/openapi.json")
    found: list[Any] = list(document.get_all_operations())
    return [operation.ok() for operation in found]


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_route_answers_as_the_document_says(
    gateway: StartedGateway, operations: list[Any], mode: GenerationMode
) -> None:
    assert {operation.path for operation in operations} >= {*DOCUMENTS, *FORMS}
    wrong = [fault for operation in operations for fault in faults(gateway, operation, mode)]
    assert wrong == []


def faults(gateway: StartedGateway, operation: Any, mode: GenerationMode) -> Iterator[str]:
    headers = {"authorization": f"Bearer {gateway.ready.api_key}"}

    @hypothesis.settings(
        max_examples=EXAMPLES,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        case.call_and_validate(headers=headers, checks=CHECKS, timeout=30)

    try:
        ask()
    except (AssertionError, BaseExceptionGroup) as failed:
        yield f"{operation.method.upper()} {operation.path}: {failed}"[:1500]
    except hypothesis.errors.Unsatisfiable:
        return  # a route without parameters cannot be asked wrongly
