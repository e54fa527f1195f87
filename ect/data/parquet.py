"""The images of Parquet files as HF `datasets` writes them: a column of {bytes, path}, and classes.

The features in a file's metadata are followed: which columns are images, and the names of a
ClassLabel. The `path` beside the bytes is never opened. Rows are compressed together, so images are
read from the beginning of a file on, one at a time: memory stays at a page of the file (by default
1 MB) and an image. Needs pyarrow; loads no torch.
"""

import io
import json
import os
from bisect import bisect_left
from contextlib import contextmanager

from ect.data.classes import Listing, classes_of
from ect.data.shards import shards
from ect.runtime.text import shown

BUFFER = 2**16  # bytes of a column that are read at a time
LABELS = ("label", "labels")  # whole numbers in such a column are classes, whatever wrote the file
PYARROW = (
    "pyarrow is not installed; allowed with source parquet: pip install 'ect-pipeline[parquet]'"
)


class Rows:
    """The images in rows of Parquet files, numbered from 0 in the order of the files."""

    def __init__(self, column):
        self.column, self.files, self.names = column, {}, []

    def add(self, name, path, count):
        """Append the rows of a file."""
        self.names += [f"{name}, row {row}" for row in range(count)]
        self.files[path] = count

    def open(self, name):
        """The content of one image, by its name; raises `ValueError`."""
        return opened(next(self.contents([self.names.index(name)])))

    def contents(self, rows):
        """Yields the bytes of the images `rows`, sorted numbers; None for a row without. Raises
        `ValueError` for a damaged file."""
        for path, inside in _parts(rows, self.files.items()):
            if inside:
                with _parquet(path) as file:
                    yield from _values(file, f"{self.column}.bytes", inside)


def opened(content):
    """An image's bytes as an open file; raises `ValueError` where there are none."""
    if content is None:
        raise ValueError("its row holds no bytes; allowed: images that are embedded in the file")
    return io.BytesIO(content)


def _parts(rows, counts):
    """(key, its rows from its first on) of sorted rows, for pairs (key, how many rows it has)."""
    first = 0
    for key, count in counts:
        yield key, [row - first for row in rows[bisect_left(rows, first) :
                    bisect_left(rows, first + count)]]  # fmt: skip
        first += count


def _values(file, column, rows):
    """Yields the values of a file's column at sorted rows. A batch is one row: of more, a page of
    one dictionary could make as many large images."""
    groups = range(file.num_row_groups)
    counts = [(group, file.metadata.row_group(group).num_rows) for group in groups]
    for group, inside in _parts(rows, counts):
        left = set(inside)
        batches = file.iter_batches(1, [group], [column], use_threads=False) if left else ()
        for place, batch in enumerate(batches):
            if place in left:
                yield batch.column(0).field(0)[0].as_py()
                left.remove(place)
            if not left:
                break
        if left:
            raise EOFError("fewer rows than it says")


