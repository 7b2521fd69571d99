"""Write the checkpoints of tests/data/tensorflow with TensorFlow itself. Run it by hand.

    python -m venv build/tensorflow && build/tensorflow/bin/pip install tensorflow-cpu
    build/tensorflow/bin/python tools/make_tensorflow_checkpoints.py

The tests read these files without TensorFlow and compare them with the arrays and scores in the .npz files beside them,
which TensorFlow computed. The project does not depend on TensorFlow: install it in a separate environment. The files
were written with TensorFlow 2.21.
"""

import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tensorflow as tf

v1 = tf.compat.v1
FOLDER = Path(__file__).parents[1] / "tests" / "data" / "tensorflow"
D, M, E, GRID, BATCH, LABELS = 6, 3, 5, 4, 2, 7


def save(name: str, build: Callable[[np.random.Generator], object], **saver: object) -> None:
    """Build variables in a new graph and save them with the classic Saver, and their values in a .npz file.

    A checkpoint whose name ends in `_1` is saved as one file of version 1, with the values of the name without `_1`.
    """
    if name.endswith("_1"):
        saver["write_version"] = v1.train.SaverDef.V1
    with tf.Graph().as_default():
        build(np.random.default_rng(len(name.removesuffix("_1"))))
        with v1.Session(config=v1.ConfigProto(device_count={"CPU": 2})) as session:
            session.run(v1.global_variables_initializer())
            extra = run_model(session) if name == "lesa" else {}
            stored = [variable for variable in v1.global_variables() if variable.dtype.base_dtype != tf.string]
            values = {variable.op.name: to_numpy(session.run(variable)) for variable in stored}
            v1.train.Saver(**saver).save(
                session, str(FOLDER / name), write_meta_graph=False, write_state=False, latest_filename="unused"
            )
    np.savez_compressed(FOLDER / f"{name}.npz", **values, **extra)


def to_numpy(value: np.ndarray) -> np.ndarray:
    """Return the value; bfloat16 becomes float32, which is exact and which a .npz file can store."""
    return value.astype(np.float32) if value.dtype == tf.bfloat16.as_numpy_dtype else value


def variable(name: str, value: object, **options: object) -> tf.Variable:
    """Make a variable with this name and first value in the graph."""
    return v1.get_variable(name, initializer=tf.constant(value), **options)


def authors_model(draw: np.random.Generator) -> None:
    """Build the published model out of TensorFlow's own operations, with the authors' names of variables."""
    regions = v1.placeholder(tf.float32, (BATCH, GRID * GRID, D), "regions")
    vectors = v1.placeholder(tf.float32, (LABELS, E), "vectors")
    normal = lambda *shape: draw.normal(size=shape).astype(np.float32)  # noqa: E731
    w_att_1 = variable("attention_layer/w_att_1", normal(D + 1, D))
    w_att_2 = variable("attention_layer/w_att_2", normal(D + 1, M))
    w = variable("prediction_frac/W", normal(D, E))
    kernel = variable("conv/conv/weights", normal(2, 2, D, D))
    batch_norm = {
        "beta": normal(D),
        "gamma": 1 + 0.1 * normal(D),
        "moving_mean": normal(D),
        "moving_variance": np.exp(normal(D)),
    }
    fixed = {"moving_mean", "moving_variance"}
    beta, gamma, mean, variance = (
        variable(f"conv/conv/batch_normalization/{name}", value, trainable=name not in fixed)
        for name, value in batch_norm.items()
    )
    maps = tf.reshape(regions, (BATCH, GRID, GRID, D))
    maps = tf.nn.conv2d(maps, kernel, strides=1, padding="SAME")
    maps = tf.nn.relu(tf.nn.batch_normalization(maps, mean, variance, beta, gamma, 1e-3))
    features = tf.reshape(maps, (BATCH, GRID * GRID, D))
    ones = tf.ones((BATCH, GRID * GRID, 1))
    hidden = tf.tanh(tf.einsum("brd,de->bre", tf.concat([features, ones], 2), w_att_1))
    logits = tf.einsum("brd,dm->bmr", tf.concat([hidden, ones], 2), w_att_2)
    attended = tf.einsum("bmr,brd->bmd", tf.nn.softmax(logits, axis=2), features)
    compatibility = tf.einsum("bmd,de,ce->bmc", attended, w, tf.nn.l2_normalize(vectors, axis=1))
    scores = tf.identity(tf.reduce_max(compatibility, axis=1), "scores")
    # One step creates the optimiser's slots, which a real checkpoint also has.
    step = v1.train.get_or_create_global_step()
    v1.train.RMSPropOptimizer(1e-3, momentum=0.9, epsilon=1.0).minimize(tf.reduce_sum(scores), step, name="train")


