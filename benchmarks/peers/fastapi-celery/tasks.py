"""The tutorial's worker: Redis carries the tasks and the results; the model is loaded in each worker process."""

import os

import numpy as np
from celery import Celery
from celery.signals import worker_process_init

app = Celery("tasks", broker=os.environ["REDIS"], backend=os.environ["REDIS"])
app.conf.update(task_serializer="json", result_serializer="json", accept_content=["json"], result_expires=60)
loaded = {}


@worker_process_init.connect
def load(**_):
    import keras
    import tensorflow as tf

    model = keras.saving.load_model(os.environ["MODEL"])
    if os.environ["CALL"] == "tf.function":
        call = tf.function(lambda images: model(images, training=False), reduce_retracing=True)
        loaded["call"] = lambda images: call(tf.constant(images)).numpy()
    else:
        loaded["call"] = lambda images: model.predict(images, verbose=0)
    loaded["call"](np.zeros((1, 28, 28), dtype=np.float32))


@app.task
def predict(instances):
    return loaded["call"](np.array(instances, dtype=np.float32)).tolist()
