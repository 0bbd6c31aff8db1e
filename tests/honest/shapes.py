"""Models in the shapes that users give them: several inputs, shared and nested parts, compiled, mixed precision."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import constraints, initializers, layers, ops, regularizers

Build = Callable[[], keras.Model]


def two_inputs_two_outputs() -> keras.Model:
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    joined = layers.Concatenate()([left, right])
    model = keras.Model([left, right], {"price": layers.Dense(1)(joined), "kind": layers.Dense(3, "softmax")(joined)})
    model.compile("adam", {"price": "mse", "kind": "categorical_crossentropy"}, metrics={"kind": ["accuracy"]})
    return model


def inputs_by_name() -> keras.Model:
    inputs = {"a": keras.Input((4,), name="a"), "b": keras.Input((4,), name="b")}
    return keras.Model(inputs, layers.Add()([inputs["a"], inputs["b"]]))


def shared_layer() -> keras.Model:
    one, two = keras.Input((4,), name="one"), keras.Input((4,), name="two")
    shared = layers.Dense(3, name="shared")
    return keras.Model([one, two], layers.Dot(1)([shared(one), shared(two)]))


def nested() -> keras.Model:
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3), keras.Sequential([layers.Dense(2)])], name="inner")
    inputs = keras.Input((5, 4))
    return keras.Model(inputs, layers.TimeDistributed(inner)(inputs))


def nested_functional_twice() -> keras.Model:
    inputs = keras.Input((4,))
    twin = keras.Model(inputs, layers.Dense(3, "tanh")(inputs), name="twin")
    one, two = keras.Input((4,)), keras.Input((4,))
    return keras.Model([one, two], layers.Subtract()([twin(one), twin(two)]))


def residual() -> keras.Model:
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(4, 3, padding="same", use_bias=False)(inputs)
    x = layers.ReLU(6.0)(layers.BatchNormalization(momentum=0.9)(x)) + inputs * 0.5
    return keras.Model(inputs, layers.Dense(2)(layers.GlobalAveragePooling2D()(x[:, 1:7, ::2])))


def transformer() -> keras.Model:
    tokens = keras.Input((None,), dtype="int32")
    x = layers.Embedding(50, 8, mask_zero=True)(tokens)
    x = layers.LayerNormalization(epsilon=1e-6)(x + layers.MultiHeadAttention(2, 4)(x, x, use_causal_mask=True))
    x = layers.Dropout(0.1)(x + layers.Dense(8, "gelu")(x))
    return keras.Model(tokens, layers.Dense(50)(x))


def cross_attention() -> keras.Model:
    query, value = keras.Input((None, 8)), keras.Input((6, 8))
    return keras.Model([query, value], layers.Attention(use_scale=True, score_mode="concat")([query, value]))


def encoder_decoder_states() -> keras.Model:
    inputs = keras.Input((None, 4))
    sequence, hidden, carry = layers.LSTM(3, return_sequences=True, return_state=True)(inputs)
    return keras.Model(inputs, layers.LSTM(3)(sequence, initial_state=[hidden, carry]))


def text_with_adapted_vocabulary() -> keras.Model:
    words = layers.TextVectorization(output_mode="tf_idf", ngrams=2)
    words.adapt(["a fine film", "a bad one", "</s> ~ ../x"])
    review = keras.Input((1,), dtype="string", name="review")
    return keras.Model(review, layers.Dense(2)(words(review)))


def lookup_and_back() -> keras.Model:
    terms = ["red", "green", "blue"]
    word = keras.Input((1,), dtype="string")
    there = layers.StringLookup(vocabulary=terms)(word)
    return keras.Model(word, layers.StringLookup(vocabulary=terms, invert=True)(there))


def feature_table() -> keras.Model:
    age, kind = keras.Input((1,), name="age"), keras.Input((1,), dtype="int64", name="kind")
    normalization = layers.Normalization()
    normalization.adapt(np.arange(20.0).reshape(-1, 1))
    buckets = layers.CategoryEncoding(4, "one_hot")(layers.Discretization([20.0, 40.0, 60.0])(age))
    hashed = layers.CategoryEncoding(7, "multi_hot")(layers.Hashing(7)(kind))
    return keras.Model([age, kind], layers.Dense(1)(layers.Concatenate()([normalization(age), buckets, hashed])))


def augmented_images() -> keras.Model:
    augment = [layers.RandomFlip("horizontal", seed=1), layers.RandomRotation(0.1), layers.RandomZoom(0.1)]
    convolve = [layers.Conv2D(4, 3, 2, "same", activation="relu"), layers.MaxPooling2D(), layers.Flatten()]
    return keras.Sequential([keras.Input((16, 16, 3)), layers.Rescaling(1 / 255), *augment, *convolve, layers.Dense(2)])


def sound() -> keras.Model:
    inputs = keras.Input((1024,))
    spectrogram = layers.MelSpectrogram(64, 32, 64, sampling_rate=8000, num_mel_bins=8)(inputs)
    return keras.Model(inputs, layers.GlobalAveragePooling1D()(layers.Permute((2, 1))(spectrogram)))


def regularised() -> keras.Model:
    dense = layers.Dense(
        3,
        kernel_initializer=initializers.RandomNormal(stddev=0.1, seed=5),
        bias_initializer=initializers.Constant(0.1),
        kernel_regularizer=regularizers.L1L2(1e-4, 1e-3),
        bias_regularizer="l2",
        activity_regularizer=regularizers.OrthogonalRegularizer(),
        kernel_constraint=constraints.MaxNorm(2),
        bias_constraint="non_neg",
    )
    model = keras.Sequential([keras.Input((4,)), dense, layers.Dense(3, kernel_initializer="orthogonal")])
    model.compile(keras.optimizers.AdamW(1e-3, clipnorm=1.0), keras.losses.Huber(), [keras.metrics.R2Score()])
    return model


def trained() -> keras.Model:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, "relu"), layers.Dense(1)])
    schedule = keras.optimizers.schedules.CosineDecay(1e-2, 100)
    model.compile(keras.optimizers.SGD(schedule, momentum=0.9), "mse", metrics=["mae"])
    model.fit(np.ones((8, 4)), np.ones((8, 1)), epochs=1, verbose=0)
    return model


def activations_by_name() -> keras.Model:
    names = ("relu", "relu6", "gelu", "silu", "mish", "selu", "elu", "softplus", "softsign", "hard_sigmoid", "tanh")
    return keras.Sequential([keras.Input((4,)), *(layers.Dense(4, name) for name in names), layers.Softmax()])


def activations_as_layers() -> keras.Model:
    made = [layers.LeakyReLU(0.2), layers.PReLU(), layers.ELU(), layers.ReLU(max_value=6.0), keras.activations.swish]
    return keras.Sequential([keras.Input((4,)), *(layers.Dense(4, each) for each in made)])


def mixed_float16() -> keras.Model:
    dense = [layers.Dense(8, "relu", dtype="mixed_float16"), layers.Dense(2, dtype="float32")]
    return keras.Sequential([keras.Input((4,)), *dense])


def mixed_bfloat16() -> keras.Model:
    return keras.Sequential([keras.Input((4,)), layers.Dense(8, dtype="mixed_bfloat16"), layers.Dense(2)])


def all_bfloat16() -> keras.Model:
    return keras.Sequential([keras.Input((4,)), layers.Dense(8, dtype="bfloat16"), layers.Dense(2, dtype="bfloat16")])


def double_precision() -> keras.Model:
    return keras.Sequential([keras.Input((4,), dtype="float64"), layers.Dense(2, dtype="float64")])


def quantised_int8() -> keras.Model:
    model = keras.Sequential([keras.Input((16,)), layers.Dense(8, "relu"), layers.Dense(2)])
    model.quantize("int8")
    return model


def quantised_int4() -> keras.Model:
    model = keras.Sequential([keras.Input((16,)), layers.Dense(8, "relu"), layers.Dense(2)])
    model.quantize("int4")
    return model


def adapted_by_lora() -> keras.Model:
    model = keras.Sequential([keras.Input((16,)), layers.Dense(8, name="adapted")])
    model.get_layer("adapted").enable_lora(2)
    return model


def operators() -> keras.Model:
    inputs = keras.Input((6, 4))
    x = ops.einsum("...ij,...kj->...ik", inputs, inputs)
    x = ops.softmax(ops.where(x > 0.5, x, -1.0) / 2.0, axis=-1)
    x = ops.concatenate([ops.mean(x, axis=1), ops.cumsum(ops.max(x, axis=-1), axis=-1)], axis=-1)
    return keras.Model(inputs, ops.clip(ops.sqrt(ops.abs(x)), 0.0, 4.0))


def constants_in_the_graph() -> keras.Model:
    inputs = keras.Input((3,))
    return keras.Model(inputs, ops.matmul((inputs - np.array([0.4, 0.5, 0.6])) / 0.2, np.eye(3, dtype="float32")))


def reshaped_by_a_pattern() -> keras.Model:
    inputs = keras.Input(batch_shape=(2, 4, 6))
    return keras.Model(inputs, ops.rearrange(inputs, "b (h two) w -> b h (two w)", two=2))


def named_by_its_author() -> keras.Model:
    inputs = keras.Input((4,), name="Kunden-Daten.v2")
    return keras.Model(inputs, layers.Dense(1, name="net_2.head-1")(inputs), name="Umsatz-2026")


def unet() -> keras.Model:
    inputs = keras.Input((16, 16, 1))
    down = layers.Conv2D(4, 3, padding="same", activation="relu")(inputs)
    deep = layers.SpatialDropout2D(0.2)(layers.Conv2D(8, 3, padding="same")(layers.MaxPooling2D()(down)))
    up = layers.Conv2DTranspose(4, 2, strides=2)(deep)
    return keras.Model(inputs, layers.Conv2D(1, 1, activation="sigmoid")(layers.Concatenate()([up, down])))


def bidirectional_stack() -> keras.Model:
    forward, backward = layers.LSTM(3, return_sequences=True), layers.GRU(3, return_sequences=True, go_backwards=True)
    inputs = keras.Input((None, 4))
    x = layers.Bidirectional(forward, backward_layer=backward)(layers.Masking(0.0)(inputs))
    return keras.Model(inputs, layers.RNN([layers.LSTMCell(2), layers.GRUCell(3)])(x))


def one_dimensional() -> keras.Model:
    convolve = [layers.Conv1D(4, 3, dilation_rate=2, padding="causal"), layers.AveragePooling1D(2), layers.GRU(2)]
    return keras.Sequential([keras.Input((32, 2)), *convolve, layers.Dense(1)])


def ensemble() -> keras.Model:
    inputs = keras.Input((4,))
    members = [keras.Sequential([layers.Dense(3, "relu"), layers.Dense(1)], name=f"member_{i}") for i in range(3)]
    return keras.Model(inputs, layers.Average()([member(inputs) for member in members]))


def siamese_towers() -> keras.Model:
    tower = keras.Sequential([keras.Input((8, 8, 1)), layers.Conv2D(2, 3), layers.GlobalMaxPooling2D()], name="tower")
    one, two = keras.Input((8, 8, 1)), keras.Input((8, 8, 1))
    return keras.Model([one, two], ops.absolute(tower(one) - tower(two)))


def frozen_base() -> keras.Model:
    base = keras.applications.MobileNetV2((32, 32, 3), 0.35, include_top=False, weights=None, pooling="avg")
    base.trainable = False
    return keras.Sequential([keras.Input((32, 32, 3)), layers.Rescaling(1 / 127.5, -1), base, layers.Dense(2)])


BUILDS: dict[str, Build] = {
    build.__name__: build
    for build in (
        two_inputs_two_outputs, inputs_by_name, shared_layer, nested, nested_functional_twice, residual, transformer,
        cross_attention, encoder_decoder_states, text_with_adapted_vocabulary, lookup_and_back, feature_table,
        augmented_images, sound, regularised, trained, activations_by_name, activations_as_layers, mixed_float16,
        mixed_bfloat16, all_bfloat16, double_precision, quantised_int8, quantised_int4, adapted_by_lora, operators,
        constants_in_the_graph, reshaped_by_a_pattern, named_by_its_author, unet, bidirectional_stack,
        one_dimensional, ensemble, siamese_towers, frozen_base,
    )
}  # fmt: skip
# Some in the old format too. Keras itself cannot read back an operator there, nor an adapted vocabulary.
LEGACY = (
    "two_inputs_two_outputs", "shared_layer", "nested", "encoder_decoder_states", "augmented_images", "regularised",
    "trained", "activations_by_name", "activations_as_layers", "unet", "one_dimensional", "feature_table", "ensemble",
)  # fmt: skip
