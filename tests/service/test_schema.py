"""The contract: whatever OpenAPI allows or forbids, no request ends as a fault of the service."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("schemathesis", reason="needs schemathesis, of the extra dev")

Serve = Callable[..., Any]
Record = Callable[..., Path]
TOKEN = "a-token-for-these-tests-alone"
METHODS = ("get", "post", "put", "patch", "delete")
# Started for real, an evolution takes minutes: every place is refused here, after all that is looked at before it.
NOWHERE = {"places": ("slurm",)}


def look_at_everything(live: Any, examples: int) -> int:
    """Generated requests to every operation; the number of those that were answered."""
    from requests import Session

    with Session() as session:
        return look_by(session, live, examples)


def look_by(session: Any, live: Any, examples: int) -> int:
    import schemathesis
    from hypothesis import HealthCheck, given, settings
    from hypothesis.errors import Unsatisfiable
    from requests.exceptions import InvalidHeader, UnrewindableBodyError
    from schemathesis.generation import GenerationMode

    asked = 0
    schema = schemathesis.openapi.from_dict(live.http.get("/openapi.json").json())
    schema.config.update(base_url=live.url)
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            strategy = operation.as_strategy(generation_mode=mode)

            @settings(
                max_examples=examples,
                database=None,
                suppress_health_check=list(HealthCheck),
                derandomize=True,
            )
            @given(case=strategy)
            def ask(case: Any) -> None:
                nonlocal asked
                with suppress(UnrewindableBodyError, InvalidHeader):  # what requests itself does not send
                    answer = case.call(base_url=live.url, session=session, timeout=60)
                    assert answer.status_code < 500, (case.method, case.path, answer.status_code)
                asked += 1

            with suppress(Unsatisfiable):  # as for a path without parameters
                ask()
    return asked


def test_no_request_that_the_schema_allows_or_forbids_is_a_fault_of_the_service(
    serve: Serve, record: Record
) -> None:
    record("night")
    live = serve(**NOWHERE, fits_waiting=3, fit_seconds=1.0)
    assert look_at_everything(live, 4) > 50


@pytest.mark.slow
def test_nor_is_one_of_very_many(serve: Serve, record: Record) -> None:
    record("night")
    live = serve(**NOWHERE, fits_waiting=3, fit_seconds=1.0)
    assert look_at_everything(live, 200) > 1500


def test_every_operation_says_what_it_does_with_examples_and_its_refusals(serve: Serve) -> None:
    schema = serve(token=TOKEN).http.get("/openapi.json").json()
    assert schema["security"] == [{"token": []}]
    operations = [
        (path, method, operation)
        for path, methods in schema["paths"].items()
        for method, operation in methods.items()
        if method in METHODS
    ]
    assert {path for path, _, _ in operations} >= {
        "/health",
        "/evolutions",
        "/anchors",
        "/evolutions/{run_id}/events",
    }
    for path, method, operation in operations:
        where = f"{method} {path}"
        assert operation["description"], where
        assert "404" in operation["responses"], where
        told = [
            content
            for each in operation["responses"].values()
            for content in each.get("content", {}).values()
        ]
        assert any("example" in content for content in told), where
        for kind in operation.get("requestBody", {}).get("content", {}).values():
            assert "example" in kind, where
        for parameter in operation.get("parameters", []):
            inside = parameter["schema"]
            named = "examples" in inside or "default" in inside or parameter["in"] == "header"
            assert named, f"{where}: {parameter['name']}"


def test_answers_and_examples_are_what_the_schema_says(serve: Serve, record: Record) -> None:
    import jsonschema

    record("night")
    live = serve()
    schema = live.http.get("/openapi.json").json()
    real = {
        "/health": "/health",
        "/ready": "/ready",
        "/choices": "/choices",
        "/evolutions": "/evolutions",
        "/evolutions/{run_id}": "/evolutions/night",
        "/evolutions/{run_id}/trials/{trial}": "/evolutions/night/trials/1",
    }
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            for response in operation["responses"].values():
                content = response.get("content", {}).get("application/json", {})
                if "example" not in content:
                    continue
                check = jsonschema.Draft202012Validator(
                    {**content["schema"], "components": schema["components"]}
                )
                check.validate(content["example"])
                if method == "get" and path in real and response is operation["responses"]["200"]:
                    check.validate(live.http.get(real[path]).json())
