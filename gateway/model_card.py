"""A version's model card: one page of HTML that holds everything it shows, and runs nothing."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gateway.markup import Markup, element
from gateway.model_views import SignatureShown, VersionShown
from gateway.plots import bars, table_of_counts
from model_store.environment import Environment
from model_store.evaluations import Evaluation
from model_store.model_settings import Metadata, ModelSettings
from model_store.samples import Kind, ModelSamples

STYLE = (
    "body{font:15px/1.5 sans-serif;color:#1f2937;background:#fff;max-width:60em;margin:2em auto;padding:0 1em}"
    "h1{margin-bottom:0}h2{margin-top:2em;border-bottom:1px solid #d1d5db;font-size:1.2em}"
    "table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:.25em .75em .25em 0}"
    "tr{border-bottom:1px solid #e5e7eb}code,pre{font-size:.9em;overflow-wrap:anywhere}pre{white-space:pre-wrap}"
    "th[scope=row]{width:30%}table.rows td{overflow-wrap:anywhere}"
    # What is wider than a telephone is moved sideways by itself, not with the page.
    ".wide{overflow-x:auto;margin-bottom:1em}.wide td{white-space:nowrap}"
    ".wide td:last-child{white-space:normal;min-width:9em}p.said{white-space:pre-wrap}"
)
# The page's own style, known by its digest, and nothing from anywhere.
POLICY = (
    f"default-src 'none'; style-src 'sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SHOWN_CLASSES = 100
SHORT_DIGEST = 12
UNITS = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


@dataclass(frozen=True, slots=True)
class Facts:
    """What a card is made of; `samples` are those that the model has now."""

    version: VersionShown
    settings: ModelSettings
    metadata: Metadata
    environment: Environment | None
    evaluation: Evaluation | None
    samples: Sequence[ModelSamples]

    @property
    def labelled(self) -> str | None:
        """The digest of the labelled ones."""
        return next((one.digest for one in self.samples if one.kind == Kind.LABELLED), None)


def card(facts: Facts) -> str:
    """The whole page."""
    shown = facts.version
    title = f"{shown.model}, version {shown.version}"
    body = element(
        "body",
        element("h1", title),
        element("p", f"{shown.state}" + (f"; labels that point to it: {', '.join(shown.labels)}" * bool(shown.labels))),
        *_descriptions(facts),
        *_sections(facts),
    )
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        # Said in the page too: a card is kept as a file, which has no headers.
        element("meta", http_equiv="Content-Security-Policy", content=POLICY.rpartition("; frame-ancestors")[0]),
        element("title", title),
        Markup(f"<style>{STYLE}</style>"),
    )
    return "<!DOCTYPE html>\n" + element("html", head, body, lang="en").text


def _descriptions(facts: Facts) -> list[Markup]:
    """What is said of the model, and of this version where that is something else."""
    general, own = facts.settings.metadata.description, facts.metadata.description
    found = [element("p", general, class_="said")] if general else []
    if own and own != general:
        found += [element("h2", "This version"), element("p", own, class_="said")]
    return found


def _sections(facts: Facts) -> list[Markup]:
    shown, report = facts.version, facts.version.report or {}
    found = [_section("The file", _file(facts))]
    if shown.error is not None:
        found.append(_section("Refused", _rows({"Code": shown.error.code, "Why": shown.error.message})))
    if shown.signature is not None:
        found.append(_section("Signature", _signature(shown.signature)))
    found += [_section(f"Signature {one.name}", _signature(one)) for one in shown.further_signatures]
    if facts.metadata.input_specification is not None:
        found.append(_section("Input", _rows(json.loads(facts.metadata.input_specification))))
    if facts.metadata.class_names:
        found.append(_section("Classes", _classes(facts.metadata.class_names)))
    found.append(_section("Limits", _limits(facts)))
    if report.get("variants"):
        found.append(_section("Variants", _variants(report["variants"], shown), *_latency(report["variants"])))
    if facts.settings.warm_up:
        found.append(_section("Warm-up requests", *[element("pre", body) for body in facts.settings.warm_up]))
    if facts.samples:
        found.append(_section("Samples", _samples(facts.samples)))
    found += _evaluation(facts)
    if facts.environment is not None:
        found.append(_section("Environment", _environment(facts.environment)))
    if report.get("steps"):
        found.append(_section("Preparation", _steps(report["steps"])))
    return found


def _file(facts: Facts) -> Markup:
    shown = facts.version
    return _rows(
        {
            "Format": shown.format,
            "Size": f"{_size(shown.size_bytes)} ({shown.size_bytes:,} bytes)",
            "SHA-256": shown.digest,
            "Uploaded": f"{shown.created_at:%Y-%m-%d %H:%M:%S} UTC by {shown.uploaded_by}",
            "Signed by": shown.signed_by,
            "Available since": None if shown.available_at is None else f"{shown.available_at:%Y-%m-%d %H:%M:%S} UTC",
            "Tags": ", ".join(f"{name}: {value}" for name, value in facts.settings.tags.items()),
        }
    )


def _signature(signature: SignatureShown) -> Markup:
    rows = [
        (
            side,
            spec.name,
            spec.dtype,
            "[" + ", ".join("any" if size is None else str(size) for size in spec.shape) + "]",
        )
        for side, specs in (("input", signature.inputs), ("output", signature.outputs))
        for spec in specs
    ]
    return _table(("", "name", "dtype", "shape"), rows)


def _classes(names: Sequence[str]) -> Markup:
    more = f" and {len(names) - SHOWN_CLASSES} more" if len(names) > SHOWN_CLASSES else ""
    return element("p", ", ".join(names[:SHOWN_CLASSES]) + more)


def _limits(facts: Facts) -> Markup:
    serving, shown = facts.settings.serving, facts.version
    return _rows(
        {
            "Instances in one inference": shown.max_batch,
            "Instances in one request": serving.max_instances or "as the gateway's settings say",
            "Slots at once": serving.parallelism(shown.max_parallelism),
            "Pool": serving.pool,
            "Stays loaded": "yes" if serving.pinned else "as long as there is room",
        }
    )


def _variants(variants: Sequence[Mapping[str, Any]], shown: VersionShown) -> Markup:
    digests = {variant.name: variant.digest for variant in shown.variants}
    chosen = {variant.name for variant in shown.variants if variant.chosen}
    rows = [
        (
            row["name"] + (" (serves)" if row["name"] in chosen else ""),
            row["runtime"],
            _size(row.get("size_bytes")),
            _figure(row.get("load_seconds"), ".3g"),
            _size(row.get("memory_bytes")),
            _figure(row.get("max_abs_difference"), ".3g"),
            _figure(row.get("top1_agreement"), ".4g"),
            _short(digests.get(row["name"], "")),
            "; ".join(filter(None, (_verdict(row), row.get("detail")))),
        )
        for row in variants
    ]
    heads = ("variant", "runtime", "size", "load (s)", "memory", "largest Δ", "top-1", "SHA-256", "")
    return _table(heads, rows)


def _verdict(row: Mapping[str, Any]) -> str:
    return "accepted" if row.get("accepted") else f"refused: {row.get('reason') or ''}"


def _latency(variants: Sequence[Mapping[str, Any]]) -> list[Markup]:
    values = {
        str(row["name"]): {
            f"batch of {batch}": float(value)
            for batch, value in (row.get("latency_ms") or {}).items()
            if value is not None
        }
        for row in variants
    }
    measured = {name: found for name, found in values.items() if found}
    return [_wide(bars(measured, "ms", "Latency by variant and batch"))] if measured else []


def _samples(found: Sequence[ModelSamples]) -> Markup:
    rows = [
        (
            one.kind,
            f"{one.instances:,}",
            _size(one.size_bytes),
            _short(one.digest),
            f"{_moment(one.created_at)} by {one.uploaded_by}" + f", with version {one.version}" * bool(one.version),
        )
        for one in found
    ]
    return _table(("kind", "instances", "size", "SHA-256", "uploaded"), rows)


def _evaluation(facts: Facts) -> list[Markup]:
    found = facts.evaluation
    if found is None:
        if facts.labelled is None:
            return []
        return [
            _section(
                "Labelled samples",
                element("p", "The model has labelled samples; this version has not yet answered them."),
            )
        ]
    said = f"{found.right:,} of {found.instances:,} samples right: {found.accuracy:.2%}."
    old = "" if found.samples_digest == facts.labelled else " These samples were replaced or deleted since."
    names = facts.metadata.class_names
    if names is None or len(names) != found.classes:
        names = tuple(map(str, range(found.classes)))
    plot = [_wide(table_of_counts(found.counts, names, "What was taken for what"))] if found.counts else []
    digest = element(
        "p",
        f"Evaluated {_moment(found.created_at)} on the samples with SHA-256 ",
        element("code", found.samples_digest),
    )
    return [_section("Labelled samples", element("p", said + old), *plot, digest)]


def _environment(found: Environment) -> Markup:
    return _rows(
        {
            **dict(sorted(found.libraries.items())),
            "Python": found.python,
            "Processor": f"{found.machine} {' '.join(found.features)}",
            "Accepted within": f"|Δ| ≤ {found.absolute:g} + {found.relative:g}·|y|",
        }
    )


def _steps(steps: Sequence[Mapping[str, Any]]) -> Markup:
    rows = [(step["name"], step["outcome"], f"{step['seconds']:g} s", step["detail"]) for step in steps]
    return _table(("step", "outcome", "took", ""), rows)


def _section(title: str, *content: Markup) -> Markup:
    return element("section", element("h2", title), *content)


def _rows(named: Mapping[str, object]) -> Markup:
    return element(
        "table",
        *[
            element("tr", element("th", name, scope="row"), element("td", _said(value)))
            for name, value in named.items()
            if value not in (None, "")
        ],
        class_="rows",
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> Markup:
    return _wide(
        element(
            "table",
            element("tr", *[element("th", head, scope="col") for head in heads]),
            *[element("tr", *[element("td", _said(value)) for value in row]) for row in rows],
        )
    )


def _wide(content: Markup) -> Markup:
    return element("div", content, class_="wide")


def _said(value: object) -> Markup | str:
    return value if isinstance(value, str | Markup) else json.dumps(value)


def _short(digest: str) -> Markup:
    """The beginning of a digest, with all of it for who points at it."""
    return element("code", digest[:SHORT_DIGEST], title=digest)


def _size(size_bytes: float | None) -> str:
    """As people say it, three digits of it."""
    if size_bytes is None:
        return ""
    for unit, name in UNITS:
        if size_bytes >= unit:
            return f"{size_bytes / unit:.3g} {name}" if size_bytes < 1000 * unit else f"{size_bytes / unit:,.0f} {name}"
    return f"{size_bytes:g} bytes"


def _moment(milliseconds: int) -> str:
    return f"{datetime.fromtimestamp(milliseconds / 1000, UTC):%Y-%m-%d %H:%M} UTC"


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
