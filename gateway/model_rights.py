"""Rights on the model that a path names: what administrators of some models need beside a scope."""

from __future__ import annotations

from fastapi import Request

from auth.grants import HIGHEST_VERSION, Action
from auth.scopes import Scope
from gateway.access import Asked
from gateway.admission import Caller
from gateway.dependencies import Require, parts
from model_store.catalog import not_found


class RequireOnModel(Require):
    """Lets a request in whose token has the scope, and whose client a grant for the action on the path's model.

    Any of `others` will do as well as the scope.
    Decided from memory, before anything asks SQL whether there is such a model: what is hidden and what is absent take
    the same way. Raises what `Require` does, and ModelNotFound (404).
    """

    def __init__(self, scope: Scope, action: Action, *others: Scope) -> None:
        super().__init__(scope, *others)
        self.action = action

    async def __call__(self, request: Request) -> Caller:
        caller = await super().__call__(request)
        self._check(request, caller)
        return caller

    def check_again(self, request: Request, caller: Caller) -> None:
        """For what takes long: whether the caller may still. Raises TokenInvalid, ScopeMissing, ModelNotFound."""
        renewed = parts(request).admission.renewed(caller)
        self.require(request, renewed)
        self._check(request, renewed)

    def _check(self, request: Request, caller: Caller) -> None:
        named = request.path_params
        version = number(named["version"]) if "version" in named else None
        asked = Asked(self.action, named["model"], version, named.get("label"))
        parts(request).admission.permit(caller, asked)


class RequireOnWholeModel(RequireOnModel):
    """The same, but a grant for one version is not enough: for what tells of a model's other versions."""

    def _check(self, request: Request, caller: Caller) -> None:
        now, model = parts(request).snapshot.now_ms(), request.path_params["model"]
        if caller.rights.rule(self.action, model, None, (), now) is None:
            raise not_found(model)


def number(version: str) -> int:
    """The version that a path means; 0, which is none, for what is no number of one.

    Never None, which is a question about the model as a whole: another spelling must not ask an easier question.
    """
    digits = version.isascii() and version.isdigit() and len(version) <= len(str(HIGHEST_VERSION))
    return int(version) if digits else 0


def spelt_as_number(version: object) -> object:
    """For routes: a version as it came, or 0 where rights were not asked about the number that it could be read as.

    A library reads `2.0`, `+2` and `0_2` as 2.
    """
    return number(version) if isinstance(version, str) else version
