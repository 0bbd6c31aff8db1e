"""The tutorial's web side: FastAPI hands the body to Celery and waits for the result."""

from fastapi import FastAPI
from pydantic import BaseModel

from tasks import predict

app = FastAPI()


class Body(BaseModel):
    instances: list[list[list[float]]]


@app.post("/predict")
def post(body: Body) -> dict[str, list[list[float]]]:
    return {"predictions": predict.delay(body.instances).get(timeout=30)}
