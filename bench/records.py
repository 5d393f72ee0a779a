"""The model and the records that the benchmarks evaluate: the demo's."""

from __future__ import annotations

import csv
from pathlib import Path

from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def prepare(folder: Path) -> tuple[Path, Path]:
    """The demo's model and records: Breast Cancer Wisconsin, as scikit-learn carries it, one half each."""
    data = load_breast_cancer()
    train, held, train_y, held_y = train_test_split(
        data.data, data.target, test_size=0.5, random_state=7, stratify=data.target
    )
    fitted = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(train, train_y)
    model, records = folder / "model.onnx", folder / "records.csv"
    model.write_bytes(to_onnx(fitted, train[:1].astype("float32"), options={"zipmap": False}).SerializeToString())
    with records.open("w", newline="") as sink:
        writer = csv.writer(sink)
        writer.writerow([*data.feature_names, "benign"])
        writer.writerows([*(repr(float(v)) for v in row), int(y)] for row, y in zip(held, held_y, strict=True))
    return model, records
