"""The tutorial: a Flask route around `model.predict`."""

import os

import keras
import numpy as np
from flask import Flask, jsonify, request

app = Flask(__name__)
model = keras.saving.load_model(os.environ["MODEL"])


@app.post("/predict")
def predict():
    images = np.array(request.get_json()["instances"], dtype=np.float32)
    return jsonify({"predictions": model.predict(images, verbose=0).tolist()})
