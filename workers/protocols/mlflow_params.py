"""The `params` of a request to MLflow's scoring server, checked against those of the version's signature."""

from __future__ import annotations

from model_store.parameters import Parameter
from workers.protocols.errors import excerpt, invalid

FAULTS_SHOWN = 4


def check_params(params: object, known: tuple[Parameter, ...]) -> None:
    """Raises InputInvalid for what is no object, and for values that are not of their parameter's type.

    As MLflow does (mlflow/models/utils.py, _enforce_params_schema): names that the signature does not have are
    ignored, all of them where it has none, and what is left out has its default.
    """
    if params is None:
        return
    if not isinstance(params, dict):
        raise invalid(f"Parameters must be a dictionary. Got {excerpt(params)}.")
    faults = {one.name: one.fault(params[one.name]) for one in known if one.name in params}
    shown = [f"{excerpt(name)}: {fault}" for name, fault in faults.items() if fault is not None]
    if shown:
        raise invalid(f"Invalid parameters found: {{{', '.join(shown[:FAULTS_SHOWN])}}}")