def run_model(session: v1.Session) -> dict[str, np.ndarray]:
    """Take the training step, then return random regions and vectors, and TensorFlow's scores of them."""
    draw = np.random.default_rng(0)
    given = {
        "regions": draw.normal(size=(BATCH, GRID * GRID, D)).astype(np.float32),
        "vectors": draw.normal(size=(LABELS, E)).astype(np.float32),
    }
    feed = {f"{name}:0": value for name, value in given.items()}
    session.run("train", feed)
    return {f"given/{name}": value for name, value in given.items()} | {"given/scores": session.run("scores:0", feed)}


def slim_vgg_19(draw: np.random.Generator) -> None:
    """Make VGG-19's convolutions under TF-slim's names, with two channels each."""
    for block, layers in enumerate((2, 2, 4, 4, 4), start=1):
        for layer in range(1, layers + 1):
            scope = f"vgg_19/conv{block}/conv{block}_{layer}"
            channels = 3 if (block, layer) == (1, 1) else 2
            variable(f"{scope}/weights", draw.normal(size=(3, 3, channels, 2)).astype(np.float32))
            variable(f"{scope}/biases", draw.normal(size=2).astype(np.float32))
    variable("vgg_19/mean_rgb", np.array([123.68, 116.78, 103.94], np.float32))
    v1.train.get_or_create_global_step()


TYPES = ("float32", "float64", "float16", "bfloat16", "int8", "uint8", "int16", "uint16", "int32", "int64", "bool")


def every_dtype(draw: np.random.Generator, types: tuple[str, ...] = TYPES) -> None:
    """Make a variable of every usual type, a scalar, an empty one and a text, on two devices for two shards."""
    for index, name in enumerate(types):
        with tf.device(f"/cpu:{index % 2}"):
            values = tf.cast(draw.integers(0, 100, size=(2, 3)) - 3 * (name[0] != "u"), name)
            v1.get_variable(f"types/{name}", initializer=values)
    variable("scalar", np.float32(2.5))
    variable("empty", np.zeros((0, 4), np.float32))
    variable("text", "no number")


def partitioned(draw: np.random.Generator) -> None:
    """Make a variable that is stored in two parts."""
    del draw
    v1.get_variable("parts", (4, 3), partitioner=v1.fixed_size_partitioner(2), initializer=v1.ones_initializer())


def every_dtype_of_version_1(draw: np.random.Generator) -> None:
    """Make the same without bfloat16, which version 1 lacks, and the limits of the integer types."""
    every_dtype(draw, tuple(name for name in TYPES if name != "bfloat16"))
    for name in ("int8", "uint8", "int16", "uint16", "int32", "int64"):
        ends = np.iinfo(name)
        variable(f"ends/{name}", np.array([ends.min, ends.max - 1, ends.max], name))
    variable("ends/float16", np.array([-np.inf, -0.0, 65504, 6e-8], np.float16))


def save_object_based() -> None:
    """Save as TensorFlow 2 does: the variables include an object graph (a string)."""
    attention = tf.Variable(np.arange(4, dtype=np.float32))
    tf.train.Checkpoint(attention=attention).write(str(FOLDER / "objects"))
    np.savez_compressed(FOLDER / "objects.npz", **{"attention/.ATTRIBUTES/VARIABLE_VALUE": attention.numpy()})


def save_many_blocks() -> None:
    """Save names with one megabyte in total, so that a table has several blocks (256 kB each); zipped to a few kB."""
    names = [f"{letter * 400}/{number:04d}/" + letter * 700 for letter in "abc" for number in range(300)]
    values = [np.float32(number) for number in range(len(names))]
    prefix = FOLDER / "blocks"
    tf.raw_ops.SaveV2(
        prefix=str(prefix), tensor_names=names, shape_and_slices=[""] * len(names), tensors=values, name=None
    )
    tf.raw_ops.Save(filename=str(FOLDER / "blocks_1"), tensor_names=names, data=values)
    files = sorted(FOLDER.glob("blocks*"))
    with zipfile.ZipFile(FOLDER / "blocks.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for file in files:
            archive.write(file, file.name)
            file.unlink()


if __name__ == "__main__":
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    save_object_based()
    save_many_blocks()
    save("lesa", authors_model)
    save("vgg_19", slim_vgg_19)
    save("types", every_dtype, sharded=True)
    save("partitioned", partitioned)
    save("vgg_19_1", slim_vgg_19)
    save("types_1", every_dtype_of_version_1)
    save("partitioned_1", partitioned)
    for unneeded in ("vgg_19_1", "partitioned", "partitioned_1"):
        (FOLDER / f"{unneeded}.npz").unlink()
