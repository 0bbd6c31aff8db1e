"""What every route of the interface needs: its scopes, and what a grant must allow.

Spelt out here once more, on purpose: a route that is not in the table, or that asks for less than the table says, fails
in tests/test_access_matrix.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from auth.grants import Action
from auth.scopes import Scope


@dataclass(frozen=True)
class Needs:
    """Any of the scopes, and a grant with the action for the model of the path, or that the path's job is one's own."""

    scopes: frozenset[Scope]
    action: Action | None = None
    own_job: bool = False


def needs(*scopes: Scope, action: Action | None = None, own_job: bool = False) -> Needs:
    return Needs(frozenset(scopes), action, own_job)


# No token at all; or a client's own credentials, which are not those of a token; or a person's session.
OPEN, CREDENTIALS, SESSION = needs(), needs(), needs()
READ = needs(Scope.MODELS_READ, Scope.PREDICT)
METADATA = needs(Scope.MODELS_READ, Scope.PREDICT, action=Action.METADATA)
PREDICT = needs(Scope.PREDICT, action=Action.PREDICT)
SUBMIT = needs(Scope.PREDICT, action=Action.SUBMIT)
JOBS = needs(Scope.JOBS, Scope.PREDICT)
NEW = needs(Scope.PREDICT)
WEBHOOKS = needs(Scope.JOBS)
JOB = needs(Scope.JOBS, Scope.PREDICT, own_job=True)
MODELS = needs(Scope.MODELS_READ, Scope.MODELS_WRITE)
VIEW = needs(Scope.MODELS_READ, Scope.MODELS_WRITE, action=Action.METADATA)
DESCRIPTION = needs(Scope.MODELS_READ, Scope.MODELS_WRITE, Scope.PREDICT, action=Action.METADATA)
UPLOAD = needs(Scope.MODELS_WRITE, action=Action.UPLOAD)
EXPORT = needs(Scope.MODELS_READ, Scope.MODELS_WRITE, action=Action.UPLOAD)
LABEL = needs(Scope.MODELS_WRITE, action=Action.LABEL)
RETIRE = needs(Scope.MODELS_WRITE, action=Action.RETIRE)
CLIENTS = needs(Scope.CLIENTS_ADMIN)
ALL_JOBS = needs(Scope.JOBS_ADMIN)
CONTENTS = needs(Scope.JOBS_CONTENTS)
REPLAY = needs(Scope.PREDICT, own_job=True)
AUDIT = needs(Scope.AUDIT_READ)
METRICS = needs(Scope.METRICS_READ)

TABLE = {
    "GET /": OPEN,
    "GET /health/live": OPEN,
    "GET /health/ready": OPEN,
    "GET /metrics": METRICS,
    "GET /.well-known/jwks.json": OPEN,
    "GET /.well-known/oauth-authorization-server": OPEN,
    "POST /oauth/token": OPEN,
    "POST /oauth/revoke": CREDENTIALS,
    "POST /oauth/introspect": CREDENTIALS,
    "GET /v1/models": READ,
    "GET /v1/models/{model}": METADATA,
    "GET /v1/models/{model}/metadata": METADATA,
    "GET /v1/models/{model}/versions/{version}": METADATA,
    "GET /v1/models/{model}/versions/{version}/metadata": METADATA,
    "GET /v1/models/{model}/labels/{label}": METADATA,
    "GET /v1/models/{model}/labels/{label}/metadata": METADATA,
    "POST /v1/models/{model}:predict": PREDICT,
    "POST /v1/models/{model}:submit": SUBMIT,
    "POST /v1/models/{model}:batch": SUBMIT,
    "POST /v1/models/{model}/versions/{version}:batch": SUBMIT,
    "POST /v1/models/{model}/labels/{label}:batch": SUBMIT,
    "POST /v1/models/{model}/versions/{version}:predict": PREDICT,
    "POST /v1/models/{model}/versions/{version}:submit": SUBMIT,
    "POST /v1/models/{model}/labels/{label}:predict": PREDICT,
    "POST /v1/models/{model}/labels/{label}:submit": SUBMIT,
    "GET /v1/files": JOBS,
    "POST /v1/files": NEW,
    "GET /v1/files/{file_id}": JOBS,
    "GET /v1/files/{file_id}/content": JOBS,
    "DELETE /v1/files/{file_id}": JOBS,
    "GET /v1/batches": JOBS,
    "POST /v1/batches": NEW,
    "GET /v1/batches/{batch_id}": JOBS,
    "POST /v1/batches/{batch_id}/cancel": JOBS,
    "GET /v1/webhooks": WEBHOOKS,
    "POST /v1/webhooks": WEBHOOKS,
    "GET /v1/webhooks/secret": WEBHOOKS,
    "POST /v1/webhooks/secret": WEBHOOKS,
    "GET /v1/webhooks/{webhook_id}": WEBHOOKS,
    "PATCH /v1/webhooks/{webhook_id}": WEBHOOKS,
    "DELETE /v1/webhooks/{webhook_id}": WEBHOOKS,
    "POST /v1/webhooks/{webhook_id}/rotate-secret": WEBHOOKS,
    "POST /v1/webhooks/{webhook_id}/test": WEBHOOKS,
    "GET /v1/webhooks/deliveries": WEBHOOKS,
    "GET /v1/webhooks/deliveries/{delivery_id}": WEBHOOKS,
    "POST /v1/webhooks/deliveries/{delivery_id}/replay": WEBHOOKS,
    "GET /admin/clients/{client_id}/webhooks": CLIENTS,
    "PATCH /admin/clients/{client_id}/webhooks/{webhook_id}": CLIENTS,
    "GET /v2": READ,
    "GET /v2/health/live": OPEN,
    "GET /v2/health/ready": OPEN,
    "GET /v2/models/{model}": METADATA,
    "GET /v2/models/{model}/ready": METADATA,
    "GET /v2/models/{model}/versions/{version}": METADATA,
    "GET /v2/models/{model}/versions/{version}/ready": METADATA,
    "POST /v2/models/{model}/infer": PREDICT,
    "POST /v2/models/{model}/versions/{version}/infer": PREDICT,
    "GET /v1/jobs": JOBS,
    "GET /v1/jobs/{job_id}": JOB,
    "GET /v1/jobs/{job_id}/result": JOB,
    "GET /v1/jobs/{job_id}/events": JOB,
    "GET /v1/events": JOBS,
    "POST /v1/jobs/{job_id}/cancel": JOB,
    "DELETE /v1/jobs/{job_id}": JOB,
    "DELETE /v1/jobs": JOBS,
    "GET /v1/jobs/{job_id}/receipt": JOB,
    "POST /v1/jobs/{job_id}/replay": REPLAY,
    "GET /v1/results/{token}": OPEN,
    "GET /.well-known/receipt-keys.json": OPEN,
    "GET /.well-known/bundle-keys.json": OPEN,
    "GET /admin/jobs": ALL_JOBS,
    "GET /admin/jobs/{job_id}": ALL_JOBS,
    "POST /admin/jobs/{job_id}/cancel": ALL_JOBS,
    "DELETE /admin/jobs/{job_id}": ALL_JOBS,
    "GET /admin/jobs/{job_id}/input": CONTENTS,
    "GET /admin/jobs/{job_id}/result": CONTENTS,
    "DELETE /admin/clients/{client_id}/jobs": ALL_JOBS,
    "GET /admin/dead-letters": ALL_JOBS,
    "GET /admin/dead-letters/{job_id}": ALL_JOBS,
    "POST /admin/dead-letters/replay": ALL_JOBS,
    "POST /admin/dead-letters/purge": ALL_JOBS,
    "POST /admin/dead-letters/{job_id}/replay": ALL_JOBS,
    "POST /admin/dead-letters/{job_id}/purge": ALL_JOBS,
    "GET /admin/models": MODELS,
    "GET /admin/models/{model}": VIEW,
    "GET /admin/models/{model}/versions/{version}": VIEW,
    "POST /admin/models/{model}/uploads": UPLOAD,
    "PUT /admin/models/{model}/uploads/{upload_id}": UPLOAD,
    "GET /admin/models/{model}/uploads/{upload_id}": UPLOAD,
    "DELETE /admin/models/{model}/uploads/{upload_id}": UPLOAD,
    "GET /admin/models/{model}/versions/{version}/card": VIEW,
    "GET /admin/models/{model}/versions/{version}/bundle": EXPORT,
    "POST /admin/models/{model}/versions/{version}/evaluation": UPLOAD,
    "GET /admin/models/{model}/settings": VIEW,
    "PUT /admin/models/{model}/settings": RETIRE,
    "GET /admin/models/{model}/versions/{version}/metadata": DESCRIPTION,
    "PUT /admin/models/{model}/versions/{version}/metadata": UPLOAD,
    "PUT /admin/models/{model}/samples/{kind}": UPLOAD,
    "GET /admin/models/{model}/samples": VIEW,
    "GET /admin/models/{model}/samples/{kind}": VIEW,
    "DELETE /admin/models/{model}/samples/{kind}": UPLOAD,
    "POST /admin/models/{model}/imports": UPLOAD,
    "GET /admin/models/{model}/imports": VIEW,
    "GET /admin/models/{model}/imports/{import_id}": VIEW,
    "GET /admin/models/{model}/variant-policy": VIEW,
    "PUT /admin/models/{model}/variant-policy": UPLOAD,
    "DELETE /admin/models/{model}/variant-policy": UPLOAD,
    "POST /admin/models/{model}/versions/{version}/prepare": UPLOAD,
    "GET /admin/models/{model}/versions/{version}/compare": VIEW,
    "GET /admin/models/{model}/traffic": VIEW,
    "PUT /admin/models/{model}/traffic": LABEL,
    "DELETE /admin/models/{model}/traffic": LABEL,
    "GET /admin/models/{model}/shadow": VIEW,
    "PUT /admin/models/{model}/shadow": LABEL,
    "DELETE /admin/models/{model}/shadow": LABEL,
    "GET /admin/models/{model}/shadow/report": VIEW,
    "GET /admin/models/{model}/canary": VIEW,
    "PUT /admin/models/{model}/canary": LABEL,
    "DELETE /admin/models/{model}/canary": LABEL,
    "POST /admin/models/{model}/canary/promote": LABEL,
    "POST /admin/models/{model}/canary/rollback": LABEL,
    "GET /admin/models/{model}/jobs-policy": VIEW,
    "PUT /admin/models/{model}/jobs-policy": RETIRE,
    "DELETE /admin/models/{model}/jobs-policy": RETIRE,
    "PUT /admin/models/{model}/versions": UPLOAD,
    "POST /admin/models/{model}/versions": UPLOAD,
    "POST /admin/models/{model}/versions/{version}/retire": RETIRE,
    "DELETE /admin/models/{model}/versions/{version}": RETIRE,
    "POST /admin/models/{model}/versions/{version}/restore": RETIRE,
    "POST /admin/models/{model}/rollback": RETIRE,
    "GET /admin/models/{model}/version-policy": VIEW,
    "PUT /admin/models/{model}/version-policy": RETIRE,
    "GET /admin/models/{model}/labels": VIEW,
    "POST /admin/models/{model}/labels/{label}/rollback": LABEL,
    "GET /admin/models/{model}/labels/{label}/gates": VIEW,
    "PUT /admin/models/{model}/labels/{label}/gates": LABEL,
    "DELETE /admin/models/{model}/labels/{label}/gates": LABEL,
    "PUT /admin/models/{model}/labels/{label}": LABEL,
    "DELETE /admin/models/{model}/labels/{label}": LABEL,
    "GET /admin/clients": CLIENTS,
    "POST /admin/clients": CLIENTS,
    "GET /admin/clients/{client_id}": CLIENTS,
    "DELETE /admin/clients/{client_id}": CLIENTS,
    "POST /admin/clients/{client_id}/rotate": CLIENTS,
    "POST /admin/clients/{client_id}/disable": CLIENTS,
    "POST /admin/clients/{client_id}/enable": CLIENTS,
    "GET /admin/clients/{client_id}/grants": CLIENTS,
    "PUT /admin/clients/{client_id}/grants": CLIENTS,
    "GET /admin/clients/{client_id}/access": CLIENTS,
    "GET /admin/clients/{client_id}/limits": CLIENTS,
    "PUT /admin/clients/{client_id}/limits": CLIENTS,
    "GET /admin/clients/{client_id}/keys": CLIENTS,
    "PUT /admin/clients/{client_id}/keys": CLIENTS,
    "GET /admin/clients/{client_id}/identities": CLIENTS,
    "PUT /admin/clients/{client_id}/identities": CLIENTS,
    "GET /admin/people": CLIENTS,
    "POST /admin/people": CLIENTS,
    "GET /admin/people/{person_id}": CLIENTS,
    "PUT /admin/people/{person_id}": CLIENTS,
    "DELETE /admin/people/{person_id}": CLIENTS,
    "POST /admin/people/{person_id}/password-token": CLIENTS,
    "DELETE /admin/people/{person_id}/second-factor": CLIENTS,
    "GET /admin/people/{person_id}/sessions": CLIENTS,
    "DELETE /admin/people/{person_id}/sessions": CLIENTS,
    "GET /admin/session": SESSION,
    "POST /admin/session": OPEN,
    "DELETE /admin/session": SESSION,
    "GET /admin/sessions": SESSION,
    "DELETE /admin/sessions/{session_id}": SESSION,
    "PUT /admin/session/password": SESSION,
    "POST /admin/session/tokens": SESSION,
    "PUT /admin/session/second-factor": SESSION,
    "POST /admin/session/second-factor": SESSION,
    "POST /admin/session/second-factor/remove": SESSION,
    "POST /admin/setup": OPEN,
    "POST /admin/password": OPEN,
    "GET /admin/keys": CLIENTS,
    "POST /admin/keys/rotate": CLIENTS,
    "DELETE /admin/keys/{kid}": CLIENTS,
    "GET /admin/upload-keys": CLIENTS,
    "POST /admin/upload-keys": CLIENTS,
    "DELETE /admin/upload-keys/{key_id}": CLIENTS,
    "GET /admin/workers": CLIENTS,
    "GET /admin/audit": AUDIT,
}
