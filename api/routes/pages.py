"""The API's pages for people: `/docs` and `/redoc`, with nothing in them from another host."""

import importlib.resources

from fastapi import APIRouter
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from starlette.responses import FileResponse, HTMLResponse

from shared.errors import NotFound

OPENAPI = "/openapi.json"
FILES = "/docs/files"
MEDIA_TYPES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "redoc.standalone.js": "text/javascript",
    "favicon.png": "image/png",
}
"""Of every file that is served."""
# The pages begin with a line of script of their own. Nothing they load may lead elsewhere.
POLICY = {
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline';"
    " style-src 'self' 'unsafe-inline'; img-src 'self' data:; worker-src blob:"
}
_STATIC = importlib.resources.files("fastapi_offline") / "static"


def router(title: str) -> APIRouter:
    pages = APIRouter(include_in_schema=False)

    @pages.get("/docs")
    async def docs() -> HTMLResponse:
        page = get_swagger_ui_html(
            openapi_url=OPENAPI,
            title=title,
            swagger_js_url=f"{FILES}/swagger-ui-bundle.js",
            swagger_css_url=f"{FILES}/swagger-ui.css",
            swagger_favicon_url=f"{FILES}/favicon.png",
        )
        page.headers.update(POLICY)
        return page

    @pages.get("/redoc")
    async def redoc() -> HTMLResponse:
        page = get_redoc_html(
            openapi_url=OPENAPI,
            title=title,
            redoc_js_url=f"{FILES}/redoc.standalone.js",
            redoc_favicon_url=f"{FILES}/favicon.png",
            with_google_fonts=False,
        )
        page.headers.update(POLICY)
        return page

    @pages.get(FILES + "/{name}")
    async def file(name: str) -> FileResponse:
        if name not in MEDIA_TYPES:
            raise NotFound("Not Found", code="route_not_found")
        return FileResponse(str(_STATIC / name), media_type=MEDIA_TYPES[name])

    return pages
