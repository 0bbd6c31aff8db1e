"""Access: what a client's rights say to one request, as a decision and as its explanation; all from memory.

Admission and the explanation ask the same functions, so that they cannot differ. Permission comes before existence:
what no grant covers is answered exactly as what does not exist, and by the same steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from auth.grants import Action, GrantSpec, moment
from auth.rights import ClientRights
from auth.scopes import Scope
from gateway.spreads import Spread, of_client
from model_store.catalog import Catalog, CatalogModel, CatalogVersion, label_not_found, not_found
from model_store.errors import SluiceError
from model_store.job_policies import NO_POLICY, JobPolicy
from model_store.traffic import CLIENT, Split, chosen
from model_store.traffic_picture import Watch

# Any of an action's scopes will do, as any of a route's.
SCOPES: dict[Action, tuple[Scope, ...]] = {
    Action.PREDICT: (Scope.PREDICT,),
    Action.SUBMIT: (Scope.PREDICT,),
    Action.METADATA: (Scope.MODELS_READ, Scope.PREDICT),
    Action.UPLOAD: (Scope.MODELS_WRITE,),
    Action.LABEL: (Scope.MODELS_WRITE,),
    Action.RETIRE: (Scope.MODELS_WRITE,),
}
OF_WHAT_IS_SERVED = frozenset({Action.PREDICT, Action.SUBMIT, Action.METADATA})
NO_GRANT = "no grant"
CLIENT_DISABLED = "client disabled"


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody wants to do, and with what."""

    action: str
    model: str
    version: int | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """A version that may be used, and until when that holds: a moment of the database's clock, None for ever.

    Where calls of the bare name are split over several by chance or by a header, it is the one with the largest share,
    and `spread` says them all. `watch` is what to do with the answer.
    """

    version: CatalogVersion
    until: int | None
    rule: GrantSpec
    policy: JobPolicy = NO_POLICY
    watch: Watch | None = None
    spread: Spread | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """Whether a request would be admitted, which rule says so, and the version that would be used."""

    allowed: bool
    rule: str
    grant: GrantSpec | None = None
    version: int | None = None


def resolve(catalog: Catalog, rights: ClientRights, asked: Asked, now_ms: int) -> Found:
    """The AVAILABLE version that is meant and may be used.

    Raises ModelNotFound; LabelNotFound for a label within a model that the client may see; VersionNotReady for a
    granted version in preparation. A bare name means the highest AVAILABLE version for everybody; who may not use that
    one is told that the model is unknown, rather than silently given an older one. Where the model's traffic is split,
    it means one of the targets that the client may use, as if there were no others.
    """
    known = catalog.models.get(asked.model)
    if not rights.sees(asked.model, now_ms) or known is None:
        raise not_found(asked.model, asked.version)
    if known.split is not None and asked.version is None and asked.label is None:
        return _split(known, known.split, rights, asked, now_ms)
    rule = _covering(catalog, rights, asked, now_ms)
    if rule is None and _meant(known, asked) is None and asked.label is None:
        # A bare name before any version is AVAILABLE: only who may use one of them may learn that they are coming.
        rule = _of_any_version(known, rights, asked.action, now_ms)
    if rule is None:
        raise not_found(asked.model, asked.version) if asked.label is None else label_not_found(asked.label)
    version = catalog.resolve(asked.model, asked.version, asked.label)
    return Found(version, rule.expires_at, rule, known.policy, known.watch)


def _split(known: CatalogModel, split: Split, rights: ClientRights, asked: Asked, now_ms: int) -> Found:
    found: dict[int, Found] = {}
    for number, _ in split.shares:
        rule = rights.rule(asked.action, known.name, number, known.labels_of(number), now_ms)
        if rule is not None:
            found[number] = Found(known.versions[number], rule.expires_at, rule, known.policy, known.watch)
    if not found:
        raise not_found(known.name)
    main, *others = found.values()
    if not others:
        return main
    ends = [one.until for one in found.values() if one.until is not None]
    shares = tuple(share for share in split.shares if share[0] in found)
    if split.sticky == CLIENT:
        # The same with every request, so it is found out once.
        own = found[chosen(shares, known.name, of_client(rights.id))]
        return replace(own, until=min(ends, default=None))
    spread = Spread(known.name, shares, found, split.sticky)
    return replace(main, until=min(ends, default=None), spread=spread)