@contextmanager
def _parquet(path):
    """A `ParquetFile`; raises `ValueError` where it, or what the block reads of it, is damaged."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ModuleNotFoundError:
        raise ValueError(PYARROW) from None
    try:
        with ParquetFile(path, buffer_size=BUFFER, pre_buffer=False) as file:
            rows, size = file.metadata.num_rows, os.path.getsize(path)
            groups = [file.metadata.row_group(k).num_rows for k in range(file.num_row_groups)]
            if not 0 <= rows <= size or sum(groups) != rows or min(groups, default=0) < 0:
                raise EOFError(f"{rows:,} rows, {sum(groups):,} in groups, in {size:,} bytes")
            yield file
    except MemoryError:
        raise
    except (ArrowException, OSError, EOFError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # not the file's fault
            raise
        reason = shown(" ".join(str(error).split()), 200)
        found = f"not a readable Parquet file ({reason})"
        raise ValueError(f"{shown(path)}: {found}; allowed: a whole one") from None


def listed(settings):
    """The `Listing` of the rows; the classes are those of the column `label`, or of the one that is
    a ClassLabel. Raises `ValueError`."""
    path, label = settings["path"], settings.get("label")
    found, labels, first, trained = shards(path, ".parquet"), [], None, 0
    for name, file in (found.train | found.tests).items():
        with _parquet(file) as parquet:
            columns = _columns(parquet.schema_arrow, label, file)
            if first is None:
                first, rows = columns, Rows(columns[0])
            if columns != first:
                raise ValueError(
                    f"{shown(file)}: has other columns of images or classes than the first file,"
                    f" {shown(str(columns), 100)}; allowed: {shown(str(first), 100)}"
                )
            rows.add(name, file, parquet.metadata.num_rows)
            labels += _labels(parquet, columns[1])
        trained = len(labels) if name in found.train else trained
    if not labels:
        raise ValueError(f"{shown(path)}: no rows; allowed: one or more")
    classes, labels = _classes(labels, first, rows.names, path, label)
    tests = len(labels) - trained
    return Listing(rows, rows.names, labels, classes, found.ignored, tests, list(rows.files))


def _columns(schema, label, path):
    """(column of images, column of classes or None, names of the classes or None)."""
    features, names = _features(schema), ", ".join(schema.names)
    told = {name: feature.get("_type") for name, feature in features.items()}
    typed = [f"{field.name} ({told.get(field.name) or field.type})" for field in schema]
    if len(set(schema.names)) < len(schema.names):
        twice = next(name for name in schema.names if schema.names.count(name) > 1)
        raise ValueError(f"{shown(path)}: found a column '{shown(twice)}' twice; allowed: once")
    images = [field.name for field in schema
              if _is_image(field, features.get(field.name))]  # fmt: skip
    if len(images) > 1 and "image" in images:
        images = ["image"]
    if len(images) != 1:
        found = f"{', '.join(images)} of images" if images else ", ".join(typed)
        raise ValueError(
            f"{shown(path)}: found the columns {shown(found)}; allowed: one of images,"
            " {bytes, path}, or one of them named image"
        )
    if label is None:
        label = _label(schema, features, path)
    elif label not in schema.names:
        raise ValueError(f"{shown(path)}: no column '{shown(label)}'; allowed: {shown(names)}")
    return images[0], label, features.get(label, {}).get("names")


def _features(schema):
    """What `datasets` says of its columns: {name: {_type, ...}}; nothing where it did not write
    the file."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: told for name, told in features.items() if isinstance(told, dict)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def _is_image(field, told):
    """Whether a column holds {bytes, path} of images; sound has the same form."""
    from pyarrow import types

    if not types.is_struct(field.type) or field.type.get_field_index("bytes") < 0:
        return False
    kind = field.type.field("bytes").type
    return (types.is_binary(kind) or types.is_large_binary(kind)) and (
        told is None or told.get("_type") == "Image"
    )


def _label(schema, features, path):
    """The column of classes, if there is one."""
    from pyarrow import types

    found = [name for name, told in features.items() if told.get("_type") == "ClassLabel"]
    found = [name for name in found if name in schema.names] or [
        name
        for name in LABELS
        if name in schema.names and types.is_integer(schema.field(name).type)
    ]
    if len(found) > 1 and "label" not in found:
        raise ValueError(
            f"{shown(path)}: found the classes {shown(', '.join(found))}; allowed: dataset.label"
            " with one of them"
        )
    if not found:
        _require_no_classes(schema, path)
    return "label" if "label" in found else found[0] if found else None


def _require_no_classes(schema, path):
    """Raise `ValueError` for a column with the name of one of classes that would not be read."""
    from pyarrow import types

    for name in LABELS:
        kind = schema.field(name).type if name in schema.names else None
        if kind is None or types.is_null(kind) or types.is_nested(kind):  # masks, boxes, several
            continue
        value = kind.value_type if types.is_dictionary(kind) else kind
        texts = types.is_string(value) or types.is_large_string(value)
        meant = f"dataset.label: {name}, by which each text is a class" if texts else ""
        raise ValueError(
            f"{shown(path)}: found a column '{name}' of {shown(str(kind), 60)}, and no names of"
            f" classes; allowed: {meant or 'whole numbers or texts in it'}, or another name for it"
        )


def _labels(file, column):
    """The values of a column, None without one."""
    if column is None:
        return [None] * file.metadata.num_rows
    return file.read([column], use_threads=False).column(0).to_pylist()


def _classes(labels, columns, rows, path, label):
    """(class names, class index of each image); raises `ValueError`."""
    _, column, names = columns
    if names is None or isinstance(labels[0], str):
        return classes_of(labels, rows, path, label)
    fine = isinstance(names, list) and all(isinstance(name, str) and name for name in names)
    if not fine or len(set(names)) < len(names):
        raise ValueError(
            f"{shown(path)}: the names of '{shown(column)}' are {shown(str(names), 80)}; allowed:"
            " a list of texts, each once"
        )
    for row, label in zip(rows, labels):
        if type(label) is not int or not 0 <= label < len(names):
            raise ValueError(
                f"{shown(path)}: the class of '{shown(row)}' is {shown(repr(label), 80)}; allowed:"
                f" 0 to {len(names) - 1}, as '{shown(column)}' has names"
            )
    return names, labels
