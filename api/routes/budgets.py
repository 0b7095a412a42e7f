"""/v1/budgets: made, listed, changed and deleted, with the master key."""

from typing import Any

from fastapi import APIRouter, Request, Response

from api.management import Management, actor_of, answer, moment, nothing, number, route_for
from api.schemas.bodies import BudgetBody, InPath, Limit, NewBudgetBody, Skip, Wanted
from api.schemas.management import documented
from shared.postgres.budgets import BudgetInfo, BudgetTerms


def router(management: Management, prefix: str) -> APIRouter:
    routes = APIRouter(
        prefix=f"{prefix}/budgets",
        tags=["budgets"],
        route_class=route_for(management, "master"),
        include_in_schema=prefix == "/v1",
    )
    budgets = management.budgets

    @routes.post("", **documented("create_budget", "Budget"))
    async def create_budget(request: Request, body: NewBudgetBody) -> Response:
        """Make a budget: a limit that each user and each key who has it spends on their own."""
        made = await budgets.create(terms_of(body), actor_of(request), tenant=body.tenant)
        return answer(document_of(made))

    @routes.get("", **documented("list_budgets", "BudgetList"))
    async def list_budgets(tenant: Wanted = None, skip: Skip = 0, limit: Limit = 100) -> Response:
        """All budgets, in the order they were made."""
        found = await budgets.list_budgets(tenant=tenant, skip=skip, limit=limit)
        return answer([document_of(budget) for budget in found])

    @routes.get("/{budget_id}", **documented("get_budget", "Budget", "404"))
    async def get_budget(budget_id: InPath) -> Response:
        """One budget."""
        return answer(document_of(await budgets.get(budget_id)))

    @routes.patch("/{budget_id}", **documented("update_budget", "Budget", "404"))
    async def update_budget(request: Request, budget_id: InPath, body: BudgetBody) -> Response:
        """Change a budget. Null, and what is absent, changes nothing; windows keep their end."""
        return answer(
            document_of(await budgets.update(budget_id, terms_of(body), actor_of(request)))
        )

    @routes.delete("/{budget_id}", **documented("delete_budget", None, "404"))
    async def delete_budget(request: Request, budget_id: InPath) -> Response:
        """Delete a budget. Those who had it are unlimited then."""
        await budgets.delete(budget_id, actor_of(request))
        return nothing()

    return routes


def terms_of(body: BudgetBody) -> BudgetTerms:
    return BudgetTerms(
        max_budget=body.max_budget,
        soft_budget=body.soft_budget,
        budget_duration_sec=body.budget_duration_sec,
    )


def document_of(budget: BudgetInfo) -> dict[str, Any]:
    return {
        "budget_id": str(budget.budget_id),
        "max_budget": number(budget.max_budget),
        "budget_duration_sec": budget.budget_duration_sec,
        "created_at": moment(budget.created_at),
        "updated_at": moment(budget.updated_at),
        "tenant": budget.tenant,
        "soft_budget": number(budget.soft_budget),
    }