def permit(catalog: Catalog, rights: ClientRights, asked: Asked, now_ms: int) -> GrantSpec:
    """The grant by which a client may administer a model, a version or a label of it, whether or not there is such.

    Uploading, and what names neither version nor label, needs a grant for the model as a whole; a label needs that or
    one for this label; a version whatever covers it. To look at a model, any of its versions will do. Raises
    ModelNotFound.
    """
    rule = _covering(catalog, rights, asked, now_ms, as_served=False)
    known = catalog.models.get(asked.model)
    if rule is None and known is not None and asked.action == Action.METADATA and asked.version is None:
        rule = _of_any_version(known, rights, asked.action, now_ms)
    if rule is None:
        raise not_found(asked.model, asked.version)
    return rule


def explain(catalog: Catalog, rights: ClientRights, asked: Asked, now_ms: int) -> Explanation:
    """What a token of the client with all of its scopes would be answered, and why."""
    if rights.disabled:
        return Explanation(allowed=False, rule=CLIENT_DISABLED)
    scopes = SCOPES[Action(asked.action)]
    if not rights.scopes.intersection(scopes):
        return Explanation(allowed=False, rule=f"scope missing: {scopes[0]}")
    try:
        if asked.action not in OF_WHAT_IS_SERVED:
            rule = permit(catalog, rights, asked, now_ms)
            return Explanation(allowed=True, rule=_said(rule), grant=rule, version=_number(catalog, asked))
        found = resolve(catalog, rights, asked, now_ms)
    except SluiceError as refusal:
        return _refused(catalog, rights, asked, now_ms, refusal)
    return Explanation(allowed=True, rule=_said(found.rule), grant=found.rule, version=found.version.number)


def _refused(catalog: Catalog, rights: ClientRights, asked: Asked, now_ms: int, refusal: SluiceError) -> Explanation:
    number = _number(catalog, asked)
    held = _covering(catalog, rights, asked, now_ms)
    if held is not None:
        # A grant there is; what it is about is not there, or not ready.
        return Explanation(allowed=False, rule=refusal.message, grant=held, version=number)
    # At the beginning of time nothing had expired.
    late = _covering(catalog, rights, asked, 0)
    if late is None or late.expires_at is None:
        return Explanation(allowed=False, rule=NO_GRANT, version=number)
    return Explanation(allowed=False, rule=f"grant expired at {moment(late.expires_at)}", grant=late, version=number)


def _covering(
    catalog: Catalog, rights: ClientRights, asked: Asked, now_ms: int, *, as_served: bool = True
) -> GrantSpec | None:
    known = catalog.models.get(asked.model)
    number = asked.version
    labels: Sequence[str] = ()
    if asked.action == Action.LABEL:
        # It is about the label itself, wherever that points; about no version.
        number, labels = None, () if asked.label is None else (asked.label,)
    elif known is not None:
        number = _meant(known, asked) if as_served and asked.action in OF_WHAT_IS_SERVED else number
        labels = () if number is None else known.labels_of(number)
    return rights.rule(asked.action, asked.model, number, labels, now_ms)


def _number(catalog: Catalog, asked: Asked) -> int | None:
    known = catalog.models.get(asked.model)
    return None if known is None else _meant(known, asked)


def _said(rule: GrantSpec) -> str:
    return f"grant {rule.id}: {rule.text}" if rule.id is not None else f"{rule.rule}: {rule.text}"


def _meant(known: CatalogModel, asked: Asked) -> int | None:
    if asked.label is not None:
        return known.labels.get(asked.label)
    return known.main if asked.version is None else asked.version


def _of_any_version(known: CatalogModel, rights: ClientRights, action: str, now_ms: int) -> GrantSpec | None:
    rules = (rights.rule(action, known.name, number, known.labels_of(number), now_ms) for number in known.versions)
    return next((rule for rule in rules if rule is not None), None)
