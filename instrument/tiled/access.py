"""A second API key for Tiled's server, which may only read; Tiled has one key, or users with a database of their own.

No postponed annotations here: FastAPI reads them.
"""

import secrets
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request
from fastapi.security import SecurityScopes
from tiled.access_control.scopes import NO_SCOPES, PUBLIC_SCOPES, SINGLE_USER_SCOPES
from tiled.server import authentication
from tiled.server.settings import Settings, get_settings
from tiled.utils import SingleUserPrincipal

Key = Annotated[str | None, Depends(authentication.get_api_key)]
TiledSettings = Annotated[Settings, Depends(get_settings)]


def add_read_key(app: FastAPI, read: str) -> None:
    """Accept one more key, with what a public reader may do."""

    def is_key(given: str, key: str) -> bool:
        return secrets.compare_digest(given.encode(), key.encode())

    async def scopes(api_key: Key, settings: TiledSettings) -> Any:
        if api_key is None:
            return PUBLIC_SCOPES if settings.allow_anonymous_access else NO_SCOPES
        if is_key(api_key, settings.single_user_api_key):
            return SINGLE_USER_SCOPES
        return PUBLIC_SCOPES if is_key(api_key, read) else NO_SCOPES

    async def principal(
        request: Request,
        security_scopes: SecurityScopes,
        api_key: Key,
        settings: TiledSettings,
        _: Annotated[None, Depends(authentication.move_api_key)],
    ) -> None:
        if api_key is None:
            request.state.principal = None
        elif is_key(api_key, settings.single_user_api_key) or is_key(api_key, read):
            request.state.principal = SingleUserPrincipal
        else:
            headers = authentication.headers_for_401(request, security_scopes)
            raise HTTPException(401, "Invalid API key", headers)

    app.dependency_overrides[authentication.get_current_scopes] = scopes
    app.dependency_overrides[authentication.get_current_principal] = principal


def remember_dependencies() -> None:
    """Analyse what a route depends on once: FastAPI does it in each request where anything is overridden, as here."""
    from fastapi.dependencies import utils

    analyse = utils.get_dependant
    known: dict[tuple[Any, ...], Any] = {}

    def get_dependant(**keywords: Any) -> Any:
        key = tuple((name, tuple(value) if isinstance(value, list) else value) for name, value in keywords.items())
        if key not in known:
            known[key] = analyse(**keywords)
        return known[key]

    utils.get_dependant = get_dependant
