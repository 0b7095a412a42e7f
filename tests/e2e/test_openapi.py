"""The OpenAPI document against the running gateway: whatever it allows or forbids, it is true."""

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from hypothesis.stateful import run_state_machine_as_test
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.routes.endpoints import DOCUMENTS, FORMS
from tests.e2e.started import StartedGateway

EXAMPLES = 25
"""Of each route and method; there are about forty."""
EXAMPLES_AT_FULL_SIZE = 60
SCENARIOS = 60
STEPS = 6
"""Of a scenario: requests, each but the first led to by an earlier answer."""
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def settings(examples: int, *, steps: int = 1) -> hypothesis.settings:
    """The same requests each time, and none repeated to find a smaller one."""
    return hypothesis.settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )


@pytest.fixture(scope="module")
def document(gateway: StartedGateway) -> Any:
    return schemathesis.openapi.from_url(f"{gateway.ready.base_url}/openapi.json")


@pytest.fixture(scope="module")
def operations(document: Any) -> list[Any]:
    found: list[Any] = list(document.get_all_operations())
    return [operation.ok() for operation in found]


@pytest.mark.parametrize(
    "examples", [EXAMPLES, pytest.param(EXAMPLES_AT_FULL_SIZE, marks=pytest.mark.torture)]
)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_route_answers_as_the_document_says(
    gateway: StartedGateway, operations: list[Any], mode: GenerationMode, examples: int
) -> None:
    assert {operation.path for operation in operations} >= {*DOCUMENTS, *FORMS}
    wrong = [
        fault for operation in operations for fault in faults(gateway, operation, mode, examples)
    ]
    assert wrong == []


def test_every_link_leads_where_the_document_says(gateway: StartedGateway, document: Any) -> None:
    led: set[tuple[str, str]] = set()
    wanted = links(document.raw_schema)
    # Only where links lead: among all routes the way along them would be found by chance.
    linked = document.include(path=sorted({end.split()[1] for link in wanted for end in link}))

    class Client(linked.as_state_machine()):  # type: ignore[misc]
        """Goes from answer to answer by the links, rightly and wrongly."""

        def get_call_kwargs(self, case: Any) -> dict[str, Any]:
            return {"headers": headers_for(gateway, case.operation), "timeout": 30}

        def validate_response(self, response: Any, case: Any, **_others: Any) -> None:
            headers = headers_for(gateway, case.operation)
            case.validate_response(response, checks=CHECKS, headers=headers)
            before = self.recorder.find_parent(case_id=case.id)
            if before is not None and response.status_code == 200:
                led.add((before.operation.label, case.operation.label))

    run_state_machine_as_test(Client, settings=settings(SCENARIOS, steps=STEPS))
    assert led == wanted


def headers_for(gateway: StartedGateway, operation: Any) -> dict[str, str]:
    """The key that the document asks for."""
    is_master = {"master": []} in operation.definition.raw.get("security", ())
    key = gateway.ready.master_key if is_master else gateway.ready.api_key
    return {"authorization": f"Bearer {key}"}


def links(document: dict[str, Any]) -> set[tuple[str, str]]:
    """From which operation to which: every link there is."""
    operations = {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    labels = {operation["operationId"]: label for label, operation in operations.items()}
    return {
        (label, labels[link["operationId"]])
        for label, operation in operations.items()
        for response in operation["responses"].values()
        for link in response.get("links", {}).values()
    }


def faults(
    gateway: StartedGateway, operation: Any, mode: GenerationMode, examples: int
) -> Iterator[str]:
    headers = headers_for(gateway, operation)

    @settings(examples)
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        case.call_and_validate(headers=headers, checks=CHECKS, timeout=30)

    try:
        ask()
    except (AssertionError, BaseExceptionGroup) as failed:
        yield f"{operation.method.upper()} {operation.path}: {failed}"[:1500]
    except hypothesis.errors.Unsatisfiable:
        return  # a route without parameters cannot be asked wrongly
