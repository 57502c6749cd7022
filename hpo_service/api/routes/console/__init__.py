"""The pages for people at `/`, what they load, and the stream that tells them to look again."""

from fastapi import APIRouter

from hpo_service.api.routes.console import assets, changes, promotions, start, studies, workers

router = APIRouter(include_in_schema=False)
for _module in (start, studies, workers, promotions, changes, assets):
    router.include_router(_module.router)
